"""What is reported of completions, by hand; what a probe samples; rows to read."""

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tasks.models.batch import pad
from tasks.models.generate import Rollout, sample
from tasks.models.language import frozen_copy, load_policy
from tasks.models.text import TaskConfig, encode_prompts
from tasks.rewards.functions import FunctionsConfig, LengthBand, RewardConfig, Sentiment
from tasks.rewards.scorer import Scorer
from tasks.rl.logprobs import completion_logprobs
from tasks.training.monitor import PROBES, Probe, Scored, reference_logprobs, repetition, rollout_metrics, sample_rows
from tests.project import PARAMS

PROMPTS = ["left ab Ask.\n", "right ab Ask.\n"]
FUNCTIONS = FunctionsConfig(length_band=LengthBand(shortest=3, longest=3), sentiment=Sentiment(positive=[], negative=[]))


@pytest.fixture(scope="module")
def policy(project):
    return load_policy(project.folder / "models/sft", "cpu")


@pytest.fixture(scope="module")
def scored(policy):
    model, tokenizer = policy
    chance = torch.Generator().manual_seed(0)
    rollout = sample(
        model, tokenizer, encode_prompts(tokenizer, PROMPTS), max_new_tokens=8, temperature=1.0, generator=chance, group_size=6
    )
    components = {"verifier": torch.ones(12), "sentiment": torch.arange(12.0)}
    return Scored(rollout, rollout.logprobs - 0.1, torch.arange(12.0), components)


def scorer(tokenizer, **weights):
    return Scorer(RewardConfig(weights=weights, functions=FUNCTIONS), None, tokenizer, "number")


def test_rollout_metrics_by_hand(policy, scored):
    """KL of a completion is the sum of its log-ratios; entropy and perplexity are of the tokens that count."""
    rollout = scored.rollout
    metrics = rollout_metrics(scored, scorer(policy[1], verifier=1.0))
    lengths = torch.tensor([len(completion) for completion in rollout.completions()])
    rows = list(enumerate(lengths.tolist()))
    entropies = torch.cat([rollout.entropy[row, :length] for row, length in rows])
    logprobs = torch.cat([scored.ref_logprobs[row, :length] for row, length in rows])
    assert lengths.min() < lengths.max()
    assert metrics["rollout/score_mean"].item() == 5.5
    assert metrics["rollout/score_std"].item() == pytest.approx(math.sqrt(143 / 12))
    assert metrics["rollout/verifier_mean"].item() == 1.0
    assert metrics["rollout/sentiment_mean"].item() == 5.5
    assert metrics["rollout/kl_mean"].item() == pytest.approx(0.1 * lengths.float().mean().item(), rel=1e-4)
    assert metrics["rollout/ref_perplexity"].item() == pytest.approx(math.exp(-logprobs.mean().item()), rel=1e-5)
    assert metrics["rollout/entropy"].item() == pytest.approx(entropies.mean().item(), rel=1e-5)
    assert metrics["rollout/completion_length"].item() == pytest.approx(lengths.float().mean().item())
    assert metrics["rollout/tokens"].item() == lengths.sum().item()
    assert metrics["rollout/eos_rate"].item() == rollout.finished.float().mean().item()
    assert not [key for key in metrics if key.endswith("_share")]


def test_shares_are_told_where_components_compete(policy, scored):
    metrics = rollout_metrics(scored, scorer(policy[1], verifier=1.0, sentiment=1.0))
    assert metrics["rollout/verifier_share"] == 0.0  # it is 1 for every completion
    assert metrics["rollout/sentiment_share"] == 1.0


def test_only_what_is_trained_on_counts_as_spent(policy, scored):
    metrics = rollout_metrics(scored._replace(trained_on=False), scorer(policy[1], verifier=1.0))
    assert "rollout/tokens" not in metrics


def test_completions_without_a_word(policy):
    """Only end-of-text: every figure is finite."""
    tokenizer = policy[1]
    prompts, prompt_mask = pad(encode_prompts(tokenizer, PROMPTS), tokenizer.pad_token_id, left=True)
    ids = torch.full((2, 1), tokenizer.eos_token_id)
    nothing = Rollout(
        prompts, prompt_mask, ids, torch.ones_like(ids), torch.full((2, 1), -2.0), torch.zeros(2, 1), torch.ones(2).bool()
    )
    score = scorer(tokenizer, length_band=1.0)
    scores, components = score(nothing, ["1", "2"])
    scored = Scored(nothing, nothing.logprobs, scores, components)
    metrics = {key: float(value) for key, value in rollout_metrics(scored, score).items()}
    assert all(map(math.isfinite, metrics.values()))
    assert (metrics["rollout/completion_length"], metrics["rollout/tokens"], metrics["rollout/eos_rate"]) == (1, 2, 1)
    assert (metrics["rollout/repetition"], metrics["rollout/length_band_mean"], metrics["rollout/verifier_mean"]) == (0, 0, 0)
    assert metrics["rollout/ref_perplexity"] == pytest.approx(math.exp(2))
    assert [row["completion"] for row in sample_rows(0, scored, tokenizer)] == ["", ""]


def test_repetition_by_hand():
    assert repetition([[1, 2, 3, 4, 5]]) == 0.0
    assert repetition([[7] * 8]) == 1 - 1 / 5  # of 5 4-grams one is new
    assert repetition([[1, 2, 1, 2, 1, 2, 1]]) == 1 - 2 / 4
    assert repetition([[1, 2, 3], [], [7] * 8]) == pytest.approx((1 - 1 / 5) / 3)  # too short to repeat anything
    assert repetition([[7] * 8], n=1) == 1 - 1 / 8


def test_rows_to_read_show_one_completion_of_each_prompt(policy, scored):
    rows = sample_rows(7, scored, policy[1])
    shown = [(row["step"], row["prompt"], row["score"], row["sentiment"], row["verifier"]) for row in rows]
    assert shown == [(7, PROMPTS[0], 0.0, 0.0, 1.0), (7, PROMPTS[1], 6.0, 6.0, 1.0)]
    assert all("A:" in row["completion"] and "</s>" not in row["completion"] for row in rows)
    assert len(sample_rows(7, scored, policy[1], count=1)) == 1


def test_reference_logprobs_are_those_of_the_reference(policy, scored):
    with torch.no_grad():
        expected = completion_logprobs(policy[0], scored.rollout, 0.7) * scored.rollout.completion_mask
    got = reference_logprobs(policy[0], scored.rollout, 0.7)
    torch.testing.assert_close(got * scored.rollout.completion_mask, expected, atol=1e-5, rtol=0)


@pytest.fixture
def probe(project, policy, monkeypatch):
    monkeypatch.chdir(project.folder)

    def make(num_steps):
        stage = SimpleNamespace(dep=Path, seed=0)
        monitor = SimpleNamespace(stage=stage, scorer=scorer(policy[1], verifier=1.0), tokenizer=policy[1])
        return Probe(monitor, frozen_copy(policy[0]), TaskConfig(**PARAMS["task"]), num_steps)

    return make


@pytest.mark.parametrize("num_steps", [1, 5, 12, 40, 1000])
def test_probes_are_spread_from_the_first_step_to_the_last(probe, num_steps):
    steps = sorted(probe(num_steps).steps)
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    assert (steps[0], steps[-1], len(steps)) == (0, num_steps - 1, min(PROBES, num_steps))
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_probe_asks_validation_prompts_with_the_same_random_numbers(project, probe, policy):
    probe = probe(40)
    assert probe(policy[0], 1) is None
    first, again = probe(policy[0], 0), probe(policy[0], 39)
    assert torch.equal(first.rollout.completion_ids, again.rollout.completion_ids)
    assert not first.trained_on
    assert len(first.scores) == 40  # the toy project's validation prompts
    assert rollout_metrics(first, probe.scorer)["rollout/kl_mean"].item() == pytest.approx(0.0, abs=1e-4)
    assert 0.2 < first.scores.mean() < 0.8  # the SFT model is right by chance
    trained, _ = load_policy(project.folder / "models/policy/grpo-0", "cpu")
    assert probe(trained, 39).scores.mean() > first.scores.mean() + 0.15
