"""The sampler: token for token what `model.generate` and a slow twin write, with honest log-probabilities and entropies."""

import copy

import pytest
import torch
from scipy.stats import chisquare
from transformers import TopKLogitsWarper, TopPLogitsWarper

from tasks.models.batch import collate
from tasks.models.generate import greedy, sample, stop_ids, truncated
from tasks.rl.logprobs import completion_logprobs
from tests.reference.sampling import sample_one

PROMPTS = [[1, 60, 61, 62, 63, 64, 65], [1, 70], [1, 80, 81, 82], [1, 90, 91, 92, 93]]
ENDING_EARLY = [[1, 60 + number] for number in range(40)]


def draw(model, tokenizer, prompts, seed=0, **options):
    options = {"max_new_tokens": 12, "temperature": 1.0, "generator": torch.Generator().manual_seed(seed)} | options
    return sample(model, tokenizer, prompts, **options)


@pytest.fixture(scope="module")
def talkative(model, tokenizer):
    """The same model with 30 more stop ids: completions end after one token, after some, or not at all."""
    model = copy.deepcopy(model)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(40, 70)]
    return model


def test_greedy_equals_generate_token_for_token(model, tokenizer):
    batch = collate(PROMPTS, [[2]] * 4, tokenizer.pad_token_id, "cpu")
    expected = model.generate(batch.prompt_ids, attention_mask=batch.prompt_mask, do_sample=False, max_new_tokens=12)
    ours = sample(model, tokenizer, PROMPTS, max_new_tokens=12, temperature=0.0)
    time = ours.completion_ids.shape[1]
    assert torch.equal(ours.completion_ids, expected[:, batch.prompt_ids.shape[1] :][:, :time])


def test_greedy_equals_the_slow_twin_for_prompts_of_any_length_and_number(talkative, tokenizer):
    stops = set(stop_ids(talkative, tokenizer))
    expected = [sample_one(talkative, prompt, stops, 12, 0.0, []) for prompt in ENDING_EARLY + PROMPTS]
    assert greedy(talkative, tokenizer, ENDING_EARLY + PROMPTS, 12) == expected
    assert len({len(completion) for completion in expected}) > 1


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_equal_the_slow_twin_on_the_same_random_numbers(talkative, tokenizer, temperature):
    stops = set(stop_ids(talkative, tokenizer))
    prompts = ENDING_EARLY[:20] + PROMPTS
    rollout = draw(talkative, tokenizer, prompts, seed=3, temperature=temperature)
    uniform = torch.rand(len(prompts), 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64).tolist()
    expected = [
        sample_one(talkative, prompt, stops, 12, temperature, numbers) for prompt, numbers in zip(prompts, uniform, strict=True)
    ]
    assert rollout.completions() == expected


def test_the_batch_is_laid_out_as_it_says(talkative, tokenizer):
    """A completion ends with its stop token or after max_new_tokens; what follows is padding with zeros."""
    stops = stop_ids(talkative, tokenizer)
    rollout = draw(talkative, tokenizer, ENDING_EARLY + PROMPTS)
    assert rollout.completion_ids.shape == rollout.completion_mask.shape == rollout.logprobs.shape == rollout.entropy.shape
    for row, completion in enumerate(rollout.completions()):
        assert not set(completion[:-1]) & set(stops)
        assert bool(rollout.finished[row]) == (completion[-1] in stops)
        assert rollout.finished[row] or len(completion) == 12
        after = slice(len(completion), None)
        assert rollout.completion_ids[row, after].eq(tokenizer.pad_token_id).all()
        assert rollout.logprobs[row, after].eq(0).all()
        assert rollout.entropy[row, after].eq(0).all()
    assert 0 < rollout.finished.sum() < len(rollout)


def test_a_group_repeats_its_prompt_and_its_rows_differ(model, tokenizer):
    rollout = draw(model, tokenizer, PROMPTS, group_size=3)
    alone = collate([prompt for prompt in PROMPTS for _ in range(3)], rollout.completions(), tokenizer.pad_token_id, "cpu")
    assert torch.equal(rollout.prompt_ids, alone.prompt_ids)
    assert torch.equal(rollout.prompt_mask, alone.prompt_mask)
    assert torch.equal(rollout.completion_ids, alone.completion_ids)
    assert all(len({tuple(row) for row in rollout.completions()[i : i + 3]}) == 3 for i in range(0, 12, 3))


def test_a_group_is_what_the_repeated_prompts_would_be(model, tokenizer):
    repeated = [prompt for prompt in PROMPTS for _ in range(3)]
    assert draw(model, tokenizer, PROMPTS, group_size=3).completions() == draw(model, tokenizer, repeated).completions()


def test_a_row_does_not_depend_on_its_neighbours(talkative, tokenizer):
    """Neither on their prompts (and so its own padding), nor on when they stop."""
    first = draw(talkative, tokenizer, [PROMPTS[1], PROMPTS[0], PROMPTS[2], PROMPTS[3]])
    second = draw(talkative, tokenizer, [PROMPTS[1], [1, 99], [1, 98], [1, 97]])
    assert first.completions()[0] == second.completions()[0]
    torch.testing.assert_close(first.logprobs[0, :1], second.logprobs[0, :1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_training_will_compute(talkative, tokenizer, temperature):
    rollout = draw(talkative, tokenizer, PROMPTS, group_size=4, temperature=temperature)
    with torch.no_grad():
        again = completion_logprobs(talkative, rollout, temperature)
    torch.testing.assert_close(rollout.logprobs, again * rollout.completion_mask, atol=1e-4, rtol=0)


def test_entropy_is_that_of_the_sampled_distribution(talkative, tokenizer):
    rollout = draw(talkative, tokenizer, PROMPTS, group_size=4, temperature=0.7)
    with torch.no_grad():
        outputs = talkative(
            input_ids=rollout.input_ids, attention_mask=rollout.attention_mask, position_ids=rollout.position_ids
        )
    time = rollout.completion_ids.shape[1]
    distribution = torch.distributions.Categorical(logits=outputs.logits[:, -time - 1 : -1] / 0.7)
    torch.testing.assert_close(rollout.entropy, distribution.entropy() * rollout.completion_mask, atol=1e-4, rtol=0)


def exact(logits, top_k, top_p):
    """The distribution token by token: the likeliest first, until there are top_k of them or they hold top_p of that."""
    probs = logits.double().softmax(-1).tolist()
    ranked = sorted(range(len(probs)), key=lambda token: -probs[token])[:top_k]
    within = sum(probs[token] for token in ranked)
    kept, held = [], 0.0
    for token in ranked:
        if held < (top_p or 1.0) * within:
            kept.append(token)
            held += probs[token]
    return torch.tensor([prob / held if token in kept else 0.0 for token, prob in enumerate(probs)], dtype=torch.float64)


CUTS = [(None, None), (5, None), (None, 0.6), (20, 0.7)]


@pytest.mark.parametrize(("top_k", "top_p"), CUTS)
def test_frequencies_are_the_probabilities(model, tokenizer, top_k, top_p):
    """χ² of 4,000 first tokens against the model's own distribution; rare tokens together. Fixed seed: p is a fact."""
    rows, temperature = 4000, 0.5
    rollout = draw(
        model, tokenizer, [PROMPTS[0]], seed=1, max_new_tokens=1, temperature=temperature, group_size=rows,
        top_k=top_k, top_p=top_p,
    )  # fmt: skip
    with torch.no_grad():
        probs = exact(model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1] / temperature, top_k, top_p)
    token = rollout.completion_ids[:, 0]
    torch.testing.assert_close(rollout.logprobs[:, 0].double(), probs[token].log(), atol=1e-4, rtol=0)
    entropy = torch.distributions.Categorical(probs=probs).entropy().float()
    torch.testing.assert_close(rollout.entropy[:, 0], entropy.expand(rows), atol=1e-4, rtol=0)
    counts = torch.bincount(rollout.completion_ids[:, 0], minlength=len(probs)).double()
    common = probs * rows >= 5
    observed = [*counts[common].tolist(), counts[~common].sum().item()]
    expected = [*(probs[common] * rows).tolist(), probs[~common].sum().item() * rows]
    assert counts[probs == 0].sum() == 0
    assert common.sum() >= 4
    present = slice(None) if expected[-1] > 0 else slice(-1)
    assert chisquare(observed[present], expected[present]).pvalue > 0.01


@pytest.mark.parametrize("top_k", [None, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_cuts_equal_those_of_transformers(top_k, top_p):
    """Same order: the likeliest top_k first, then the nucleus of what is left."""
    logits = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * 2
    expected = logits if top_k is None else TopKLogitsWarper(top_k)(None, logits)
    expected = expected if top_p is None else TopPLogitsWarper(top_p)(None, expected)
    assert torch.equal(truncated(logits, top_k, top_p), expected)
    assert torch.isfinite(expected).any(-1).all()


def test_a_cut_to_one_token_is_greedy(model, tokenizer):
    best = sample(model, tokenizer, PROMPTS, max_new_tokens=12, temperature=0.0).completions()
    for cut in ({"top_k": 1}, {"top_p": 1e-6}):
        rollout = draw(model, tokenizer, PROMPTS, **cut)
        assert rollout.completions() == best
        assert rollout.logprobs.eq(0).all()
        assert rollout.entropy.eq(0).all()


def test_no_cut_changes_nothing(model, tokenizer):
    plain, wide = draw(model, tokenizer, PROMPTS), draw(model, tokenizer, PROMPTS, top_k=100_000, top_p=1.0)
    assert torch.equal(plain.completion_ids, wide.completion_ids)
    assert torch.equal(plain.logprobs, wide.logprobs)


@pytest.mark.parametrize(("cut", "says"), [
    ({"top_k": 0}, "top_k"), ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p"), ({"top_p": -0.5}, "top_p"),
])  # fmt: skip
def test_cuts_that_make_no_sense(model, tokenizer, cut, says):
    with pytest.raises(ValueError, match=says):
        draw(model, tokenizer, PROMPTS, **cut)


@pytest.mark.parametrize("max_new_tokens", [1, 5])
def test_max_new_tokens(model, tokenizer, max_new_tokens):
    rollout = draw(model, tokenizer, PROMPTS, max_new_tokens=max_new_tokens)
    assert rollout.completion_ids.shape[1] <= max_new_tokens
    assert rollout.lengths.max() <= max_new_tokens


def test_the_same_seed_gives_the_same_bits(model, tokenizer):
    first, second = draw(model, tokenizer, PROMPTS, seed=7), draw(model, tokenizer, PROMPTS, seed=7)
    assert torch.equal(first.completion_ids, second.completion_ids)
    assert torch.equal(first.logprobs, second.logprobs)
    assert draw(model, tokenizer, PROMPTS, seed=8).completions() != first.completions()


def test_every_stop_id_of_the_model_and_the_tokenizer_counts(talkative, tokenizer):
    assert stop_ids(talkative, tokenizer) == sorted({tokenizer.eos_token_id, *range(40, 70)})
    ending = {row[-1] for row in draw(talkative, tokenizer, ENDING_EARLY, group_size=4).completions()}
    assert len(ending - {tokenizer.eos_token_id}) > 2


def test_a_rollout_can_be_trained_on(model, tokenizer):
    """Its tensors come from inference mode, which autograd refuses to save unless they were copied."""
    rollout = draw(model, tokenizer, PROMPTS).select(torch.arange(4))
    loss = ((completion_logprobs(model, rollout) - rollout.logprobs) * rollout.completion_mask).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.zero_grad()
