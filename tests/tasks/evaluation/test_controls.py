"""Best of n by counting, and its place on the page."""

from collections.abc import Callable
from itertools import combinations
from math import log

import numpy as np
import pytest

from tasks.evaluation.controls import best_of_rows
from tasks.report.drawing import house_style
from tasks.report.run.charts import draw
from tests.tasks.report.conftest import Run, make_run

MakeRun = Callable[..., Run]
__all__ = ["make_run"]  # the fixture


def test_best_of_n_equals_every_choice_counted():
    chance = np.random.default_rng(0)
    scores = chance.normal(size=(7, 5)).tolist()
    right = chance.integers(0, 2, size=(7, 5)).tolist()
    rows = best_of_rows(scores, right, 200, seed=0)
    for row in rows:
        best = [max(few, key=lambda i: scores[k][i]) for k in range(7) for few in combinations(range(5), row["n"])]
        each = len(best) // 7
        assert row["score"] == pytest.approx(np.mean([scores[i // each][place] for i, place in enumerate(best)]))
        assert row["sampled_accuracy"] == pytest.approx(np.mean([right[i // each][place] for i, place in enumerate(best)]))
        assert row["score_low"] <= row["score"] <= row["score_high"]
    assert [row["n"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["kl"] for row in rows[:2]] == pytest.approx([0.0, log(2) - 0.5])


def test_without_answers_there_are_scores_alone():
    (one, two) = best_of_rows([[1.0, 3.0]], [], 50, seed=0)
    assert (one["score"], two["score"]) == (2.0, 3.0)
    assert "sampled_accuracy" not in one


def test_it_is_drawn_in_the_charts_of_over_optimization(make_run: MakeRun) -> None:
    run = make_run()
    run.best_of_n = best_of_rows([[0.1, 0.5, 0.3], [0.2, 0.1, 0.6]], [[0, 1, 0], [1, 0, 1]], 50, seed=0)
    with house_style():
        charts = draw(run.write().load())
    for name, x, y in (("proxy", "kl", "score"), ("gold", "kl", "sampled_accuracy"), ("both", "score", "sampled_accuracy")):
        (axes,) = charts[f"optimization_{name}"].axes
        (line,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert line.get_xydata().tolist() == [[row[x], row[y]] for row in run.best_of_n]
        assert "best of 3" in [label.get_text() for label in axes.texts]
