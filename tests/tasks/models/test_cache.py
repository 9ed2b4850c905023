"""The sampler's cache: token for token what transformers' own gives, whatever kind of attention the layers have."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, Gemma2Config, LlamaConfig, MistralConfig, Qwen3Config
from transformers.cache_utils import DynamicLayer

import tasks.models.generate
from tasks.models.cache import BLOCK, BlockLayer, make_cache

SHAPE = {
    "vocab_size": 280, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGS = {
    "grouped queries": LlamaConfig(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "sliding window": MistralConfig(sliding_window=8, **SHAPE),
    "both kinds": Gemma2Config(sliding_window=8, attn_implementation="eager", **SHAPE),
}


def drawn(model, tokenizer, monkeypatch, cache):
    monkeypatch.setattr(tasks.models.generate, "make_cache", cache)
    return tasks.models.generate.sample(
        model, tokenizer, [[1, 60, 61], [1, 70], [1, 80, 81, 82, 83, 84, 85]], max_new_tokens=2 * BLOCK + 5, temperature=1.0,
        generator=torch.Generator().manual_seed(0), group_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_samples_are_those_with_the_cache_of_transformers(config, tokenizer, monkeypatch):
    """Over the border of two blocks, while rows end and leave."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = [2, *range(40, 50)]
    ours = drawn(model, tokenizer, monkeypatch, make_cache)
    theirs = drawn(model, tokenizer, monkeypatch, lambda model: DynamicCache(config=model.config))
    assert torch.equal(ours.completion_ids, theirs.completion_ids)
    torch.testing.assert_close(ours.logprobs, theirs.logprobs, atol=1e-5, rtol=0)
    assert len(set(ours.lengths.tolist())) > 1
    assert ours.time > BLOCK


@pytest.mark.parametrize(("name", "blocks"), [("qwen3", 2), ("sliding window", 0), ("both kinds", 1)])
def test_only_full_attention_is_kept_in_blocks(name, blocks):
    cache = make_cache(AutoModelForCausalLM.from_config(CONFIGS[name]))
    assert sum(isinstance(layer, BlockLayer) for layer in cache.layers) == blocks


def test_a_layer_holds_what_that_of_transformers_holds():
    ours, theirs = BlockLayer(), DynamicLayer()
    generator = torch.Generator().manual_seed(0)
    for step, time in enumerate([5] + [1] * (2 * BLOCK) + [3]):
        rows = 3 if step < BLOCK else 2
        keys, values = torch.randn(2, rows, 2, time, 4, generator=generator)
        torch.testing.assert_close(ours.update(keys, values), theirs.update(keys, values), atol=0, rtol=0)
        if step == BLOCK - 1:
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([2, 0]))
    assert ours.get_seq_length() == theirs.get_seq_length() == 5 + 2 * BLOCK + 3


def test_a_token_moves_no_other():
    layer = BlockLayer()
    layer.update(*torch.randn(2, 1, 1, 4, 2))
    places = [layer.update(*torch.randn(2, 1, 1, 1, 2))[0].data_ptr() for _ in range(BLOCK)]
    assert len(set(places)) == 1
