"""Alarms in real runs: a reward that is exploited, a policy that leaves its reference, and what is left when one stops it."""

import signal
import time

import pytest

from tasks.core.files import digest, read_json
from tests.project import ALGORITHMS

GRPO = "policy@grpo-0"
LOOSE = {"num_steps": 25, "kl_coef": 0.0, "missing_eos_penalty": 0.0}


@pytest.fixture
def again(project, tmp_path):
    return project.copy(tmp_path / "project")


def history(project, variant="grpo-0"):
    return read_json(project.folder / f"reports/policy/{variant}/history.json")


def raised(rows):
    """Name -> the steps at which it held."""
    names = {key for row in rows for key in row if key.startswith("alarm/")}
    return {name.removeprefix("alarm/"): [row["step"] for row in rows if name in row] for name in names}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_healthy_run_raises_none(project, algorithm):
    assert raised(history(project, f"{algorithm}-0")) == {}


@pytest.mark.parametrize(("reward", "limits", "expected"), [
    # Longer is better: the policy no longer ends, says the same again, and is right no more while its score rises.
    ({"weights": {"length_band": 50.0}}, {"length_drift": 1.3},
     {"length_drift", "eos_rate", "repetition", "proxy_gap", "kl_budget"}),
    # Wrong is better: soon there is little left to chance.
    ({"weights": {"verifier": -2.0}}, {"entropy": 0.8, "kl_budget": 0.5}, {"entropy", "kl_budget"}),
    ({"weights": {"verifier": 1.0, "sentiment": 0.001}}, {}, {"dominance"}),
])  # fmt: skip
def test_an_alarm_is_raised_and_told(again, reward, limits, expected):
    again.set("reward", **reward)
    again.set("reward.functions", length_band={"shortest": 50, "longest": 60})
    again.set("alarms", **limits)
    again.set("policy.grpo", **LOOSE)
    done = again.run(GRPO)
    assert done.code == 0, done.stderr
    found = raised(history(again))
    assert found.keys() >= expected
    assert min(min(steps) for steps in found.values()) >= 5  # two windows of 3
    assert len(history(again)) == 25  # nothing is named in `stop`
    (run,) = again.runs(GRPO)[:1]
    for name in expected:
        first = found[name][0]
        assert run.data.tags[f"alarm.{name}"].startswith(f"step {first}: ")
        assert done.stderr.count(f"{GRPO}: alarm {name} at step {first}: ") == done.stderr.count(f"alarm {name}") == 1
        told = again.client().get_metric_history(run.info.run_id, f"alarm/{name}")
        assert [(point.step, point.value) for point in told] == [(step, 1.0) for step in found[name]]


def test_a_probe_raises_alarms_too(again):
    """DPO sees its own completions at 12 steps only."""
    again.set("alarms", kl_budget=0.1)
    assert again.run("policy@dpo-0").code == 0
    found = raised(history(again, "dpo-0"))
    probes = [row["step"] for row in history(again, "dpo-0") if "rollout/score_mean" in row]
    assert found.keys() == {"kl_budget"}
    assert set(found["kl_budget"]) <= set(probes[5:])


@pytest.fixture
def stopping(again):
    """kl_budget ends it in the middle."""
    again.set("alarms", kl_budget=0.5, stop=["kl_budget"])
    again.set("policy.grpo", **LOOSE)
    return again


def test_an_alarm_that_stops_leaves_everything_else_as_it_is(stopping):
    done = stopping.run(GRPO)
    assert done.code == 0, done.stderr
    rows = history(stopping)
    last = rows[-1]["step"]
    assert 5 <= last < 24
    assert raised(rows) == {"kl_budget": [last]}
    assert done.stderr.endswith(f"{GRPO}: stopped after step {last} by kl_budget\n")
    (run,) = stopping.runs(GRPO)[:1]
    assert run.info.status == "FINISHED"
    assert run.data.tags["alarm.kl_budget"].startswith(f"step {last}: the KL to the reference is ")
    assert run.data.metrics["alarm/kl_budget"] == 1.0
    outs = stopping.receipt(GRPO)["outs"]
    assert outs == {out: digest(stopping.folder / out) for out in ("models/policy/grpo-0", "reports/policy/grpo-0")}
    assert outs["models/policy/grpo-0"] != digest(stopping.folder / "models/sft")


def test_stopped_after_a_kill_it_is_the_same(stopping, tmp_path):
    """The means that the alarm looks at reach back before the kill."""
    other = stopping.copy(tmp_path / "other")
    assert stopping.run(GRPO).code == 0
    running = other.start(GRPO, REALIGN_CHECKPOINT_SECONDS="0")
    while not list(other.folder.glob(f".scratch/{GRPO}/*/checkpoint.pt")):
        assert running.alive(), running.wait().stderr
        time.sleep(0.001)
    running.send(signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    done = other.run(GRPO)
    assert done.code == 0, done.stderr
    assert "resumes at step" in done.stdout
    assert other.receipt(GRPO)["outs"] == stopping.receipt(GRPO)["outs"]
    (run,) = other.runs(GRPO)[:1]
    assert run.data.tags["alarm.kl_budget"] == stopping.runs(GRPO)[0].data.tags["alarm.kl_budget"]
