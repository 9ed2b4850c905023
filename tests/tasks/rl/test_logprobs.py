"""Log-probabilities of completions in a padded batch equal those of each sequence alone under the full log-softmax."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tasks.models.batch import collate
from tasks.rl.logprobs import completion_entropy, completion_logprobs, completion_logprobs_and_hidden, token_entropy
from tests.reference import rl as slow

PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12, 13]]
COMPLETIONS = [[14, 2], [15, 16, 17, 18, 2], [19]]


def models():
    torch.manual_seed(0)
    shape = {"vocab_size": 24, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1}
    llama = LlamaConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, initializer_range=0.5, **shape
    )
    gpt2 = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=16, initializer_range=0.5, **shape)
    return [LlamaForCausalLM(llama).eval(), GPT2LMHeadModel(gpt2).eval()]


@pytest.mark.parametrize("model", models(), ids=["llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_padding_changes_nothing(model, temperature):
    fast = completion_logprobs(model, collate(PROMPTS, COMPLETIONS, 0, "cpu"), temperature)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        expected = slow.completion_logprobs_of_one(model, prompt, completion, temperature)
        torch.testing.assert_close(fast[row, : len(completion)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", models(), ids=["llama", "gpt2"])
def test_hidden_states_are_those_that_predict_the_tokens(model):
    """The output layer applied to them gives the same log-probabilities back."""
    batch = collate(PROMPTS, COMPLETIONS, 0, "cpu")
    logprobs, hidden = completion_logprobs_and_hidden(model, batch)
    again = torch.log_softmax(model.get_output_embeddings()(hidden), dim=-1)
    again = again.gather(-1, batch.completion_ids[..., None])[..., 0]
    torch.testing.assert_close(logprobs, again, atol=1e-5, rtol=0)
    torch.testing.assert_close(logprobs, completion_logprobs(model, batch), atol=1e-6, rtol=0)


def test_every_parameter_is_reached_by_the_gradient():
    model = models()[0]
    batch = collate(PROMPTS, COMPLETIONS, 0, "cpu")
    (completion_logprobs(model, batch) * batch.completion_mask).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("model", models(), ids=["llama", "gpt2"])
def test_entropy_is_that_of_the_whole_distribution_however_it_is_computed(model):
    """For each completion alone, from the logits of one token after the other; and the same with few logits at once."""
    batch = collate(PROMPTS, COMPLETIONS, 0, "cpu")
    _, hidden = completion_logprobs_and_hidden(model, batch, 0.7)
    fast = completion_entropy(model, hidden, 0.7)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / 0.7
        expected = torch.distributions.Categorical(logits=logits).entropy()
        torch.testing.assert_close(fast[row, : len(completion)], expected, atol=1e-5, rtol=0)
    model.logits_at_once = 4
    torch.testing.assert_close(completion_entropy(model, hidden, 0.7), fast)


def test_entropy_by_hand():
    """ln 4 of four equal choices, 0 of a sure one; of ¼ and ¾ the textbook's number, whose gradient is −π_i (log π_i + H)."""
    logits = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [99.0, -99.0, -99.0, -99.0]]])
    assert token_entropy(logits)[0].tolist() == pytest.approx([math.log(4), 0.0], abs=1e-6)
    uneven = torch.tensor([[[0.0, math.log(3)]]], requires_grad=True)
    entropy = token_entropy(uneven)
    entropy.sum().backward()
    assert entropy.item() == pytest.approx(0.5623351, abs=1e-6)
    expected = [-p * (math.log(p) + 0.5623351) for p in (0.25, 0.75)]
    assert uneven.grad[0, 0].tolist() == pytest.approx(expected, abs=1e-6)
