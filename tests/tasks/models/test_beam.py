"""Beam search against a slow twin, against all completions there are, and against the greedy one."""

import copy
import itertools

import pytest
import torch

from tasks.models.batch import collate
from tasks.models.beam import beam_search
from tasks.models.generate import greedy, stop_ids
from tasks.rl.logprobs import completion_logprobs
from tests.reference.sampling import beam_search_one

PROMPTS = [[1, 60, 61, 62, 63, 64, 65], [1, 70], [1, 80, 81, 82], [1, 61], [1, 68], [1, 72]]


@pytest.fixture(scope="module")
def decided(model, tokenizer):
    """The same model, surer of itself and with more stop ids: else the likeliest completion is always one token long."""
    model = copy.deepcopy(model)
    model.lm_head.weight = torch.nn.Parameter(4 * model.lm_head.weight.detach())
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(40, 70)]
    return model


def log_likelihood(model, tokenizer, prompts, completions):
    batch = collate(prompts, completions, tokenizer.pad_token_id, "cpu")
    return (completion_logprobs(model, batch) * batch.completion_mask).sum(1)


@pytest.mark.parametrize("num_beams", [1, 2, 5])
def test_equals_its_slow_twin(decided, tokenizer, num_beams):
    stops = set(stop_ids(decided, tokenizer))
    expected = [beam_search_one(decided, prompt, stops, 8, num_beams) for prompt in PROMPTS]
    assert beam_search(decided, tokenizer, PROMPTS, 8, num_beams) == expected
    assert len({len(completion) for completion in expected}) > 1


def test_with_as_many_beams_as_prefixes_it_finds_the_likeliest_of_all(decided, tokenizer):
    """Two tokens: every completion is one stop, or any other token and any token at all."""
    stops, prompt = stop_ids(decided, tokenizer), [1, 70]
    first = [token for token in range(len(tokenizer)) if token not in stops]
    every = [[token] for token in stops] + [list(pair) for pair in itertools.product(first, range(len(tokenizer)))]
    with torch.no_grad():
        pieces = [every[i : i + 4096] for i in range(0, len(every), 4096)]
        likelihood = torch.cat([log_likelihood(decided, tokenizer, [prompt] * len(piece), piece) for piece in pieces])
    assert beam_search(decided, tokenizer, [prompt], 2, len(first)) == [every[int(likelihood.argmax())]]


def test_what_it_finds_is_never_less_likely_than_the_greedy_completion_and_sometimes_more(decided, tokenizer):
    prompts = PROMPTS + [[1, 80 + number] for number in range(30)]
    with torch.no_grad():
        ours = log_likelihood(decided, tokenizer, prompts, beam_search(decided, tokenizer, prompts, 8, 16))
        theirs = log_likelihood(decided, tokenizer, prompts, greedy(decided, tokenizer, prompts, 8))
    assert (ours >= theirs - 1e-4).all()
    assert (ours > theirs + 1e-2).any()


def test_no_beam_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="num_beams"):
        beam_search(model, tokenizer, PROMPTS, 8, 0)
