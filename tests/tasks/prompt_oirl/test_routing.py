"""Routing between models: the curve, its area and the recovered gap by hand, a log with costs, and one without."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.prompt_oirl.routing import apgr, area, curve, routed, routing_figures
from tests.tasks.prompt_oirl.test_prompt_oirl_study import studied
from tests.tasks.prompt_oirl.test_selector import rows_of

COSTS = np.array([1.0, 3.0])
RATES = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
KNOWING = np.array([[0.9, 0.9], [0.1, 0.9], [0.1, 0.8], [0.1, 0.1]])


def test_the_gap_is_recovered_by_who_knows_where():
    """After 0, 1, 2, 3 and 4 of four queries: 0, 1, 2, 2, 2 of the 2 answers between the models. The mean is .75."""
    assert apgr(KNOWING, RATES, 0, 1) == pytest.approx((0 / 2 + 1 + 2 + 2 + 2 / 2) / 4 / 2)
    assert apgr(KNOWING[:, ::-1], RATES, 0, 1) == pytest.approx((0 + 0 + 0 + 1 + 2 / 2) / 4 / 2)


def test_the_curve_ends_where_one_model_answers_all():
    points = curve(*routed(KNOWING, RATES, COSTS))
    assert points[0].tolist() == [1.0, 0.25]  # the dear one is worth no price
    assert points[-1].tolist() == [2.0, 0.75]  # of a tie the cheap one
    assert [1.5, 0.5] in points.tolist()


def test_the_area_by_hand():
    """Up from .25 at 1 to .75 at 2, then level to 3: (.5 + .75) / 2. A point under the line changes nothing."""
    single = np.array([[1.0, 0.25], [3.0, 0.75]])
    points = np.array([[1.0, 0.25], [1.5, 0.3], [2.0, 0.75], [2.5, 0.7]])
    assert area(points, single) == pytest.approx((0.5 + 0.75) / 2)


def test_the_interval_holds_the_figure():
    found = routing_figures(np.tile(KNOWING, (20, 1)), np.tile(RATES, (20, 1)), COSTS, seed=0)
    assert found["apgr_low"] < found["apgr"] < found["apgr_high"]
    assert found["area_low"] < found["area"] < found["area_high"]
    assert "apgr" not in routing_figures(KNOWING[:, ::-1], RATES[:, ::-1], COSTS, seed=0)  # the cheapest is the best


def test_the_study_routes_by_the_costs_of_the_log(tmp_path):
    rows = [row | {"cost": 3.0 if row["prompt_id"] == "steps" else 1.0} for row in rows_of(80) + rows_of(20, 1, "test")]
    found = studied(tmp_path, rows, ["routing"])
    assert found.metrics["routing.area"] > 0.6
    assert found.tables["routing"][0]["cost"] < found.tables["routing"][-1]["cost"]
    with pytest.raises(InputError, match="query train0 under prompt plain has no `cost`"):
        studied(tmp_path, [row | {"cost": None} for row in rows], ["routing"])
    with pytest.raises(InputError, match=r"log\.parquet, row 0: `cost` is 'dear'; it must be a number of at least 0"):
        studied(tmp_path, [row | {"cost": "dear"} for row in rows], ["routing"])
