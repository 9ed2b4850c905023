"""What a flow says when something outside of it is broken: one sentence with the way out."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.engine.console import METRICS, show_results
from flows.engine.graph import open_repo, read_graph
from flows.engine.headline import LONGEST_NAME, run_name
from flows.engine.recorder import Recorder
from tasks.core.errors import InputError
from tests.flows.toy import ROOT


def test_mlflow_that_is_away_is_what_is_said_though_there_is_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "params.yaml").write_text("sft: {num_steps: 1}\n")
    record = Recorder()
    with pytest.raises(InputError, match="does not answer"):
        record.begin()
    record.end("KILLED")  # as the flow does on its way out
    assert record.settled("sft", "stopped", "the flow was stopped", 0.0) == "stopped"  # a late stage disturbs nobody


def test_a_folder_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    with pytest.raises(InputError, match=r"is no git checkout.*git init"), open_repo() as repo:
        read_graph(repo)


def test_a_matrix_that_dvc_has_no_sentence_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("policy: {algorithms: ppo, seeds: [0]}\n")
    unread: Any = None
    with pytest.raises(InputError, match=r"`policy.algorithms` is 'ppo'; it should be a list"):
        read_graph(unread)


def test_marks_of_a_merge_conflict(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(template, tmp_path / "project"))
    Path("dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\nstages: {a: 1}\n>>>>>>> other\n")
    says = r"dvc.lock holds the marks of a merge conflict.*git checkout --ours dvc.lock"
    with pytest.raises(InputError, match=says), open_repo() as repo:
        read_graph(repo).stages["prepare"].changed()


def test_results_that_this_flow_did_not_check_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    METRICS.parent.mkdir()
    METRICS.write_text('{"sft": {"accuracy": 0.25}}')
    show_results({"models/sft"}, "http://127.0.0.1:5000/#/experiments/1/runs", "")
    assert capsys.readouterr().out == "every run: http://127.0.0.1:5000/#/experiments/1/runs\n"
    show_results({str(METRICS)}, "", "ppo-0 is version 1")
    shown = capsys.readouterr().out
    assert "0.250" in shown
    assert "gate: ppo-0 is version 1" in shown


@pytest.mark.parametrize(
    ("status", "rows", "name"),
    [
        ("FINISHED", [("cached", "")], "nothing changed"),
        ("FINISHED", [("ran", "out/a not in DVC's cache; 6 more"), ("ran", "upstream a will run")], "first run"),
        ("FINISHED", [("cached", ""), ("ran", "params ppo.kl 0.1 → 0.3; b")], "ppo.kl 0.1 → 0.3"),
        ("FAILED", [("ran", "never run"), ("failed", "disk")], "stage1 failed"),
        ("KILLED", [("ran", "never run")], "cancelled"),
        ("LOST", [("ran", "never run")], "worker lost"),
        ("FINISHED", [("ran", "out/a missing"), ("cached", "")], "what was missing"),
        ("FINISHED", [("ran", "x" * 80), ("cached", "")], f"{'x' * 59}…"),
    ],
)
def test_the_name_of_a_run_says_what_changed(status: str, rows: list[tuple[str, str]], name: str) -> None:
    all_rows = [{"stage": f"stage{place}", "state": state, "why": why} for place, (state, why) in enumerate(rows)]
    assert run_name(status, all_rows) == name
    assert len(name) <= LONGEST_NAME
