"""Keys and values of what a model has read, in room that grows by blocks of tokens: most tokens copy nothing.

`DynamicCache` copies the whole cache of every layer for every token.
"""

from typing import Any

from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

BLOCK = 16  # tokens; a power of two far larger makes attention on a CPU slower, because rows lie further apart


def make_cache(model: Any) -> DynamicCache:
    """An empty cache. A layer of another kind than full attention, such as a sliding window, keeps that of transformers."""
    cache = DynamicCache(config=model.config)
    cache.layers = [BlockLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def has_plain_cache(model: Any) -> bool:
    """Whether all that a token leaves behind for later ones is its keys and values, so that reading may go on anywhere."""
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class BlockLayer(DynamicLayer):
    """Full attention: `keys` and `values` are the filled part of two stores, (batch, heads, room, width)."""

    stores: list[Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        begin = self.get_seq_length()
        if not begin:
            self._hold(key_states, value_states)
            return key_states, value_states
        end = begin + key_states.shape[2]
        if end > self.stores[0].shape[2]:
            self.stores = [pad(store[:, :, :begin], (0, 0, 0, end - begin + BLOCK)) for store in self.stores]
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[:, :, begin:end] = states
        self.keys, self.values = (store[:, :, :end] for store in self.stores)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._hold(self.keys, self.values)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._hold(self.keys, self.values)

    def _hold(self, keys: Any, values: Any) -> None:
        self.keys, self.values, self.is_initialized = keys, values, True
        self.stores = [keys, values]
