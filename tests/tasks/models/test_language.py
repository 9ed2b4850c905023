"""Models are plain Hugging Face folders; what cannot be loaded safely is refused with one sentence."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.errors import InputError
from tasks.models.language import build_model, frozen_copy, load_model, load_policy, rounded, save_model
from tasks.models.reward import load_reward_model, reward_model_from_policy

SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 32, "initializer_range": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_model(build_model(tokenizer, 0, **SHAPE), tokenizer, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "model")


def refused(source, match, **options):
    with pytest.raises(InputError, match=match) as error:
        load_model(source, **options)
    assert str(source) in str(error.value)
    return len(str(error.value).splitlines()) == 1


def test_the_seed_makes_the_weights_and_nothing_else(tokenizer):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, third = (build_model(tokenizer, seed, **SHAPE) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, third.lm_head.weight)


def test_any_tool_can_load_the_folder(saved, tokenizer):
    model, again = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    ids = torch.tensor([tokenizer("two apples")["input_ids"]])
    assert torch.equal(model(ids).logits, load_model(saved)(ids).logits)
    assert again("two apples")["input_ids"] == ids[0].tolist()
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert [file.name for file in saved.glob("*.bin")] == []


def test_saving_the_same_weights_gives_the_same_bytes(saved, tmp_path):
    model, tokenizer = load_policy(saved, "cpu")
    save_model(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_weights_that_are_no_numbers_are_neither_published_nor_loaded(saved, tmp_path):
    model, tokenizer = load_policy(saved, "cpu")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"of the trained model is not finite, so it is not published"):
        save_model(model, tokenizer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    model.save_pretrained(tmp_path / "bad")
    assert refused(tmp_path / "bad", r"cannot be loaded \(`.*weight` in its weights file is not finite\)")


def test_a_config_that_disagrees_with_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 11, "hidden_size": 24}))
    assert refused(folder, "cannot be loaded")


def test_a_model_is_saved_in_the_precision_it_came_in(saved, tokenizer, tmp_path):
    """It learns in float32; half of the bytes on disk, and the very same if it has not learned."""
    source, again, reward = tmp_path / "source", tmp_path / "again", tmp_path / "reward_model"
    AutoModelForCausalLM.from_pretrained(saved, dtype="bfloat16").save_pretrained(source)
    tokenizer.save_pretrained(source)
    model, _ = load_policy(source, "cpu")
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.float32}
    plain = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    assert torch.equal(model(torch.arange(9)[None]).logits, plain(torch.arange(9)[None]).logits)
    save_model(frozen_copy(model), tokenizer, again)
    save_model(reward_model_from_policy(source, "cpu"), tokenizer, reward)
    assert (again / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    for folder in (again, reward):
        assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert load_reward_model(reward, "cpu").dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_keeps_small_steps_on_average_and_leaves_what_fits(dtype):
    held = torch.randn(200, 200, generator=torch.Generator().manual_seed(1)).to(dtype).float()
    step = held.abs() * torch.finfo(dtype).eps / 20  # to the nearest, nearly every one would be undone
    found = rounded(held + step, dtype, torch.Generator().manual_seed(2)).float()
    assert (found - held).sum() / step.sum() == pytest.approx(1, rel=0.05)
    assert ((found - held).abs() <= torch.finfo(dtype).eps * held.abs() + 1e-7).all()
    assert torch.equal(rounded(held, dtype, torch.Generator().manual_seed(2)).float(), held)
    assert torch.equal(rounded(held + step, dtype, torch.Generator().manual_seed(2)).float(), found)


def test_little_training_of_a_bfloat16_source_is_not_lost_when_it_is_saved(saved, tokenizer, tmp_path):
    source, trained = tmp_path / "source", tmp_path / "trained"
    AutoModelForCausalLM.from_pretrained(saved, dtype="bfloat16").save_pretrained(source)
    tokenizer.save_pretrained(source)
    model, _ = load_policy(source, "cpu")
    with torch.no_grad():
        model.lm_head.weight *= 1 + 2e-4
    save_model(model, tokenizer, trained)
    before, after = (load_model(folder).lm_head.weight.abs().sum() for folder in (source, trained))
    assert (after / before - 1).item() == pytest.approx(2e-4, rel=0.2)


def test_no_room_for_the_weights_is_an_error_of_the_disk(saved, tmp_path, nursery):
    """With a limit of 4 KiB per file; safetensors has an exception of its own, a stage knows those of the system."""
    (tmp_path / "save.py").write_text(f"""
import errno, resource
from pathlib import Path
from tasks.models.language import load_policy, save_model
from tasks.models.reward import load_reward_model, reward_model_from_policy
policy = load_policy(Path({str(saved)!r}), "cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    save_model(*policy, Path("model"))
except OSError as error:
    print(errno.errorcode[error.errno])
""")
    done = nursery.run(tmp_path, "save.py")
    assert done.stdout.strip() in ("ENOSPC", "EFBIG"), done.stderr


def test_dropout_stays_off(saved):
    assert not load_policy(saved, "cpu")[0].training


def test_a_frozen_copy_does_not_follow(saved):
    model, _ = load_policy(saved, "cpu")
    reference = frozen_copy(model)
    model.lm_head.weight.data += 1
    assert not torch.equal(reference.lm_head.weight, model.lm_head.weight)
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_no_such_folder(tmp_path):
    assert refused(tmp_path / "nothing", "does not exist")
    assert refused("nothing", "does not exist")


def test_not_a_model_folder(tmp_path):
    (tmp_path / "readme.txt").write_text("hello")
    assert refused(tmp_path, "not a model folder")


def test_pickled_weights_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refused(folder, r"pickled weights only \(pytorch_model.bin\)")


def test_quantized_weights_name_the_way_out(tmp_path):
    (tmp_path / "model.Q4_1.gguf").touch()
    assert refused(tmp_path, r"quantized weights \(model.Q4_1.gguf\).*python -m tasks.models.gguf .*model.Q4_1.gguf OUT")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert refused(folder, "no .*safetensors weights")


def test_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"not tensors at all")
    assert refused(folder, "model")


def test_broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "llama",')
    assert refused(folder, "config")


def test_weights_that_do_not_fill_the_model(folder):
    """A layer that is in the config and not in the file must not be trained from random numbers."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    assert refused(folder, "missing|not in")


def test_remote_code_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "made_up", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    assert refused(folder, "model")
    assert not (folder / "ran").exists()


def test_a_hub_name_needs_a_revision():
    assert refused("some-owner/some-model", "revision")


def test_a_hub_name_while_offline():
    """tests/conftest.py sets HF_HUB_OFFLINE."""
    assert refused("some-owner/some-model", "offline|cache", revision="0" * 40)
