"""`compute` changes how a model computes and not what: chunked logits, checkpointing, fewer rows at once; bfloat16 nearly."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from tasks.core.errors import InputError
from tasks.models.batch import collate
from tasks.models.compute import ComputeConfig, apply_settings, at_once
from tasks.models.generate import block_sums, sample
from tasks.rl.logprobs import completion_logprobs, completion_logprobs_and_hidden, label_logprobs, likeliest_tokens
from tests.project import PARAMS

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
COMPLETIONS = [[14, 2], [15, 16, 17, 18, 2], [19]]


def settled(model, **changed):
    return apply_settings(copy.deepcopy(model), ComputeConfig.model_validate(PARAMS["compute"] | changed))


def logprobs_and_gradients(model):
    batch = collate(PROMPTS, COMPLETIONS, 0, "cpu")
    logprobs = completion_logprobs(model, batch, 0.7)
    (logprobs * batch.completion_mask).sum().backward()
    return logprobs.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("changed", [{"logits_at_once": 4}, {"logits_at_once": 1000}, {"checkpointing": True}], ids=str)
def test_what_is_held_at_once_changes_neither_value_nor_gradient(model, changed):
    """Values to the last bits, gradients to 1e-5: additions may come in another order."""
    plain, gradients = logprobs_and_gradients(settled(model))
    other, others = logprobs_and_gradients(settled(model, **changed))
    torch.testing.assert_close(other, plain, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(others, gradients, atol=1e-5, rtol=1e-5)


def test_chunks_serve_labels_argmax_and_hidden_states(model):
    batch, chunked = collate(PROMPTS, COMPLETIONS, 0, "cpu"), settled(model, logits_at_once=3)
    labels = batch.completion_ids.roll(1, 0)
    torch.testing.assert_close(label_logprobs(chunked, batch, labels), label_logprobs(model, batch, labels))
    assert torch.equal(likeliest_tokens(chunked, batch), likeliest_tokens(model, batch))
    torch.testing.assert_close(
        completion_logprobs_and_hidden(chunked, batch), completion_logprobs_and_hidden(model, batch), atol=1e-5, rtol=1e-5
    )


def test_a_chunk_is_all_of_the_logits_that_are_held(model):
    chunked, seen = settled(model, logits_at_once=4), []
    chunked.get_output_embeddings().register_forward_hook(lambda layer, args, output: seen.append(output.shape))
    logprobs_and_gradients(chunked)
    positions = len(PROMPTS) * max(map(len, COMPLETIONS))
    assert {shape[:-1].numel() for shape in seen} == {4, positions % 4}
    assert len(seen) == 2 * -(-positions // 4)  # once forward, once in the backward pass


def test_checkpointing_computes_each_layer_again(model):
    kept, again = [], []
    for counts, checkpointing in ((kept, False), (again, True)):
        counted = settled(model, checkpointing=checkpointing)
        norm = next(module for name, module in counted.named_modules() if name.endswith(("input_layernorm", "ln_1")))
        norm.register_forward_hook(lambda layer, args, output, counts=counts: counts.append(1))
        logprobs_and_gradients(counted)
    assert (len(kept), len(again)) == (1, 2)


def test_bfloat16_is_near_float32_and_keeps_float32_weights(model):
    """Initial weights ten times as large as usual: a bound on real models is tighter."""
    plain, _ = logprobs_and_gradients(settled(model))
    rounded, gradients = logprobs_and_gradients(settled(model, precision="bfloat16"))
    assert 0 < (rounded - plain).abs().max() < 0.1
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}


def test_sampler_and_trainer_agree_in_bfloat16(model, tokenizer):
    policy = settled(model, precision="bfloat16")
    generator = torch.Generator().manual_seed(0)
    rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=8, temperature=1.0, generator=generator, group_size=4)
    with torch.no_grad():
        recomputed = completion_logprobs(policy, rollout)
    assert ((recomputed - rollout.logprobs) * rollout.completion_mask).abs().max() < 0.1


def test_rows_at_once_is_a_bound(model):
    assert at_once(model, 64) == 64
    assert at_once(settled(model, rows_at_once=8), 64) == 8
    assert at_once(settled(model, rows_at_once=128), 64) == 64


def test_a_model_that_caps_its_logits_is_refused():
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    config = Gemma2Config(vocab_size=32, intermediate_size=32, final_logit_softcapping=0.5, initializer_range=0.5, **shape)
    with pytest.raises(InputError, match="logits straight from its output layer; write null"):
        settled(Gemma2ForCausalLM(config).eval(), logits_at_once=4)


def test_a_device_without_bfloat16_is_refused(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    with pytest.raises(InputError, match="this GPU has no bfloat16; write float32"):
        apply_settings(model, ComputeConfig.model_validate(PARAMS["compute"] | {"precision": "bfloat16"}))


def test_the_running_sum_for_a_gpu_is_the_running_sum():
    values = torch.rand(3, 1300, dtype=torch.float64)
    torch.testing.assert_close(block_sums(values), values.cumsum(-1), atol=1e-12, rtol=1e-12)


SHARED = [[5, 6, 7, 8, 9, 10, 11, 12], [10, 11], [5, 6, 7, 8, 9, 10, 11, 12], [10, 11], [10, 11], [13, 14, 15]]
OF_SHARED = [[14, 2], [15, 16, 17, 18, 2], [19, 20, 21], [2], [22, 23, 24], [25, 26]]
SMALL = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.3,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL), "qwen3": Qwen3Config(**SMALL), "mistral": MistralConfig(sliding_window=4, **SMALL),
    "gemma2": Gemma2Config(sliding_window=4, attn_implementation="eager", **SMALL),
    "gpt2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=48, initializer_range=0.3),
    "neox": GPTNeoXConfig(**SMALL),
}  # fmt: skip


def read(model, calls, **changed):
    """What a pass gives, its gradients, and how many tokens the model read."""
    model = settled(model, **changed)
    model.get_input_embeddings().register_forward_hook(lambda layer, args, output: calls.append(args[0].numel()))
    batch = collate(SHARED, OF_SHARED, 0, "cpu")
    mask = batch.completion_mask
    logprobs, hidden = completion_logprobs_and_hidden(model, batch, 0.7)
    hidden = hidden * mask[..., None]
    ((logprobs * mask * torch.tensor([1.0, -2.0, 3.0, 1.0, 2.0, -1.0])[:, None]).sum() + hidden.square().sum()).div(
        10
    ).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return (logprobs.detach() * mask, hidden.detach(), likeliest_tokens(model, batch) * mask), gradients


@pytest.mark.parametrize("changed", [{}, {"logits_at_once": 4}], ids=str)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_prompt_of_several_rows_is_read_once_with_the_same_values_and_gradients(config, changed, monkeypatch):
    torch.manual_seed(0)
    if config.model_type == "gemma2" and changed:
        config.final_logit_softcapping = None
    model, once, each = AutoModelForCausalLM.from_config(config).eval(), [], []
    values, gradients = read(model, once, **changed)
    monkeypatch.setattr("tasks.models.compute.has_plain_cache", lambda model: False)
    expected, expected_gradients = read(model, each, **changed)
    torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-5, rtol=1e-5)
    assert once[:2] == [3 * 8, 6 * 4]
    assert each[:1] == [6 * (8 + 5)]


def test_prompts_are_read_in_each_row_where_that_costs_little_or_layers_are_computed_again(model):
    for changed, prompts in (({}, PROMPTS), ({}, [[5]] * 3), ({"checkpointing": True}, [[5, 6, 7, 8, 9, 10, 11, 12]] * 3)):
        policy, read = settled(model, **changed), []
        policy.get_input_embeddings().register_forward_hook(lambda layer, args, output, read=read: read.append(args[0].shape))
        batch = collate(prompts, COMPLETIONS, 0, "cpu")
        completion_logprobs(policy, batch)
        assert read == [batch.input_ids.shape]
