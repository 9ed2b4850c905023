"""Scores are the named weighted sum of the components, and what cannot be a score is refused."""

import shutil

import pytest
import torch

from tasks.core.errors import InputError
from tasks.feedback.monitor import rollout_metrics, rollout_rows
from tasks.feedback.rewards import Scorer
from tasks.models.generate import sample
from tasks.models.language import load_policy
from tasks.models.reward import load_reward_model, standardised_scores
from tasks.models.text import encode_prompts

PROMPTS = ["left ab Ask.\n", "right ab Ask.\n"]
ANSWERS = ["1"] * 6 + ["2"] * 6


@pytest.fixture(scope="module")
def policy(project):
    return load_policy(project.folder / "models/sft", "cpu")


@pytest.fixture(scope="module")
def rollout(policy):
    model, tokenizer = policy
    chance = torch.Generator().manual_seed(0)
    ids = encode_prompts(tokenizer, PROMPTS)
    return sample(model, tokenizer, ids, max_new_tokens=8, temperature=1.0, generator=chance, group_size=6)


@pytest.fixture
def scorer(project, policy):
    def make(folder=None, **weights):
        return Scorer(weights, folder or project.folder / "models/reward_model", policy[1], "number", "cpu")

    return make


def test_the_score_is_the_weighted_sum(scorer, rollout):
    scores, components = scorer(verifier=0.25, reward_model=2.0)(rollout, ANSWERS)
    assert components.keys() == {"verifier", "reward_model"}
    torch.testing.assert_close(scores, 0.25 * components["verifier"] + 2.0 * components["reward_model"])
    assert 0 < components["verifier"].sum() < 12


def test_the_reward_model_counts_standardised(project, scorer, rollout):
    scores, components = scorer(reward_model=1.0)(rollout, ANSWERS)
    model = load_reward_model(project.folder / "models/reward_model", "cpu")
    torch.testing.assert_close(scores, standardised_scores(model, rollout))
    assert "verifier" in components  # watched, though it has no weight


def test_one_answer_per_completion(scorer, rollout):
    right = scorer(verifier=1.0)(rollout, ANSWERS)[0]
    swapped = scorer(verifier=1.0)(rollout, ANSWERS[::-1])[0]
    assert torch.equal(right + swapped, torch.ones(12))  # the toy model answers 1 or 2


@pytest.mark.parametrize("weights", [{"verifer": 1.0}, {"verifier": 1.0, "length": 0.1}, {}])
def test_an_unknown_or_empty_reward_is_refused(scorer, weights):
    with pytest.raises(InputError, match="name some of reward_model, verifier"):
        scorer(**weights)


def test_prompts_without_answers(scorer, rollout):
    _, components = scorer(reward_model=1.0)(rollout, [None] * 12)
    assert components.keys() == {"reward_model"}
    with pytest.raises(InputError, match="no answers to check"):
        scorer(verifier=1.0)(rollout, [None] * 12)


def test_a_score_that_is_not_a_number_is_refused(project, scorer, rollout, tmp_path):
    folder = shutil.copytree(project.folder / "models/reward_model", tmp_path / "reward_model")
    model = load_reward_model(folder, "cpu")
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(InputError, match="not a number"):
        scorer(folder, reward_model=1.0)(rollout, ANSWERS)


def test_scores_carry_no_gradient(scorer, rollout):
    assert not scorer(reward_model=1.0)(rollout, ANSWERS)[0].requires_grad


def test_rollout_metrics_by_hand(rollout):
    """KL of a completion is the sum of its log-ratios; entropy is a mean over tokens that count."""
    scores = torch.arange(12.0)
    reference = rollout.logprobs - 0.1
    metrics = rollout_metrics(rollout, reference, scores, {"verifier": torch.ones(12)})
    lengths = torch.tensor([len(completion) for completion in rollout.completions()], dtype=torch.float32)
    tokens = torch.cat([rollout.entropy[row, : int(length)] for row, length in enumerate(lengths)])
    assert metrics["rollout/score_mean"].item() == 5.5
    assert metrics["rollout/score_std"].item() == pytest.approx(scores.std().item())
    assert metrics["rollout/verifier_mean"].item() == 1.0
    assert metrics["rollout/kl_mean"].item() == pytest.approx(0.1 * lengths.mean().item(), rel=1e-4)
    assert metrics["rollout/entropy"].item() == pytest.approx(tokens.mean().item(), rel=1e-5)
    assert metrics["rollout/completion_length"].item() == lengths.mean().item()
    assert 0 <= metrics["rollout/eos_rate"].item() <= 1


def test_rows_to_read_show_one_completion_of_each_prompt(policy, rollout):
    rows = rollout_rows(7, rollout, policy[1], PROMPTS, torch.arange(12.0))
    assert [(row["step"], row["prompt"], row["score"]) for row in rows] == [(7, PROMPTS[0], 0.0), (7, PROMPTS[1], 6.0)]
    assert all("A:" in row["completion"] and "</s>" not in row["completion"] for row in rows)
