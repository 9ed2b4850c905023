"""Each alarm is raised by the history it is meant for, and by no healthy one: histories by hand, windows of 2."""

import pytest
from pydantic import ValidationError

from tasks.core.config import read_params
from tasks.training.alarms import CHECKS, AlarmsConfig, alarms
from tests.processes import REPO

CONFIG = AlarmsConfig(
    window=2, length_drift=1.5, repetition=0.3, eos_rate=0.8, entropy=0.5, kl_budget=5.0, proxy_gap=0.1, dominance=0.9, stop=[]
)
HEALTHY = {
    "score_mean": [0.0, 0.1, 0.2, 0.3], "completion_length": [20.0] * 4, "repetition": [0.0] * 4, "eos_rate": [1.0] * 4,
    "entropy": [0.4] * 4, "kl_mean": [0.0, 0.5, 1.0, 1.0],
}  # fmt: skip


def rows(**series):
    series = HEALTHY | series
    count = len(series["score_mean"])
    return [{"step": step, **{f"rollout/{key}": values[step] for key, values in series.items()}} for step in range(count)]


def raised(config=CONFIG, **series):
    return alarms(rows(**series), config).keys()


def test_a_healthy_history_raises_nothing():
    verified = {"verifier_mean": [0.4, 0.45, 0.5, 0.55], "verifier_share": [0.5] * 4, "sentiment_share": [0.5] * 4}
    assert raised() == set()
    assert raised(**verified) == set()


@pytest.mark.parametrize(("name", "series", "limit"), [
    ("length_drift", {"completion_length": [20, 20, 31, 31]}, 30),
    ("length_drift", {"completion_length": [20, 20, 13, 13]}, 13.4),
    ("length_drift", {"completion_length": [20, 20, 1, 1]}, 13.4),
    ("repetition", {"repetition": [0, 0, 0.31, 0.31]}, 0.3),
    ("eos_rate", {"eos_rate": [1, 1, 0.79, 0.79]}, 0.8),
    ("entropy", {"entropy": [0.4, 0.4, 0.19, 0.19]}, 0.2),
    ("kl_budget", {"kl_mean": [0, 0, 5.1, 5.1]}, 5.0),
])  # fmt: skip
def test_past_its_limit_and_just_at_it(name, series, limit):
    ((key, values),) = series.items()
    assert raised(**series) == {name}
    assert raised(**{key: [*values[:2], limit, limit]}) == set()


@pytest.mark.parametrize("name", ["completion_length", "repetition", "eos_rate", "entropy", "kl_mean"])
def test_one_odd_step_is_no_alarm_where_the_mean_is_not(name):
    odd = {"completion_length": 38.0, "repetition": 0.59, "eos_rate": 0.61, "entropy": 0.01, "kl_mean": 8.9}[name]
    assert raised(**{name: [*HEALTHY[name][:3], odd]}) == set()


def test_nothing_is_said_before_two_windows_are_full():
    exploding = {"kl_mean": [50.0] * 4}
    assert alarms(rows(**exploding)[:3], CONFIG) == {}
    assert alarms(rows(**exploding), CONFIG).keys() == {"kl_budget"}
    assert alarms([], CONFIG) == {}


def test_steps_without_completions_do_not_count():
    """Between two probes only the loss is logged."""
    history = rows(kl_mean=[0.0, 0.0, 9.0, 9.0])
    spread = [row for probed in history for row in (probed, {"step": 0, "loss/dpo": 0.6})]
    assert alarms(spread, CONFIG).keys() == {"kl_budget"}
    assert alarms(spread[:-3], CONFIG) == {}


def test_the_proxy_rises_while_right_answers_fall():
    fallen = {"verifier_mean": [0.5, 0.6, 0.4, 0.4]}
    assert raised(**fallen, score_mean=[0.0, 0.0, 0.1, 0.1]) == {"proxy_gap"}
    assert raised(**fallen, score_mean=[0.0] * 4) == {"proxy_gap"}  # no lower than then is enough
    assert raised(**fallen, score_mean=[0.0, 0.0, -0.1, -0.1]) == set()  # the score says so itself
    assert raised(verifier_mean=[0.5, 0.6, 0.45, 0.46]) == set()  # by less than proxy_gap
    assert raised() == set()  # nobody knows the answers


def test_the_proxy_gap_is_measured_from_the_best_window():
    """Better at first, then worse than before: the start would not show it."""
    series = {key: [*values, *values[-1:] * 2] for key, values in HEALTHY.items()}
    series |= {"score_mean": [0.0, 0.0, 0.5, 0.5, 0.6, 0.6], "verifier_mean": [0.3, 0.3, 0.6, 0.6, 0.4, 0.4]}
    assert raised(**series) == {"proxy_gap"}
    assert raised(**{key: values[:4] for key, values in series.items()}) == set()


def test_one_component_makes_the_score():
    assert raised(reward_model_share=[0.99, 0.95, 0.9, 0.8], sentiment_share=[0.01, 0.05, 0.1, 0.2]) == {"dominance"}
    assert raised(reward_model_share=[0.9, 0.9, 0.9, 0.89], sentiment_share=[0.1, 0.1, 0.1, 0.11]) == set()


def test_a_component_that_has_done_its_work_is_not_dominated():
    """Once every answer is right, what is left of the spread is the other's."""
    assert raised(verifier_share=[0.5, 0.5, 0.0, 0.0], reward_model_share=[0.5, 0.5, 1.0, 1.0]) == set()


def test_a_share_of_something_else_is_no_component():
    history = [row | {"policy/clipped_share": 1.0} for row in rows()]
    assert alarms(history, CONFIG) == {}


def test_several_at_a_time_in_words_with_figures():
    found = alarms(rows(kl_mean=[0.0, 0.0, 7.0, 8.0], eos_rate=[1.0, 1.0, 0.5, 0.5]), CONFIG)
    assert found == {
        "eos_rate": "only 50% of the completions end by themselves",
        "kl_budget": "the KL to the reference is 7.50 nats",
    }


@pytest.mark.parametrize("stop", [["kl"], ["kl_budget", "reward"]])
def test_only_known_alarms_can_stop(stop):
    with pytest.raises(ValidationError, match="'length_drift', 'repetition'"):
        AlarmsConfig(**CONFIG.model_dump() | {"stop": stop})


def test_every_alarm_has_its_limit_in_the_params():
    params = read_params(REPO / "params.yaml")["alarms"]
    assert params.keys() == CHECKS.keys() | {"window", "stop"}
