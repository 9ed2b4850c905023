"""The flow from outside: what it prints, what it runs and in which order, and what it leaves in MLflow and in Prefect."""

import json
import os
import sqlite3
from typing import Any

import pytest

from tests.flows.servers import last_flow_run
from tests.flows.toy import Flow, Project
from tests.processes import wait_until

STAGES = ["prepare", "train", "work@a", "work@b", "fragile", "after_fragile", "evaluate"]


def stage_tags(run: Any) -> dict[str, str]:
    return {key.removeprefix("stage."): value for key, value in run.data.tags.items() if key.startswith("stage.")}


def test_first_flow_runs_all_in_order_and_side_by_side(first: tuple[Project, Flow]) -> None:
    project, flow = first
    assert flow.code == 0, flow.err
    assert flow.plan() == dict.fromkeys(STAGES, "depends") | {"prepare": "run", "train": "run"}
    assert flow.happened() == dict.fromkeys(STAGES, "ran")
    at = {(what, name): time for what, name, _, time in project.journal()}
    assert at["end", "prepare"] < min(at["start", "work@a"], at["start", "work@b"], at["start", "fragile"])
    assert max(at["end", "work@a"], at["end", "work@b"]) < at["start", "evaluate"]
    assert at["end", "fragile"] < at["start", "after_fragile"]
    at_work = peak = 0
    for what, _, _, _ in project.journal():
        at_work += 1 if what == "start" else -1
        peak = max(peak, at_work)
    cores = len(os.sched_getaffinity(0))
    assert min(2, cores) <= peak <= min(4, cores)  # work@a and work@b waited for each other; train and fragile may be beside


def test_lines_carry_the_stage_and_are_kept(first: tuple[Project, Flow]) -> None:
    project, flow = first
    assert "work@a        │ work@a at work on no device" in flow.out
    assert (project.folder / ".scratch/logs/work@a.log").read_text() == "work@a at work on no device\n"


def test_results_are_shown_from_the_recorded_file(first: tuple[Project, Flow]) -> None:
    _, flow = first
    assert "│ sft        │ -       │ 0.400  │" in flow.out
    assert "│ a-0        │ -       │ 0.200  │ -                    │ 0.100     │" in flow.out
    assert "make ui" in flow.out


def test_mlflow_tree_of_the_first_flow(first: tuple[Project, Flow]) -> None:
    project, _ = first
    pipeline = project.pipelines()[-1]
    assert pipeline.info.status == "FINISHED"
    assert pipeline.data.params["train.learning_rate"] == "0.003"
    assert pipeline.data.params["work.a.scale"] == "2"
    assert len(pipeline.data.tags["mlflow.source.git.commit"]) == 40
    made_by = {name: project.receipt(name)["run_id"] for name in STAGES}
    for name in STAGES:
        assert stage_tags(pipeline)[name.replace("@", ".")] == f"ran:{made_by[name]}"
        assert project.receipt(name)["pipeline_run_id"] == pipeline.info.run_id
    assert pipeline.data.metrics == {"train/accuracy": 0.5}  # the others are a link away
    artifacts = project.folder / "mlartifacts" / pipeline.info.run_id / "artifacts"
    assert json.loads((artifacts / "metrics.json").read_text())["work.a"] == {"value": 1.0}
    assert pipeline.info.run_name == "first run"
    children = [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") == pipeline.info.run_id]
    assert [run.info.run_id for run in children] == [made_by["train"]]  # the one toy stage that tells MLflow
    table = json.loads((artifacts / "stages.json").read_text())
    assert table["columns"] == ["stage", "state", "why", "seconds", "run_id"]
    assert sorted(row[0] for row in table["data"]) == sorted(STAGES)


def test_prefect_saw_one_flow_and_a_task_per_stage(first: tuple[Project, Flow]) -> None:
    """In the project's own Prefect home, and nothing of it is left running."""
    project, _ = first
    with sqlite3.connect(project.folder / ".scratch/prefect/prefect.db") as database:
        assert database.execute("select state_type from flow_run").fetchall() == [("COMPLETED",)]
        tasks = dict(database.execute("select name, state_name from task_run").fetchall())
    assert tasks == dict.fromkeys(STAGES, "Ran")
    wait_until(lambda: not project.processes())


def test_again_nothing_runs_and_the_runs_are_linked(finished: Project) -> None:
    before = finished.journal()
    flow = finished.align()
    assert flow.code == 0, flow.err
    assert flow.plan() == flow.happened() == dict.fromkeys(STAGES, "cached")
    assert finished.journal() == before
    assert "│ a-0 " in flow.out
    newest = finished.pipelines()[0]
    assert newest.info.status == "FINISHED"
    for name in STAGES:
        assert stage_tags(newest)[name.replace("@", ".")] == f"cached:{finished.receipt(name)['run_id']}"
    assert newest.data.metrics["train/accuracy"] == 0.5


def test_a_number_changed_and_put_back(finished: Project, server: str) -> None:
    made_by = {name: finished.receipt(name)["run_id"] for name in STAGES}
    finished.set(work__a__scale=5)
    flow = finished.align(PREFECT_API_URL=server)
    assert flow.happened() == dict.fromkeys(STAGES, "cached") | {"work@a": "ran", "evaluate": "ran"}
    assert finished.receipt("work@a")["run_id"] != made_by["work@a"]
    assert "params work.a.scale 2 → 5" in flow.out

    before = finished.journal()
    finished.set(work__a__scale=2)
    flow = finished.align(PREFECT_API_URL=server)
    assert flow.plan() == dict.fromkeys(STAGES, "cached") | {"work@a": "restore", "evaluate": "restore"}
    assert flow.happened() == dict.fromkeys(STAGES, "cached") | {"work@a": "restored", "evaluate": "restored"}
    assert finished.journal() == before
    tags = stage_tags(finished.pipelines()[0])
    assert tags["work.a"] == f"restored:{made_by['work@a']}"
    assert tags["evaluate"] == f"restored:{made_by['evaluate']}"


def test_a_failure_stops_only_what_depends_on_it(finished: Project, server: str) -> None:
    finished.set(fragile__fail=True, work__a__scale=4, runtime__device="cuda")
    flow = finished.align(PREFECT_API_URL=server, CUDA_VISIBLE_DEVICES="GPU-7")
    assert flow.code == 1
    expected = {"fragile": "failed", "after_fragile": "not run", "work@a": "ran", "evaluate": "ran"}
    assert flow.happened() == dict.fromkeys(STAGES, "cached") | expected
    assert "because fragile failed" in flow.out
    assert flow.err.strip() == "fragile failed: fragile: told to fail by fragile.fail (see .scratch/logs/fragile.log)"
    newest = finished.pipelines()[0]
    assert newest.info.status == "FAILED"
    assert stage_tags(newest)["fragile"] == "failed"
    assert stage_tags(newest)["after_fragile"] == "not run"
    assert not (finished.folder / "out/fragile.json").exists()
    assert "work@a        │ work@a at work on GPU-7" in flow.out  # meta: {gpus: 1}
    assert "evaluate      │ evaluate at work on\n" in flow.out  # asks for none: sees none
    prefect = last_flow_run(server)
    assert prefect["state_type"] == "FAILED"
    states = {run["name"]: run["state_name"] for run in prefect["tasks"]}
    expected = {"fragile": "Failed", "after_fragile": "NotReady", "work@a": "Ran", "evaluate": "Ran"}
    assert states == dict.fromkeys(STAGES, "Cached") | expected


@pytest.mark.parametrize(
    ("values", "arguments", "environment", "sentence"),
    [
        ({"train__learning_rate": "fast"}, [], {}, "`train.learning_rate` is 'fast'"),
        ({"runtime__device": "cuda"}, [], {"CUDA_VISIBLE_DEVICES": ""}, "stage work@a asks for 1 GPUs (meta.gpus in dvc.yaml)"),
        ({}, ["--until", "trian"], {}, "dvc.yaml has no stage `trian`; did you mean `train`?"),
        ({}, [], {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "the Prefect server http://127.0.0.1:9/api does not answer"),
        ({}, [], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "the tracking server http://127.0.0.1:9 does not answer"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_runs(
    finished: Project, values: dict[str, Any], arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    finished.set(**values)
    flow = finished.align(*arguments, **environment)
    assert flow.code == 1
    assert sentence in flow.err
    assert len(flow.err.strip().splitlines()) == 1
    assert len(finished.pipelines()) == 1
