"""Win-rates and pairs by hand; what is returned is the best iteration."""

import math

import pytest
import torch

from tasks.algorithms.dno import Best, DnoConfig, large_margin_pairs, win_rates
from tasks.core.files import read_json
from tasks.training.prompts import Prompt
from tests.project import POLICIES

PROMPT = Prompt(id="q0", text="left", ids=[1, 5], answer="1")


def config(**changes):
    return DnoConfig(**POLICIES["dno"] | changes)


def test_win_rates_by_hand():
    """Scores 0, ln 3, ln 3: P(0 ≻ ln 3) = 1/4, P(ln 3 ≻ ln 3) = 1/2."""
    rates = win_rates(torch.tensor([0.0, math.log(3), math.log(3)]))
    assert rates.tolist() == pytest.approx([1 / 4, (3 / 4 + 1 / 2) / 2, (3 / 4 + 1 / 2) / 2])


def test_win_rates_of_a_group_average_one_half():
    assert win_rates(torch.randn(9, generator=torch.Generator().manual_seed(0))).mean().item() == pytest.approx(0.5)


def test_pairs_by_hand():
    """Scores 0, 1, 5: the widest margin first, and the gold answer is one candidate among others."""
    written, gold = [([7, 2], 0.0), ([8, 2], 1.0)], ([9, 2], 5.0)
    pairs = large_margin_pairs(PROMPT, written, gold, config(pairs_per_prompt=2, min_margin=0.1))
    assert [(pair.chosen, pair.rejected, pair.gold) for pair in pairs] == [([9, 2], [7, 2], True), ([9, 2], [8, 2], True)]
    rates = win_rates(torch.tensor([0.0, 1.0, 5.0])).tolist()
    assert [pair.margin for pair in pairs] == pytest.approx([rates[2] - rates[0], rates[2] - rates[1]], abs=1e-6)
    without = large_margin_pairs(PROMPT, written, None, config(pairs_per_prompt=2, min_margin=0.1))
    assert [(pair.chosen, pair.rejected, pair.gold) for pair in without] == [([8, 2], [7, 2], False)]


def test_small_margins_are_left_out():
    written = [([7, 2], 0.0), ([8, 2], 0.1)]  # win-rates .475 and .525
    assert large_margin_pairs(PROMPT, written, None, config(min_margin=0.04))
    assert not large_margin_pairs(PROMPT, written, None, config(min_margin=0.06))
    assert not large_margin_pairs(PROMPT, [([7, 2], 0.3)] * 4, None, config(min_margin=0.001))


def test_a_pair_is_taken_once():
    """Two samples of the same text make one pair, and the next widest follows."""
    written = [([7, 2], 0.0), ([7, 2], 0.0), ([8, 2], 1.0), ([9, 2], 3.0)]
    pairs = large_margin_pairs(PROMPT, written, None, config(pairs_per_prompt=3, min_margin=0.01))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [([9, 2], [7, 2]), ([9, 2], [8, 2]), ([8, 2], [7, 2])]


def test_the_best_is_kept_and_restored():
    policies = [torch.nn.Linear(1, 1) for _ in range(3)]
    best = Best(policies[0])
    for iteration, (policy, score) in enumerate(zip(policies, (0.1, 0.7, 0.3), strict=True)):
        best.offer(policy, score, iteration)
    assert (best.iteration, best.score) == (1, 0.7)
    restored = Best(policies[0])
    restored.load_state_dict(best.state_dict())
    assert (restored.iteration, restored.score) == (1, 0.7)
    assert torch.equal(restored.policy.weight, policies[1].weight)


def test_what_is_returned_is_the_best_on_validation(project):
    history = read_json(project.folder / "reports/policy/dno-0/history.json")
    scores = [row["policy/validation_score"] for row in history if "policy/validation_score" in row]
    figures = project.receipt("policy@dno-0")["metrics"]
    assert len(scores) >= 3
    assert figures["best_validation_score"] >= max(scores)
    assert figures["best_validation_score"] > scores[0] + 0.1
    if figures["best_iteration"] < len(scores):
        assert figures["best_validation_score"] == scores[int(figures["best_iteration"])]


def test_every_iteration_starts_at_its_own_reference(project):
    history = read_json(project.folder / "reports/policy/dno-0/history.json")
    firsts = [row for row in history if row["step"] % POLICIES["dno"]["steps_per_iteration"] == 0]
    assert [row["loss/dno"] for row in firsts] == pytest.approx([math.log(2)] * len(firsts), abs=1e-5)
    later = [row["loss/dno"] for row in history if row not in firsts]
    assert sum(later) / len(later) < 0.9 * math.log(2)
    assert all("rollout/tokens" in row and row["policy/pairs"] > 0 for row in firsts)


def test_prompts_without_a_gold_answer_do_without(project, tmp_path):
    from tasks.core.files import read_table, write_table

    again = project.copy(tmp_path / "project")
    path = again.folder / "data/prepared/prompts.parquet"
    write_table(path, [row | {"solution": None} for row in read_table(path)])
    again.set("policy.dno", num_iterations=2)
    assert again.run("policy@dno-0").code == 0
    history = read_json(again.folder / "reports/policy/dno-0/history.json")
    assert [row["policy/gold_chosen"] for row in history if "policy/gold_chosen" in row] == [0.0, 0.0]
    before = read_json(project.folder / "reports/policy/dno-0/history.json")
    assert before[0]["policy/gold_chosen"] > 0
