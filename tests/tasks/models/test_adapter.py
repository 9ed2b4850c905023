"""An adapter that is new changes nothing; one that has learned is saved as part of the weights."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from tasks.core.errors import InputError
from tasks.models.adapter import AdapterConfig, adapted_layers, add_adapter, merged_weights
from tasks.models.compute import ComputeConfig, apply_settings
from tasks.models.language import frozen_copy, load_model, save_model
from tasks.models.policy import open_policy
from tests.project import PARAMS

IDS = torch.arange(10)[None] + 3


class Opening:
    """What opening a model asks of a stage."""

    seed, device = 7, "cpu"

    def __init__(self, precision="float32", **adapter):
        self.changed = {"adapter": {"rank": 4, "alpha": 8.0} | adapter, "compute": {"precision": precision}}

    def params(self, config_class):
        return config_class.model_validate(PARAMS[config_class.namespace] | self.changed.get(config_class.namespace, {}))


def adapted(model, stage):
    model = apply_settings(copy.deepcopy(model), stage.params(ComputeConfig))
    add_adapter(model, stage)
    return model


def learned(model):
    """As if trained: B is no longer 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith("low_rank.up"):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def test_rank_0_leaves_the_model_as_it_is(model):
    plain = adapted(model, Opening(rank=0))
    assert type(plain) is type(model)
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_a_new_adapter_changes_no_bit(model):
    assert torch.equal(logits(adapted(model, Opening())), logits(model))


def test_only_the_adapter_has_a_gradient(model):
    policy = learned(adapted(model, Opening()))
    policy(input_ids=IDS).logits.square().sum().backward()
    with_gradient = {name for name, parameter in policy.named_parameters() if parameter.grad is not None}
    assert with_gradient == policy.trained == policy.state_dict().keys()
    assert all(".low_rank." in name for name in with_gradient)


def test_the_reference_is_the_source_and_shares_its_weights(model, tokenizer, tmp_path):
    save_model(model, tokenizer, tmp_path)
    policy, reference, _, _ = open_policy(Opening(), tmp_path)
    learned(policy)
    assert torch.equal(logits(reference), logits(model))
    assert not torch.allclose(logits(policy), logits(model), atol=1e-2)
    frozen = {parameter.data_ptr() for parameter in policy.parameters() if not parameter.requires_grad}
    assert {parameter.data_ptr() for parameter in reference.parameters()} == frozen


def test_a_copy_has_an_adapter_of_its_own(model):
    """As DNO keeps its best policy."""
    policy = learned(adapted(model, Opening()))
    kept, before = frozen_copy(policy), logits(policy)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    assert torch.equal(logits(kept), before)
    kept.load_state_dict(policy.state_dict())
    assert torch.equal(logits(kept), logits(policy))


def test_saved_it_is_a_plain_folder_that_computes_the_same(model, tokenizer, tmp_path):
    """Within 1e-4, of logits of some units: the sums are rounded in another order."""
    policy = learned(adapted(model, Opening()))
    save_model(policy, tokenizer, tmp_path)
    loaded = load_model(tmp_path).eval()
    assert type(loaded) is type(model)
    torch.testing.assert_close(logits(loaded), logits(policy), atol=1e-4, rtol=1e-4)
    assert load_file(tmp_path / "model.safetensors").keys() == expected_names(model, tokenizer, tmp_path / "plain")


def test_a_bfloat16_source_is_saved_so_and_its_adapter_whole(model, tokenizer, tmp_path):
    policy = learned(adapted(model, Opening()))
    policy.saved_dtype = torch.bfloat16
    save_model(policy, tokenizer, tmp_path)
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert {value.dtype for value in load_file(tmp_path / "adapter/adapter_model.safetensors").values()} == {torch.float32}


def test_what_a_small_adapter_adds_is_not_lost_in_bfloat16(model):
    policy = learned(adapted(model, Opening("bfloat16")))
    layers = adapted_layers(policy)
    with torch.no_grad():
        for layer in layers.values():
            layer.low_rank.up *= 1e-3 * layer.weight.float().std() / layer.low_rank.product().std()
    wanted, kept = 0.0, 0.0
    for path, weight in ((path, merged_weights(policy)[f"{path}.weight"]) for path in layers):
        product = layers[path].low_rank.product()
        product = product if product.shape == weight.shape else product.T
        wanted += float(product.square().sum())
        kept += float(((weight.float() - layers[path].weight.float()) * product).sum())
    assert kept / wanted == pytest.approx(1, abs=0.25)


def expected_names(model, tokenizer, folder):
    save_model(model, tokenizer, folder)
    return load_file(folder / "model.safetensors").keys()


def test_the_adapter_lies_beside_it_as_peft_writes_one(model, tokenizer, tmp_path):
    policy = learned(adapted(model, Opening()))
    save_model(policy, tokenizer, tmp_path)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
    assert config["fan_in_fan_out"] == (model.config.model_type == "gpt2")
    kept = load_file(tmp_path / "adapter/adapter_model.safetensors")
    path = "model.layers.0.self_attn.q_proj" if model.config.model_type == "llama" else "transformer.h.0.attn.c_attn"
    low_rank = policy.get_submodule(path).low_rank
    assert torch.equal(kept[f"base_model.model.{path}.lora_A.weight"], low_rank.down)
    assert torch.equal(kept[f"base_model.model.{path}.lora_B.weight"], low_rank.up)
    assert len(kept) == len(policy.trained)


def test_a_bfloat16_backbone_under_a_float32_adapter(model):
    """The sampler and the trainer call the same model, so it is enough that it computes, and near float32."""
    policy = learned(adapted(model, Opening("bfloat16")))
    dtypes = {(parameter.requires_grad, parameter.dtype) for parameter in policy.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    policy(input_ids=IDS).logits.float().square().sum().backward()
    assert {p.grad.dtype for p in policy.parameters() if p.grad is not None} == {torch.float32}
    assert {value.dtype for value in merged_weights(policy).values()} == {torch.bfloat16}
    exact = logits(learned(adapted(model, Opening())))
    assert (logits(policy) - exact).abs().max() < 0.05 * exact.abs().max()


def test_targets_are_named_layers(model):
    name = "q_proj" if model.config.model_type == "llama" else "c_attn"
    policy = adapted(model, Opening(targets=[name]))
    assert {path.split(".low_rank")[0].rpartition(".")[2] for path in policy.trained} == {name}
    with pytest.raises(InputError, match=rf"no linear layer called q_porj; there are .*{name}"):
        adapted(model, Opening(targets=[name, "q_porj"]))


@pytest.mark.parametrize("values", [{"rank": 0, "targets": ["q_proj"]}, {"rank": 4, "targets": []}], ids=str)
def test_targets_that_adapt_nothing_are_refused(values):
    with pytest.raises(ValueError, match="adapts nothing"):
        AdapterConfig.model_validate(PARAMS["adapter"] | values)


def test_an_adapters_folder_is_no_model(model, tokenizer, tmp_path):
    save_model(adapted(model, Opening()), tokenizer, tmp_path)
    with pytest.raises(InputError, match="is an adapter, not a model; merge it"):
        load_model(tmp_path / "adapter")
