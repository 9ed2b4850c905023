"""The verdict on two hand-made dvc.lock, and what an environment tells of itself."""

import copy
import importlib.metadata
import math
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from flows.engine.environment import environment
from flows.engine.rerun.verdict import Side, Verdict, conclude, drift, judge, surroundings

UPSTREAM = {"prepare": (), "train": ("prepare",), "evaluate": ("train",), "page": ("evaluate",)}
HERE = {"system": {"python": "3.11.7"}, "packages": {"torch": "2.12"}, "hardware": {"CPU": "A", "cores": 2, "GPUs": []}}


def stage(name: str, deps: dict[str, str], outs: dict[str, str], **params: Any) -> dict[str, Any]:
    named = {"deps": deps, "outs": outs | {f"runs/{name}.json": os.urandom(4).hex()}}  # a receipt differs every time
    entries = {kind: [{"path": path, "hash": "md5", "md5": md5} for path, md5 in of.items()] for kind, of in named.items()}
    return {"cmd": f"python -m {name}", "params": {"params.yaml": params}, **entries}


def side() -> Side:
    return Side(
        {
            "prepare": stage("prepare", {"tasks/core": "c1", "raw.csv": "r1"}, {"data": "d1"}, rows=3),
            "train": stage("train", {"data": "d1", "train.py": "t1"}, {"models/a": "m1"}, train={"rate": 0.1, "steps": 2}),
            "evaluate": stage("evaluate", {"models": "ms1", "evaluate.py": "e1"}, {"metrics.json": "x1"}),
            "page": stage("page", {"metrics.json": "x1", "page.py": "p1"}, {"index.html": "h1"}),
        },
        {"evaluate": {"accuracy": 0.5, "zero": 0.0}},
    )


def set_hash(of: Side, name: str, path: str, md5: str) -> None:
    for kind in ("deps", "outs"):
        for entry in of.stages[name][kind]:
            if entry["path"] == path:
                entry["md5"] = md5


def trained_otherwise() -> Side:
    """As when train comes out differently, and with it everything after it."""
    now = side()
    for name, path in [("train", "models/a"), ("evaluate", "models"), ("evaluate", "metrics.json"), ("page", "metrics.json")]:
        set_hash(now, name, path, "new")
    set_hash(now, "page", "index.html", "new")
    now.metrics["evaluate"]["accuracy"] = 0.51
    return now


def verdicts(then: Side, now: Side, tolerance: float = 0.0, **failed: str) -> dict[str, Verdict]:
    found = judge(UPSTREAM, then, now, tolerance, failed, lambda name: f"{name} is a mystery")
    assert [one.stage for one in found] == list(UPSTREAM)
    return {one.stage: one for one in found}


def words(found: dict[str, Verdict]) -> list[str]:
    return [one.word for one in found.values()]


def test_receipts_differ_and_everything_is_identical() -> None:
    found = verdicts(side(), side())
    assert words(found) == ["identical"] * 4
    assert conclude(list(found.values())) == ("identical", "identical: all outputs of 4 stages have the recorded hashes")


def test_the_first_that_differs_is_named_and_the_others_are_its_consequences() -> None:
    found = verdicts(side(), trained_otherwise())
    assert words(found) == ["identical", "different", "different", "different"]
    assert found["train"] == Verdict("train", "different", "train is a mystery", ("models/a",), None)
    assert found["evaluate"].why == "because train differs"  # which reads the folder above its output
    assert found["page"].why == "because train differs"
    word, sentence = conclude(list(found.values()))
    assert word == "different"
    assert sentence == "different: train is the first stage that differs: train is a mystery"


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("train", lambda one: one["params"]["params.yaml"]["train"].update(rate=0.2), "params train.rate 0.1 → 0.2"),
        ("train", lambda one: one["params"]["params.yaml"].update(more=1), "params more is new"),
        ("prepare", lambda one: one["params"]["params.yaml"].pop("rows"), "params rows is gone"),
        ("train", lambda one: one["deps"][1].update(md5="t2"), "code train.py changed"),
        ("prepare", lambda one: one["deps"][0].update(md5="c2"), "code tasks/core changed"),
        ("prepare", lambda one: one["deps"][1].update(md5="r2"), "data raw.csv changed"),
        ("prepare", lambda one: one["deps"].pop(), "data raw.csv changed"),
        ("train", lambda one: one.update(cmd="python -m train --fast"), "command changed"),
    ],
)
def test_what_changed_is_read_from_the_locks(name: str, change: Any, why: str) -> None:
    now = side()
    now.stages[name] = copy.deepcopy(now.stages[name])
    change(now.stages[name])
    assert words(verdicts(side(), now)) == ["identical"] * 4  # other inputs, same outputs: nothing to explain
    now.stages[name]["outs"][0]["md5"] = "other"
    assert verdicts(side(), now)[name].why == why


def test_a_cause_of_its_own_stands_beside_the_inherited_one() -> None:
    now = trained_otherwise()
    set_hash(now, "evaluate", "evaluate.py", "e2")
    assert verdicts(side(), now)["evaluate"].why == "code evaluate.py changed; because train differs"


def test_tolerance_is_relative_to_the_recorded_value_and_unmeasured_stages_follow_the_measured() -> None:
    """train and page record no metric: train is judged by evaluate after it, page by evaluate before it."""
    found = verdicts(side(), trained_otherwise(), tolerance=0.021)
    assert words(found) == ["identical", "within tolerance", "within tolerance", "within tolerance"]
    assert found["evaluate"].drift == pytest.approx(0.02)
    word, sentence = conclude(list(found.values()))
    assert word == "within tolerance"
    assert "3 of 4 stages differ, train first (train is a mystery); no metric changed by more than 0.02" in sentence

    found = verdicts(side(), trained_otherwise(), tolerance=0.019)
    assert words(found) == ["identical", "different", "different", "different"]
    unmeasured = trained_otherwise()
    unmeasured.metrics.clear()
    nothing = Side(side().stages)
    assert words(verdicts(nothing, unmeasured, tolerance=9.0)) == ["identical", "different", "different", "different"]


def test_an_unmeasured_stage_is_judged_by_the_worst_of_those_after_it() -> None:
    """evaluate after train moved by 0.02, page by 1: train is no better than page."""
    then, now = side(), trained_otherwise()
    then.metrics["page"], now.metrics["page"] = {"links": 1.0}, {"links": 2.0}
    assert words(verdicts(then, now, tolerance=0.021)) == ["identical", "different", "within tolerance", "different"]
    _, sentence = conclude(list(verdicts(then, now, tolerance=1.1).values()))
    assert sentence.endswith("no metric changed by more than 1 of its value")


def test_drift() -> None:
    assert drift({}, {"a": 1.0}) is None
    assert drift({"a": 2.0, "b": -4.0}, {"a": 2.0, "b": -5.0, "new": 7.0}) == 0.25
    assert drift({"a": 0.0}, {"a": 0.0}) == 0.0
    assert drift({"a": math.nan}, {"a": math.nan}) == 0.0
    for then, now in [(0.0, 1e-9), (1.0, math.nan), (math.nan, 1.0), (1.0, math.inf), (math.inf, -math.inf)]:
        assert drift({"a": then}, {"a": now}) == math.inf
    assert drift({"a": 1.0}, {}) == math.inf


def test_what_failed_what_did_not_run_and_what_is_not_on_record() -> None:
    now = side()
    for name in ("train", "evaluate", "page"):
        del now.stages[name]
    found = verdicts(side(), now, train="out of memory")
    assert words(found) == ["identical", "failed", "not run", "not run"]
    assert found["page"].why == "because train failed"
    assert conclude(list(found.values())) == ("failed", "train failed: out of memory")
    assert verdicts(side(), now)["train"].word == "not run"  # the flow itself ended

    then = side()
    del then.stages["page"]
    found = verdicts(then, side())
    assert words(found) == ["identical", "identical", "identical", "not recorded"]
    word, sentence = conclude(list(found.values()))
    assert word == "identical"
    assert sentence.endswith("of 3 stages have the recorded hashes; 1 is not on record")


def test_a_stage_that_is_not_on_record_is_still_found_out() -> None:
    then = side()
    del then.stages["train"]
    found = verdicts(then, trained_otherwise())
    assert words(found) == ["identical", "not recorded", "different", "different"]
    assert found["evaluate"].why == "because train differs"


def test_an_unexplained_difference_is_the_environment_the_hardware_or_chance() -> None:
    now = copy.deepcopy(HERE)
    assert surroundings(None, now).endswith("are not on record")
    assert surroundings(HERE, now) == "nothing that is recorded changed: the stage is not deterministic"
    now["packages"] |= {"torch": "2.13", "numpy": "2.0"}
    now["system"] = {"python": "3.11.9"}
    assert surroundings(HERE, now) == "environment changed: python 3.11.7 → 3.11.9, numpy 2.0 is new, torch 2.12 → 2.13"
    now["hardware"] = HERE["hardware"] | {"CPU": "B"}
    assert surroundings(HERE, now).endswith("torch 2.12 → 2.13; hardware changed: CPU A → B")


def test_the_environment_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1'\necho 'NVIDIA H200, 570.1'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = environment()
    assert found["system"]["python"] == platform.python_version()
    for package in ("torch", "prefect", "mlflow", "pyarrow"):
        assert found["packages"][package] == importlib.metadata.version(package)
    assert found["hardware"]["GPUs"] == ["NVIDIA H200, 570.1"] * 2
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["hardware"]["CPU"]
