"""Two tiny random models of different architecture, and a tokenizer that fits them."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tasks.models.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return train_tokenizer(["two apples and 12 pears"] * 3, 280)


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    """Llama turns by relative positions; GPT-2 adds absolute ones, so a wrong position id shows."""
    torch.manual_seed(0)
    shared = {
        "vocab_size": len(tokenizer), "initializer_range": 0.3,
        "pad_token_id": 0, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    if request.param == "llama":
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        return LlamaForCausalLM(LlamaConfig(max_position_embeddings=48, **shape, **shared)).eval()
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=48, **shared)).eval()
