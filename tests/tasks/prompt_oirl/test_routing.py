"""Routing between models: curves and figures by hand, as their papers define them, a log with costs, and one without."""

import numpy as np
import pytest

from tasks.core.errors import InputError
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.routing import apgr, area, costs_of, cpt, curve, ends, pgr, routed, routing_figures
from tests.tasks.prompt_oirl.test_prompt_oirl_study import studied
from tests.tasks.prompt_oirl.test_selector import rows_of

COSTS = np.tile([1.0, 3.0], (4, 1))
RATES = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
KNOWING = np.array([[0.9, 0.9], [0.1, 0.9], [0.1, 0.8], [0.1, 0.1]])


def test_the_gap_is_recovered_by_who_knows_where():
    """After 0, 1, 2, 3 and 4 of four queries: 0, 1, 2, 2, 2 of the 2 answers between the models. The mean is .75."""
    assert ends(COSTS, RATES) == (0, 1)
    recovered = pgr(KNOWING, RATES, 0, 1)
    assert recovered.tolist() == [0, 0.5, 1, 1, 1]
    assert apgr(recovered) == pytest.approx((0 / 2 + 1 + 2 + 2 + 2 / 2) / 4 / 2)
    assert apgr(pgr(KNOWING[:, ::-1], RATES, 0, 1)) == pytest.approx((0 + 0 + 0 + 1 + 2 / 2) / 4 / 2)


def test_so_many_strong_calls_recover_so_much():
    """Half of the gap after one of four calls, more after two; by who knows it wrong, all of them are needed."""
    recovered = pgr(KNOWING, RATES, 0, 1)
    assert (cpt(recovered, 0.5), cpt(recovered, 0.8)) == (0.25, 0.5)
    recovered = pgr(KNOWING[:, ::-1], RATES, 0, 1)
    assert (cpt(recovered, 0.5), cpt(recovered, 0.8)) == (0.75, 1.0)


def test_a_strong_model_that_is_wrong_where_the_weak_is_right_recovers_more_than_all():
    """Of three queries the strong one wins two and loses one: after two calls 2 of a gap of 1."""
    rates = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    recovered = pgr(np.array([[0.1, 0.9], [0.1, 0.8], [0.9, 0.1]]), rates, 0, 1)
    assert recovered.tolist() == [0, 1, 2, 1]
    assert cpt(recovered, 0.8) == pytest.approx(1 / 3)
    assert apgr(recovered) == pytest.approx((0 / 2 + 1 + 2 + 1 / 2) / 3)


def test_the_curve_ends_where_one_model_answers_all():
    points = curve(*routed(KNOWING, RATES, COSTS))
    assert points[0].tolist() == [1.0, 0.25]  # the dear one is worth no price
    assert points[-1].tolist() == [2.0, 0.75]  # of a tie the cheap one
    assert [1.5, 0.5] in points.tolist()


def test_what_is_paid_is_the_cost_of_the_very_call():
    """The two queries that go to the dear model are its dear ones: 5 and 5 of a mean of 3."""
    costs = np.array([[1.0, 1.0], [1.0, 5.0], [1.0, 5.0], [1.0, 1.0]])
    assert curve(*routed(KNOWING, RATES, costs))[-1].tolist() == [(1 + 5 + 5 + 1) / 4, 0.75]


def test_the_area_by_hand():
    """Up from .25 at 1 to .75 at 2, then level to 3: (.5 + .75) / 2. A point under the line changes nothing."""
    single = np.array([[1.0, 0.25], [3.0, 0.75]])
    points = np.array([[1.0, 0.25], [1.5, 0.3], [2.0, 0.75], [2.5, 0.7]])
    assert area(points, single) == pytest.approx((0.5 + 0.75) / 2)


def test_the_hull_is_what_mixing_two_prices_reaches():
    """RouterBench: between two routers any mixture may be had, so .5 at 2 lies on the line from .2 at 1 to .8 at 3."""
    single = np.array([[1.0, 0.2], [3.0, 0.8]])
    assert area(np.array([[1.0, 0.2], [2.0, 0.3], [3.0, 0.8]]), single) == pytest.approx(0.5)
    assert area(np.array([[1.0, 0.2], [2.0, 0.7], [3.0, 0.8]]), single) == pytest.approx((0.45 + 0.75) / 2)


def test_the_interval_holds_the_figure():
    found = routing_figures(np.tile(KNOWING, (20, 1)), np.tile(RATES, (20, 1)), np.tile(COSTS, (20, 1)), seed=0)
    for name in ("area", "apgr", "cpt50", "cpt80"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert "apgr" not in routing_figures(KNOWING[:, ::-1], RATES[:, ::-1], COSTS, seed=0)  # the cheapest is the best


def test_costs_are_those_of_the_calls():
    rows = [row | {"cost": 1.0 + 2 * number} for number, row in enumerate(rows_of(2))]
    again = rows[0] | {"cost": 3.0}
    unjudged = rows[0] | {"cost": 99.0, "correct": None}
    assert costs_of([*rows, again, unjudged], Answers.of([*rows, again, unjudged])).tolist() == [[2.0, 3.0], [5.0, 7.0]]


def test_the_study_routes_by_the_costs_of_the_log(tmp_path):
    rows = [row | {"cost": 3.0 if row["prompt_id"] == "steps" else 1.0} for row in rows_of(80) + rows_of(20, 1, "test")]
    found = studied(tmp_path, rows, ["routing"])
    assert found.metrics["routing.area"] > 0.6
    assert found.tables["routing"][0]["cost"] < found.tables["routing"][-1]["cost"]
    assert [found.tables["routing_pgr"][end]["strong"] for end in (0, -1)] == [0, 1]
    with pytest.raises(InputError, match="query train0 under prompt plain has no `cost`"):
        studied(tmp_path, [row | {"cost": None} for row in rows], ["routing"])
    with pytest.raises(InputError, match=r"log\.parquet, row 0: `cost` is 'dear'; it must be a number of at least 0"):
        studied(tmp_path, [row | {"cost": "dear"} for row in rows], ["routing"])
