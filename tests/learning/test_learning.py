"""Every algorithm learns: on held-out prompts the trained model beats the one it started from, permutation test, p < .01.

The models are those of tests/project.py, trained by the real stages at fixed seeds, so that p is a fact and not a chance.
"""

from functools import cache

import pytest
import torch

from tasks.core import seeds
from tasks.core.files import read_json, read_table
from tasks.models.batch import PairSet, collate
from tasks.models.generate import sample
from tasks.models.language import build_model, load_policy
from tasks.models.reward import load_reward_model, raw_scores
from tasks.models.text import decode, encode_completions, encode_prompts
from tasks.rewards.verifier import is_correct
from tasks.rl.logprobs import completion_logprobs
from tests.project import ALGORITHMS, PARAMS

SHAPE = {key: value for key, value in PARAMS["base_model"].items() if isinstance(value, int | float)}


def p_of_no_gain(before, after, permutations=9999):
    """One-sided paired permutation test (Fisher 1935): chance of so large a mean gain if before and after were exchangeable."""
    gains = torch.tensor(after, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
    signs = torch.randint(0, 2, (permutations, len(gains)), generator=torch.Generator().manual_seed(0)) * 2 - 1
    as_large = ((signs * gains).mean(1) >= gains.mean() - 1e-12).sum().item()
    return (as_large + 1) / (permutations + 1)


@pytest.fixture(scope="module")
def held_out(project):
    rows = read_table(project.folder / "data/prepared/prompts.parquet")
    return [row for row in rows if row["split"] == "test"]


@pytest.fixture(scope="module")
def success(project, held_out):
    """Share of right answers among 8 samples of each held-out prompt, for any model of the project."""

    @cache
    def measure(folder):
        model, tokenizer = load_policy(project.folder / folder, "cpu")
        ids = encode_prompts(tokenizer, [row["prompt"] for row in held_out])
        chance = seeds.generator(0, "learning")
        rollout = sample(model, tokenizer, ids, max_new_tokens=8, temperature=1.0, generator=chance, group_size=8)
        right = [
            is_correct(decode(tokenizer, ids), held_out[number // 8]["answer"], "number")
            for number, ids in enumerate(rollout.completions())
        ]
        return torch.tensor(right).view(-1, 8).float().mean(1).tolist()

    return measure


@torch.no_grad()
def nll(model, tokenizer, prompts, completions):
    """Of each completion, in nats per token."""
    batch = collate(
        encode_prompts(tokenizer, prompts), encode_completions(tokenizer, completions), tokenizer.pad_token_id, "cpu"
    )
    return (-(completion_logprobs(model, batch) * batch.completion_mask).sum(1) / batch.lengths).tolist()


def test_the_permutation_test_tells_a_gain_from_none():
    chance = torch.Generator().manual_seed(0)
    before = torch.randn(40, generator=chance)
    noise = torch.randn(40, generator=chance)
    assert p_of_no_gain(before.tolist(), (before + 0.8 + noise).tolist()) < 0.01
    assert p_of_no_gain(before.tolist(), (before + noise - noise.mean()).tolist()) > 0.3
    assert p_of_no_gain([0.0] * 7, [1.0] * 7) == pytest.approx(1 / 128, abs=0.003)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_policy_finds_the_answer(success, algorithm):
    before, after = success("models/sft"), success(f"models/policy/{algorithm}-0")
    assert p_of_no_gain(before, after) < 0.01
    assert sum(after) / len(after) > sum(before) / len(before) + 0.15


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_policy_still_ends_its_completions_and_stays_near(project, algorithm):
    """What was learned is the answer, not a collapse."""
    figures = read_json(project.folder / "reports/metrics.json")["policy"][algorithm]["0"]
    assert figures["eos_rate"] > 0.5
    assert figures["kl"] < 10


def test_sft_imitates(project, held_out):
    """The demonstrations of held-out queries become likelier than they were under the base model."""
    prompts, completions = [row["prompt"] for row in held_out], [row["solution"] for row in held_out]
    before = nll(*load_policy(project.folder / "models/base", "cpu"), prompts, completions)
    after = nll(*load_policy(project.folder / "models/sft", "cpu"), prompts, completions)
    assert p_of_no_gain(after, before) < 0.01


def test_the_base_model_learns_its_corpus(project, held_out):
    trained, tokenizer = load_policy(project.folder / "models/base", "cpu")
    untrained = build_model(tokenizer, 0, **{key: value for key, value in SHAPE.items() if hasattr(trained.config, key)})
    texts = [row["prompt"] + row["solution"] for row in held_out]
    assert p_of_no_gain(nll(trained, tokenizer, [""] * 60, texts), nll(untrained, tokenizer, [""] * 60, texts)) < 0.01


def test_the_reward_model_ranks_held_out_answers(project, held_out):
    model = load_reward_model(project.folder / "models/reward_model", "cpu")
    _, tokenizer = load_policy(project.folder / "models/sft", "cpu")
    rows = [{"prompt": row["prompt"], "chosen": row["solution"], "rejected": row["mistake"]} for row in held_out]
    chosen, rejected = raw_scores(model, PairSet(rows, tokenizer, "cpu").batch(range(len(rows)))).chunk(2)
    assert p_of_no_gain(rejected.tolist(), chosen.tolist()) < 0.01
    assert (chosen > rejected).float().mean() > 0.9


def test_prompt_oirl_beats_the_best_single_prompt(project):
    """Go for left, Stop for right: half is the most one prompt can do."""
    choices = read_table(project.folder / "reports/prompt_oirl/choices.parquet")
    log = read_table(project.folder / "data/prompt_log.parquet")
    training = [row for row in log if row["split"] == "train"]
    best = max(
        {row["prompt_id"] for row in log}, key=lambda id: sum(row["correct"] for row in training if row["prompt_id"] == id)
    )
    single = {row["query_id"]: row["correct"] for row in log if row["prompt_id"] == best}
    before, after = [float(single[row["query_id"]]) for row in choices], [float(row["correct"]) for row in choices]
    assert p_of_no_gain(before, after) < 0.01
    assert len({row["prompt_id"] for row in choices}) > 1
