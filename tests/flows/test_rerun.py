"""An earlier flow run again: restored beside the user's files, the verdict printed, told by the exit code, kept in MLflow."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.engine.rerun.record import look_up
from flows.engine.rerun.restore import claim, reproduced, restore, stages_of
from flows.engine.rerun.verdict import conclude, judge
from flows.rerun import EXIT
from tasks.core.errors import InputError
from tests.flows.toy import Flow, Project
from tests.processes import PATIENCE, wait_until

STAGES = ["prepare", "train", "work@a", "work@b", "fragile", "after_fragile", "evaluate"]
CHANCE = ("json.dumps(config.learning_rate)", "json.dumps(__import__('random').random())")


def start(project: Project, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.rerun", *arguments]
    told = {"cwd": project.folder, "env": project.environment | environment, "text": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **told)


def rerun(project: Project, *arguments: str, **environment: str) -> Flow:
    process = start(project, *arguments, **environment)
    out, err = process.communicate(timeout=PATIENCE)
    wait_until(lambda: not project.everywhere())
    return Flow(process.returncode, out, err)


def git(project: Project, *arguments: str) -> str:
    as_somebody = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(as_somebody, cwd=project.folder, check=True, capture_output=True, text=True).stdout.strip()


def replace(project: Project, name: str, old: str, new: str) -> None:
    file = project.folder / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def said(flow: Flow) -> dict[str, str]:
    return {stage: cells[0] for stage, cells in flow.table("verdict").items() if stage in STAGES}


def newest(project: Project, flow: str) -> Any:
    return next(run for run in project.runs() if run.data.tags.get("flow") == flow)


@pytest.fixture
def here(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(finished.folder)
    look_up.cache_clear()
    yield finished
    look_up.cache_clear()


def test_a_run_with_uncommitted_changes_and_added_data_comes_back(finished: Project, server: str) -> None:
    """The changes are in any encoding and of any kind, and by the time of the rerun the user has gone on."""
    folder = finished.folder
    (folder / "raw.csv").write_text("1,2\n")
    dvc = [sys.executable, "-m", "dvc", "add", "-q", "raw.csv"]
    subprocess.run(dvc, cwd=folder, env=finished.environment, check=True)
    git(finished, "add", "raw.csv.dvc", ".gitignore")
    replace(finished, "dvc.yaml", "deps: [toy/light.py, toy/prepare.py]", "deps: [raw.csv, toy/light.py, toy/prepare.py]")
    (folder / "toy/prepare.py").write_bytes(
        b"# -*- coding: latin-1 -*-\r\n# caf\xe9\n" + (folder / "toy/prepare.py").read_bytes()
    )
    finished.set(work__a__scale=5)
    assert finished.align(PREFECT_API_URL=server).code == 0
    of = finished.pipelines()[0]
    assert of.data.tags["git.dirty"] == "true"
    git(finished, "reset", "-q", "--hard")
    (folder / "raw.csv").unlink()
    before = git(finished, "status", "--porcelain"), (folder / "dvc.lock").read_text(), finished.journal()

    flow = rerun(finished, of.info.run_id[:10], PREFECT_API_URL=server)
    assert flow.code == 0, flow.err
    assert said(flow) == dict.fromkeys(STAGES, "identical")
    assert "identical: all outputs of 7 stages have the recorded hashes" in flow.out
    assert "work@a        │ work@a at work on" in flow.out  # all of it was computed, not taken from the cache
    assert (git(finished, "status", "--porcelain"), (folder / "dvc.lock").read_text(), finished.journal()) == before
    assert not list((folder / ".scratch/rerun").glob("*/"))

    record = newest(finished, "rerun")
    assert record.info.status == "FINISHED"
    assert record.data.tags["rerun.of"] == of.info.run_id
    assert record.data.tags["verdict"] == "identical"
    assert f"runs/{of.info.run_id})" in record.data.tags["mlflow.note.content"]
    again = newest(finished, "align")
    assert again.data.tags["mlflow.parentRunId"] == record.info.run_id
    assert again.data.params["work.a.scale"] == "5"
    table = json.loads(Path(finished.mlflow().download_artifacts(record.info.run_id, "verdict.json")).read_text())
    assert [row[:2] for row in table["data"]] == [[stage, "identical"] for stage in said(flow)]


def test_a_stage_that_is_left_to_chance_is_named(finished: Project, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a commit, of which the receipts in DVC's cache still tell the environment and the metrics."""
    replace(finished, "toy/train.py", *CHANCE)
    git(finished, "commit", "-qam", "chance")
    assert finished.align("--until", "train", PREFECT_API_URL=server).code == 0
    git(finished, "add", "dvc.lock")
    git(finished, "commit", "-qm", "its lock")
    commit = git(finished, "rev-parse", "HEAD")

    flow = rerun(finished, "HEAD", "--until", "train", PREFECT_API_URL=server)
    assert flow.code == 4, flow.err
    verdict, *_ = flow.table("verdict")["train"]
    assert verdict == "different"
    why = "nothing that is recorded changed: the stage is not deterministic"
    kept = f".scratch/rerun/{commit[:12]}"
    assert f"different: train is the first stage that differs: {why}; the checkout is kept in {kept}" in flow.out
    assert (finished.folder / kept / "models/train/weights.json").exists()
    record = newest(finished, "rerun")
    assert (record.info.status, record.data.tags["verdict"], record.data.tags["rerun.of"]) == ("FINISHED", "different", commit)

    monkeypatch.chdir(finished.folder)  # the same checkout, with a tolerance
    upstream, record = stages_of(Path(kept), "train"), look_up(commit)
    word, sentence = conclude(judge(upstream, record.side, reproduced(Path(kept)), 0.01, {}, lambda name: "chance"))
    assert EXIT[word.capitalize()] == 3
    assert sentence.startswith(
        "within tolerance: 1 of 1 stages differ, train first (chance); no metric changed by more than 0 "
    )


def test_a_lock_that_does_not_belong_to_its_commit_and_a_stage_that_fails(finished: Project, server: str) -> None:
    finished.set(prepare__rows=4, fragile__fail=True)
    git(finished, "add", "params.yaml", "dvc.lock")
    git(finished, "commit", "-qm", "params of another day")
    flow = rerun(finished, git(finished, "rev-parse", "HEAD"), "--until", "after_fragile", PREFECT_API_URL=server)
    assert flow.code == 1
    assert said(flow) == {"prepare": "different", "fragile": "failed", "after_fragile": "not run"}
    assert flow.table("verdict")["prepare"][-1] == "params prepare.rows 3 → 4"
    assert flow.err.startswith(
        "fragile failed: fragile: told to fail by fragile.fail (see .scratch/logs/fragile.log); the checkout"
    )
    record = newest(finished, "rerun")
    assert (record.info.status, record.data.tags["verdict"]) == ("FAILED", "failed")


def test_a_killed_rerun_leaves_nothing_running_and_the_next_one_says_so(
    finished: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a Prefect server: the private API dies with the rerun, and the flow in the checkout must not wait for it."""
    finished.set(train__num_steps=100000, train__seconds_per_step=0.05)
    git(finished, "add", "params.yaml", "dvc.lock")
    git(finished, "commit", "-qm", "slow")
    process = start(finished, "HEAD", "--until", "train")
    [kept] = wait_until(lambda: list(finished.folder.glob(".scratch/rerun/*/.scratch/train/*/run_id")))
    descendants = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    wait_until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in descendants))
    assert finished.mlflow().get_run(kept.read_text()).info.status == "KILLED"
    assert newest(finished, "align").info.status == "KILLED"
    assert newest(finished, "rerun").info.status == "RUNNING"  # nobody is left to say so, until
    monkeypatch.chdir(finished.folder)
    with claim(Path(".scratch/rerun/another")):
        assert newest(finished, "rerun").info.status == "KILLED"
        with pytest.raises(InputError, match="another process is at work on this rerun"):
            claim(Path(".scratch/rerun/another"))


def test_what_cannot_be_rerun_is_refused_in_one_sentence(here: Project) -> None:
    of = here.pipelines()[0]
    train = here.receipt("train")["run_id"]
    client = here.mlflow()
    for name, sentence in [
        ("cafe0123", "`cafe0123` is neither the id of a run in MLflow"),
        ("HEAD", r"has no dvc\.lock, so nothing says what its outputs were"),
        (train, f"run {train} \\(train\\) is not a pipeline run; give the run it belongs to, {of.info.run_id}"),
    ]:
        with pytest.raises(InputError, match=sentence):
            look_up(name)
    client.set_tag(of.info.run_id, "git.dirty", "true")
    with pytest.raises(InputError, match="made with changes that were not committed and that it did not keep"):
        look_up(of.info.run_id)
    client.set_tag(of.info.run_id, "mlflow.source.git.commit", "0" * 40)
    with pytest.raises(InputError, match=f"was made at commit {'0' * 40}, which this repository lacks"):
        look_up(of.info.run_id)
    git(here, "tag", of.info.run_id[:6])
    with pytest.raises(InputError, match=f"may be run {of.info.run_id} or commit"):
        look_up(of.info.run_id[:6])
    killed = client.create_run(of.info.experiment_id, tags=of.data.tags | {"git.dirty": "false"})
    client.set_tag(killed.info.run_id, "mlflow.source.git.commit", git(here, "rev-parse", "HEAD"))
    with pytest.raises(InputError, match=r"kept no dvc\.lock: it is still at work, was killed"):
        look_up(killed.info.run_id)


def test_a_commit_without_stages_or_without_flows_is_refused(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    record = look_up(here.pipelines()[0].info.run_id)
    monkeypatch.delenv("PYTHONPATH", raising=False)  # from where the toy project has its flows
    with pytest.raises(InputError, match=r"has no flows/align\.py to run its stages"):
        restore(record, Path(".scratch/rerun/old"))
    git(here, "rm", "-q", "--cached", "dvc.yaml")
    git(here, "commit", "-qm", "no stages")
    with pytest.raises(InputError, match=r"has no dvc\.yaml, hence no stages"):
        restore(dataclasses.replace(record, commit="HEAD"), Path(".scratch/rerun/old"))


def test_the_refusal_is_all_that_is_printed(finished: Project) -> None:
    flow = rerun(finished, "cafe0123")
    assert (flow.code, flow.out) == (1, "")
    assert len(flow.err.strip().splitlines()) == 1


def test_what_a_run_vouches_for_and_where_it_was_made(here: Project, server: str) -> None:
    """A cached stage was made in the environment of the flow that ran it, and one that failed is not on record."""
    first = here.pipelines()[0].info.run_id
    here.set(fragile__fail=True)
    assert here.align(PREFECT_API_URL=server).code == 1
    of = here.pipelines()[0].info.run_id
    record = look_up(of)
    assert set(record.side.stages) == set(STAGES) - {"fragile", "after_fragile"}
    assert record.made_in["train"] == first
    assert record.side.metrics["train"] == {"accuracy": 0.5}
    assert record.side.metrics["work@a"] == {"value": 1.0}
    found = record.environment("train")
    assert found is not None
    assert found["hardware"]["cores"] == os.cpu_count()
    assert "fragile: {fail: true}" in record.patch
