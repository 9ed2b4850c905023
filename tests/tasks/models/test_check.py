"""Every architecture is right or refused in one sentence: tiny random models of each, made from transformers' configs."""

import copy
import json
import sys
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    Gemma3Config,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    RwkvConfig,
)

from tasks.algorithms.base_model import BaseModelConfig, make_model
from tasks.core.errors import InputError
from tasks.core.files import digest
from tasks.models.architecture import context_length, width
from tasks.models.check import check_architecture
from tasks.models.language import load_model, save_model
from tasks.models.reward import reward_model_from_policy
from tests.project import PARAMS

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SIZES | {"num_key_value_heads": 2, "intermediate_size": 32, "max_position_embeddings": 48}
VISION = SIZES | {"intermediate_size": 16, "image_size": 28, "patch_size": 14}


def random_model(architecture: str, tokenizer: Any) -> Any:
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    shared = ids | {"vocab_size": len(tokenizer), "initializer_range": 0.3}
    match architecture:
        case "llama":
            config: Any = LlamaConfig(**LLAMA, **shared)
        case "bloom":
            config = BloomConfig(hidden_size=16, n_layer=2, n_head=2, **shared)
        case "mpt":
            config = MptConfig(d_model=16, n_heads=2, n_layers=2, max_seq_len=48, **shared)
        case "opt":
            config = OPTConfig(
                **SIZES, ffn_dim=32, max_position_embeddings=48, word_embed_proj_dim=16, **ids, vocab_size=len(tokenizer)
            )
        case "codegen":
            config = CodeGenConfig(n_embd=16, n_layer=2, n_head=4, n_positions=48, rotary_dim=4, **shared)
        case "gemma3":
            text = LLAMA | shared | {"head_dim": 8, "sliding_window": 8}
            config = Gemma3Config(text_config=text, vision_config=VISION, **ids)
        case "mamba":
            config = MambaConfig(hidden_size=16, num_hidden_layers=2, state_size=4, **shared)
        case "lfm2":
            config = Lfm2Config(**LLAMA, layer_types=["conv", "full_attention"], **shared)
        case "rwkv":
            config = RwkvConfig(hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, **shared)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("architecture", "context"),
    [("llama", 48), ("bloom", sys.maxsize), ("mpt", sys.maxsize), ("opt", 48), ("codegen", 48), ("gemma3", 48)],
)
def test_architectures_that_are_right(architecture: str, context: int, tokenizer: Any) -> None:
    model = random_model(architecture, tokenizer)
    check_architecture(model, tokenizer)
    assert (context_length(model), width(model)) == (context, 16)


@pytest.mark.parametrize(
    ("architecture", "says"),
    [
        ("rwkv", "a rwkv model gives a text other log-probabilities when it is padded"),
        ("mamba", "a mamba model cannot be sampled and trained here"),
        ("lfm2", "a lfm2 model cannot be sampled and trained here"),
    ],
)
def test_architectures_that_are_refused(architecture: str, says: str, tokenizer: Any) -> None:
    with pytest.raises(InputError, match=says) as refusal:
        check_architecture(random_model(architecture, tokenizer), tokenizer)
    assert len(str(refusal.value).splitlines()) == 1


def test_the_base_model_is_checked(tokenizer: Any, tmp_path: Any) -> None:
    save_model(random_model("rwkv", tokenizer), tokenizer, tmp_path)
    values = PARAMS["base_model"] | {"source": tmp_path.as_posix(), "revision": digest(tmp_path)}

    class Stage:
        device = "cpu"

    with pytest.raises(InputError, match="a rwkv model"):
        make_model(BaseModelConfig.model_validate(values), tokenizer, Stage())  # type: ignore[arg-type]


def test_a_sampler_that_disagrees_with_training_is_refused(tokenizer: Any) -> None:
    """A cache that is read a little wrong: every step after the first sees keys of another size."""
    model = random_model("llama", tokenizer)
    plain = model.forward

    def wrong(*args: Any, **options: Any) -> Any:
        outputs = plain(*args, **options)
        outputs.logits = outputs.logits * (2 if options["input_ids"].shape[1] == 1 else 1)
        return outputs

    model.forward = wrong
    with pytest.raises(InputError, match="while it samples"):
        check_architecture(model, tokenizer)


def test_no_reward_model_of_an_architecture(tokenizer: Any, tmp_path: Any) -> None:
    save_model(random_model("codegen", tokenizer), tokenizer, tmp_path)
    with pytest.raises(InputError, match="no reward model of this architecture"):
        reward_model_from_policy(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"num_hidden_layers": 1}, "holds model.layers.1.* which the model of its config.json does not have"),
        ({"num_hidden_layers": 3}, "lacks model.layers.2"),
        ({"intermediate_size": 64}, r"\(16, 32\) in its weights file and \(16, 64\) by its config.json"),
        ({"num_attention_heads": 3}, "not a multiple of the number of attention heads"),
        ({"hidden_size": "wide"}, "expected int, got str"),
    ],
    ids=str,
)
def test_a_config_that_disagrees_with_its_weights(changed: Any, says: str, tokenizer: Any, tmp_path: Any) -> None:
    save_model(random_model("llama", tokenizer), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(copy.deepcopy(config) | changed))
    with pytest.raises(InputError, match=says) as refusal:
        load_model(tmp_path)
    assert len(str(refusal.value).splitlines()) == 1
