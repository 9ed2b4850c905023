"""Where the stages of a committed dvc.lock ran, for somebody who has neither our MLflow nor our cache."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows.engine import environment as module
from flows.engine.environment import KEPT, keep_environment, kept_environments
from flows.engine.rerun.record import _of_commit
from flows.engine.rerun.verdict import surroundings

LOCK: dict[str, Any] = {name: {"cmd": name, "outs": [{"path": name, "hash": "md5", "md5": name * 8}]} for name in "abc"}


def machine(cpu: str) -> dict[str, Any]:
    return {"system": {"python": "3.11"}, "packages": {"torch": "2.13"}, "hardware": {"CPU": cpu, "cores": 2, "GPUs": []}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stage a ran on one machine, b and c on another."""
    monkeypatch.chdir(tmp_path)
    for cpu, names in (("AMD", "abc"), ("Intel", "bc")):
        monkeypatch.setattr(module, "environment", lambda cpu=cpu: machine(cpu))
        keep_environment({name: LOCK[name] for name in names})
    return tmp_path


def test_each_stage_has_the_machine_it_last_ran_on() -> None:
    found = kept_environments(KEPT.read_text(), LOCK)
    assert {name: where["hardware"]["CPU"] for name, where in found.items()} == {"a": "AMD", "b": "Intel", "c": "Intel"}
    assert len(json.loads(KEPT.read_text())) == 2


def test_a_stage_whose_outputs_are_others_by_now_is_not_on_record() -> None:
    other = LOCK | {"b": LOCK["b"] | {"outs": [{"path": "b", "hash": "md5", "md5": "0"}]}}
    assert set(kept_environments(KEPT.read_text(), other)) == {"a", "c"}


def test_marks_of_a_merge_conflict_cost_no_flow() -> None:
    KEPT.write_text("<<<<<<< HEAD\n" + KEPT.read_text())
    keep_environment({"a": LOCK["a"]})
    assert set(kept_environments(KEPT.read_text(), LOCK)) == {"a"}


def test_a_commit_names_the_hardware_that_differs(folder: Path) -> None:
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": LOCK}))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    record = _of_commit("HEAD")
    assert surroundings(record.environment("a"), machine("Intel")) == "hardware changed: CPU AMD → Intel"
