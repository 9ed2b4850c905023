"""What is said of a reward model on held-out pairs, by hand; and the word baseline on pairs that words decide, and cannot."""

import math

import numpy as np
import pytest
import torch

from tasks.core.statistics import ece
from tasks.feedback.agreement import (
    agreement_by_group,
    agreement_figures,
    calibration,
    ensemble_figures,
    kinds_of,
    thirds,
)
from tasks.feedback.baseline import baseline_accuracy

LOGIT_80 = math.log(4)  # σ = 0.8


def test_calibration_by_hand():
    """Five pairs announced at .8, of which four came, and two without any preference."""
    margins = np.array([LOGIT_80] * 4 + [-LOGIT_80] + [0.0, 0.0])
    rows = calibration(margins)
    assert [(row["predicted"], row["right"], row["calls"]) for row in rows] == [(0.5, 0.5, 2), (pytest.approx(0.8), 0.8, 5)]
    assert ece(rows) == pytest.approx(0.0)
    sure = calibration(np.array([50.0, -50.0]))
    assert (sure[0]["predicted"], sure[0]["right"]) == (pytest.approx(1.0), 0.5)
    assert ece(sure + rows) == pytest.approx(0.5 * 2 / 9)


def test_a_model_that_samples_its_own_preferences_is_calibrated():
    chance = np.random.default_rng(0)
    margins = chance.normal(0, 2, 20000)
    observed = np.where(chance.random(20000) < 1 / (1 + np.exp(-margins)), margins, -margins)
    assert ece(calibration(observed)) < 0.015
    assert ece(calibration(3 * observed)) > 0.05


def test_figures_by_hand():
    scores, lengths = np.array([[1.0, 0.0], [2.0, 3.0], [0.5, 0.5], [4.0, 1.0]]), np.array([[5, 2], [2, 9], [4, 4], [3, 6]])
    figures = agreement_figures(scores, lengths)
    assert figures["accuracy"] == 0.5
    assert figures["longer_wins"] == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert figures["length_correlation"] == pytest.approx(np.corrcoef(scores.ravel(), lengths.ravel())[0, 1])
    assert "length_correlation" not in agreement_figures(np.zeros((2, 2)), lengths[:2])


PAIRS = [
    {"prompt": "p", "chosen": "#### 3", "rejected": "#### 4", "gap": 1.0},
    {"prompt": "p", "chosen": "#### 4", "rejected": "#### 3", "gap": -0.4},
    {"prompt": "p", "chosen": "#### 3", "rejected": "so #### 3", "gap": 0.1},
    {"prompt": "p", "chosen": "#### 5", "rejected": "none", "gap": 0.1},
]


def test_kinds_of_pairs():
    kinds = ["right against wrong", "right against wrong", "both right", "both wrong"]
    assert kinds_of(PAIRS, {"p": "3"}, "number") == kinds
    assert kinds_of([row | {"kind": "correction"} for row in PAIRS], {}, "number") == ["correction"] * 4
    assert kinds_of(PAIRS, {"p": None}, "number") == ["pair"] * 4


def test_agreement_by_group_by_hand():
    margins = np.array([2.0, -1.0, 0.5, -0.1])
    found = {
        (row["by"], row["group"]): (row["pairs"], row["accuracy"])
        for row in agreement_by_group(PAIRS, margins, {"p": "3"}, "number")
    }
    assert {key: value for key, value in found.items() if key[0] == "kind"} == {
        ("kind", "both right"): (1, 1.0), ("kind", "both wrong"): (1, 0.0), ("kind", "right against wrong"): (2, 0.5),
    }  # fmt: skip
    assert sum(pairs for (by, _), (pairs, _) in found.items() if by == "gap") == 4
    without = agreement_by_group([row | {"gap": None} for row in PAIRS], margins, {}, "number")
    assert {row["by"] for row in without} == {"kind", "margin"}


def test_thirds():
    assert thirds(np.arange(6.0)) == ["0.00 to 1.67"] * 2 + ["1.67 to 3.33"] * 2 + ["3.33 to 5.00"] * 2
    assert thirds(np.array([2.0, 2.0])) == ["2.00"] * 2


def test_an_ensemble_by_hand():
    """Members agree on the first two pairs and not on the last, where their mean is wrong."""
    pairs = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [2.0, 0.0], [-2.0, 1.0]]])
    figures = ensemble_figures(torch.tensor([[0.0, 2.0], [0.0, 2.0]]), pairs, torch.tensor([1.0, 1.0]))
    assert figures["ensemble_accuracy"] == pytest.approx(2 / 3)
    assert figures["disagreement"] == 0.0
    assert figures["disagreement_auc"] == 1.0
    opposite = ensemble_figures(torch.tensor([[0.0, 2.0], [2.0, 0.0]]), pairs[:, :2], torch.tensor([1.0, 1.0]))
    assert opposite["disagreement"] == pytest.approx(1.0)
    assert "disagreement_auc" not in opposite


def test_the_word_baseline_learns_words_and_nothing_else():
    rows = [{"chosen": f"thing {i} is kind", "rejected": f"thing {i} is mean"} for i in range(40)]
    found = baseline_accuracy(rows[:20], rows[20:])
    assert found["baseline_accuracy"] == 1.0
    assert found["baseline_accuracy_low"] < 0.9
    alike = [{"chosen": "a b", "rejected": "a b"} for _ in range(10)]
    assert baseline_accuracy(rows[:20], alike)["baseline_accuracy"] == 0.5


def test_members_that_disagree_about_the_order_are_found_whatever_the_size_of_the_margin():
    """Two pairs that all see, one more strongly; two on whose order the members differ. The std alone would rank them last."""
    margins = torch.tensor([[8.0, 2.0, 0.6, 0.3], [4.0, 1.0, -0.7, 0.5], [6.0, 3.0, -0.2, -0.9]])
    pairs = torch.stack([margins, torch.zeros_like(margins)], -1)
    figures = ensemble_figures(torch.zeros(3, 5), pairs, torch.ones(3))
    assert margins.std(0)[:2].min() > margins.std(0)[2:].max()
    assert figures["ensemble_accuracy"] == 0.5
    assert figures["disagreement_auc"] == 1.0
