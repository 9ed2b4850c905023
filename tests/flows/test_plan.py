"""The plan says what DVC then does, and why; bad input is one sentence before anything starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml

from flows.engine.graph import open_repo, read_graph
from flows.engine.plan import Step, make_plan
from flows.engine.preflight import complaint_about, modules_of
from tasks.core.errors import InputError
from tests.flows.toy import ROOT, Flow, Project


@pytest.fixture
def here(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(finished.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return finished


def plan(until: str | None = None) -> dict[str, Step]:
    with open_repo() as repo:
        graph = read_graph(repo)
        return make_plan(graph.until(until) if until else graph)


def actions(**others: str) -> dict[str, str]:
    names = ["prepare", "train", "work@a", "work@b", "fragile", "after_fragile", "evaluate"]
    return dict.fromkeys(names, "cached") | {key.replace("_at_", "@"): value for key, value in others.items()}


def planned() -> dict[str, str]:
    return {name: step.action for name, step in plan().items()}


def test_order_and_dependencies_are_those_of_dvc(here: Project) -> None:
    steps = plan()
    assert steps["evaluate"].upstream == ("train", "work@a", "work@b")
    assert steps["after_fragile"].upstream == ("fragile",)
    for name, step in steps.items():
        assert all(list(steps).index(need) < list(steps).index(name) for need in step.upstream)
    assert steps["work@a"].gpus == 1
    assert steps["train"].command == "python -m toy.train"


def test_nothing_changed_is_cached(here: Project) -> None:
    assert planned() == actions()


def test_a_number_names_itself_and_reaches_exactly_its_dependants(here: Project) -> None:
    here.set(train__learning_rate=0.002)
    steps = plan()
    assert planned() == actions(train="run", evaluate="depends")
    assert steps["train"].why == "params train.learning_rate 0.003 → 0.002"
    assert steps["evaluate"].why == "upstream train will run"


def test_every_other_reason(here: Project) -> None:
    assert planned() == actions()
    Path("toy/work.py").write_text(Path("toy/work.py").read_text() + "\n# changed\n")
    dvc_yaml = Path("dvc.yaml")
    dvc_yaml.write_text(dvc_yaml.read_text().replace("python -m toy.fragile", "python -W error -m toy.fragile"))
    Path("models/train/weights.json").write_text("[]")
    shutil.rmtree(".dvc/cache")
    steps = plan()
    assert steps["work@a"].why.startswith("toy/work.py changed")
    assert steps["fragile"].why.startswith("command changed")
    assert steps["prepare"].why == "data/rows.json not in DVC's cache; runs/prepare.json not in DVC's cache"
    Path("dvc.lock").unlink()
    assert plan()["prepare"].why == "never run"


def test_missing_outputs_are_restored_and_their_readers_stay(here: Project) -> None:
    """What the run cache will bring back is known by hash, so nothing behind it is even looked at."""
    shutil.rmtree("data")
    shutil.rmtree("out/made")
    steps = plan()
    assert planned() == actions(prepare="restore", work_at_a="restore", work_at_b="restore")
    assert steps["prepare"].why == "data/rows.json missing"


def test_a_chain_put_back_is_foreseen_and_dvc_agrees(here: Project) -> None:
    """The one test of the private functions in runcache.py: what they foresee is what `dvc repro` then does."""
    before = here.journal()
    here.set(prepare__rows=4, work__b__scale=5)
    with Repo() as repo:
        repo.reproduce()
    after = here.journal()
    assert len(after) > len(before)
    here.set(prepare__rows=3, work__b__scale=3)
    expected = actions(prepare="restore", work_at_a="restore", work_at_b="restore", fragile="restore", evaluate="restore")
    assert planned() == expected  # what after_fragile reads was the same throughout
    with Repo() as repo:
        done = repo.reproduce()
    assert {stage.addressing for stage in done} == {name for name, action in expected.items() if action == "restore"}
    assert here.journal() == after
    assert planned() == actions()


def test_what_another_machine_made_of_the_same_is_not_waited_for(here: Project, server: str) -> None:
    """dvc.lock came with git from a processor that rounds differently; what was made here of the same inputs is in the run
    cache."""
    before, mine = here.journal(), Path("dvc.lock").read_text()
    for digest in made("train").values():
        Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(digest, digest[::-1]))
    shutil.rmtree("models")
    Path("runs/train.json").unlink()
    assert planned() == actions(train="restore", evaluate="restore")  # which was made of the other's model
    assert here.align(PREFECT_API_URL=server).happened() == actions(train="restored", evaluate="restored")
    assert here.journal() == before
    assert Path("dvc.lock").read_text() == mine


def made(stage: str) -> dict[str, str]:
    """The hashes of its outputs in dvc.lock, as far as they are files."""
    return {out["path"]: out["md5"].removesuffix(".dir") for out in load_yaml("dvc.lock")["stages"][stage]["outs"]}


def test_a_chain_that_needs_one_new_result_is_not_promised(here: Project) -> None:
    here.set(prepare__rows=4)
    with Repo() as repo:
        repo.reproduce()
    here.set(prepare__rows=3, work__b__scale=7)
    assert planned() == actions(prepare="restore", work_at_a="restore", work_at_b="run", fragile="restore", evaluate="depends")


def test_until_takes_a_stage_or_a_matrix_with_all_it_needs(here: Project) -> None:
    assert list(plan("train")) == ["train"]
    assert list(plan("after_fragile")) == ["prepare", "fragile", "after_fragile"]
    assert list(plan("work")) == ["prepare", "work@a", "work@b"]
    assert list(plan("work@b")) == ["prepare", "work@b"]
    with pytest.raises(InputError, match="no stage `evalute`; did you mean `evaluate`"):
        plan("evalute")


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        (
            "params.yaml",
            "prepare: {rows: 3}",
            "prepair: {rows: 3}",
            "missing key `prepare`, which stage prepare reads; did you mean `prepair`",
        ),
        ("params.yaml", "names: [a, b]", "name: [a, b]", r"Could not find 'work.names'; did you mean `work.name`"),
        ("params.yaml", "prepare: {rows: 3}", "prepare: {rows: 3", "params.yaml"),
        ("dvc.yaml", "    cmd: python -m toy.prepare\n", "", "dvc.yaml.*required key not provided.*prepare"),
        (
            "dvc.yaml",
            "toy/prepare.py]",
            "toy/prepar.py]",
            "toy/prepar.py is missing: stage prepare reads it.*did you mean `prepare.py`",
        ),
        (
            "dvc.yaml",
            "deps: [toy/light.py, toy/prepare.py]",
            "deps: [out/after_fragile.json]",
            "both a dependency and an output in stages",
        ),
        ("dvc.yaml", "meta: {gpus: 1}", "meta: {gpus: one}", "work@a: meta.gpus is 'one'"),
    ],
)
def test_a_broken_project_is_one_sentence(here: Project, file: str, old: str, new: str, sentence: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))
    with pytest.raises(InputError, match=sentence) as refused:
        plan()
    assert "\n" not in str(refused.value)


def test_no_project_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no dvc\.yaml here"):
        plan()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(InputError, match="not inside of a DVC repository"):
        plan()


def test_preflight_finds_a_typo_of_a_late_stage(here: Project) -> None:
    steps = plan().values()
    keys = [key for step in steps for key in step.params]
    modules = [module for step in steps for module in modules_of(step.command)]
    assert "toy.evaluate" in modules
    assert "train" in keys
    check = f"from flows.engine.preflight import complaint_about; print(complaint_about({keys}, {modules}))"

    def complaint() -> str:
        return subprocess.run(
            [sys.executable, "-c", check], env=here.environment, text=True, capture_output=True
        ).stdout.strip()

    assert complaint() == ""
    here.set(train__learning_rate="fast")
    assert "`train.learning_rate` is 'fast'; it should be a valid number" in complaint()
    assert "python -m toy.missing cannot start: No module named" in complaint_about([], ["toy.missing"])


def test_first_flow_planned_what_it_did(first: tuple[Project, Flow]) -> None:
    _, flow = first
    assert flow.plan() == dict.fromkeys(actions(), "depends") | {"prepare": "run", "train": "run"}
    assert flow.happened() == dict.fromkeys(actions(), "ran")
