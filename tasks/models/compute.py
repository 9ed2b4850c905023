"""How a model computes: precision, sizes of what is held at once, checkpointing. None of it changes what is computed.

bfloat16 keeps float32 weights and runs every forward pass under autocast. The settings live on the model, so that a copy of it
has them too.
"""

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.models.cache import has_plain_cache
from tasks.models.data_parallel import count, share_rows


class ComputeConfig(Config):
    """params.yaml: compute"""

    namespace = "compute"

    precision: Literal["float32", "bfloat16"]
    rows_at_once: PositiveInt | None
    logits_at_once: PositiveInt | None
    checkpointing: bool
    processes: PositiveInt  # of a training stage, each with a share of the rows and on CUDA a GPU of its own


def apply_settings(model: Any, settings: ComputeConfig) -> Any:
    """The model itself, which now computes as the settings say."""
    if settings.logits_at_once and model.get_output_embeddings():
        check_head(model, "compute.logits_at_once", "null")
    model.rows_at_once, model.logits_at_once = settings.rows_at_once, settings.logits_at_once
    model.share_rows = share_rows if count() > 1 else None
    model.shares_prompts = has_plain_cache(model) and not settings.checkpointing  # a layer computed again would fill it twice
    if settings.precision == "bfloat16":
        if model.device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise InputError("params.yaml: `compute.precision`: this GPU has no bfloat16; write float32")
        head = model.get_output_embeddings()
        for part in [model, model.base_model, head] if head else [model.base_model]:  # the parts are also called by themselves
            part.register_forward_pre_hook(_enter_autocast)
            part.register_forward_hook(_leave_autocast, always_call=True)
    if settings.checkpointing:
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.__class__ = type(type(layer).__name__, (_Checkpointed, type(layer)), {})
    return model


def at_once(model: Any, most: int) -> int:
    """Rows to give to the model in one forward pass: `most`, or fewer if compute.rows_at_once says so."""
    return min(most, getattr(model, "rows_at_once", None) or most)


@torch.no_grad()
def check_head(model: Any, key: str, instead: str) -> None:
    """Refuse a model that does something between its output layer and its logits, such as scaling or capping them.

    key: what asks for logits straight from the output layer; instead: its value that does not.
    """
    ids = torch.arange(4, device=model.device)[None]
    states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    if not torch.allclose(
        model.get_output_embeddings()(states), model(input_ids=ids, use_cache=False).logits, atol=1e-4, rtol=1e-4
    ):
        raise InputError(
            f"params.yaml: `{key}`: {type(model).__name__} does not take its logits straight from its output layer; "
            f"write {instead}"
        )


def _enter_autocast(part: Any, args: Any) -> None:
    part.autocast = torch.autocast(next(part.parameters()).device.type, torch.bfloat16)
    part.autocast.__enter__()


def _leave_autocast(part: Any, args: Any, output: Any) -> None:
    part.autocast.__exit__(None, None, None)
    del part.autocast
    if hasattr(output, "last_hidden_state"):
        output.last_hidden_state = output.last_hidden_state.float()  # a head of one number stays in float32


class _Checkpointed:
    """A layer that forgets its activations and computes them again in the backward pass.

    transformers does so in training mode only, where dropout would be on.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward: Any = super().__call__  # type: ignore[misc]
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
