"""Every command of README, CONTRIBUTING and docs is run or checked: here, or in the test that is named for it."""

import shlex
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.compare import read_arguments
from flows.engine.graph import dotted
from flows.engine.sweep.axes import make_sweep
from tasks.core.config import read_params
from tests.processes import REPO, Nursery
from tests.smoke.checkout import assign, checkout, documented_commands, variants
from tests.smoke.test_imported_log import BY_QUESTION

RUN_ELSEWHERE = {
    "dvc repro": "tests/smoke/test_pipeline.py",
    "dvc metrics show": "tests/smoke/test_pipeline.py",
    "python -m flows.align": "tests/smoke/test_pipeline.py",
    "python -m flows.rerun": "tests/flows/test_rerun.py",
    "python -m flows.promote": "tests/flows/test_gate.py",
    "python -m flows.rollback": "tests/flows/test_gate.py",
    "mlflow models serve": "tests/tasks/models/test_served.py",
    "python -m tasks.data.traces": "tests/tasks/data/test_traces.py",
    "python -m tasks.prompt_oirl.drift": "tests/tasks/prompt_oirl/test_drift.py",
    "python -m docs.record": "tests/docs/test_record.py",
    "python -m docs.build": "tests/docs/test_build.py",
    "python -m tests.rules.deps": "tests/rules/test_dvc.py",
}
OF_OTHERS = ("source .venv/bin/activate", "pip install", "pre-commit ", "git ", "ruff ", "mypy", "pytest")
MAKE = {
    "make align": "python -m flows.align",
    "make zoo": "python -m flows.compare --name zoo --seeds 0,1,2 --set policy.algorithms=all",
    "make zoo REWARD=verifier": "--set 'reward.weights={verifier: 1.0}'",
    "make takeaways": "python -m flows.compare --name takeaways --list data/variants/takeaways.yaml --seeds 0,1,2,3,4",
    "make smollm2": "python -m flows.compare --name smollm2 --list data/variants/smollm2.yaml",
    "make test": "pytest",
    "make ui": "python -m tasks.core.tracking_server",
    "make check": "ruff check",
    "make deps": "python -m tests.rules.deps",
    "make docs": "mkdocs build --strict",
    "make server": "python -m flows.server",
    "make deploy": "python -m flows.deploy",
    "make worker POOL=gpu": "python -m flows.worker gpu",
    "make bench": "python -m tests.bench.speed",
    "make bench-rounding": "python -m tests.bench.rounding .scratch/compare/default",
    "make bench-clock": "python -m tests.bench.clock",
    "make gpu-check": "python3 -m tests.gpu.check",
    "make machines-check": "python -m tests.machines.check",
}
COMMANDS = documented_commands()
COMPARE, EXPERIMENTS, MAKES = (
    [command for command in COMMANDS if command.startswith(start)]
    for start in ("python -m flows.compare", "dvc exp run", "make ")
)


def test_no_command_is_left_out() -> None:
    others = [command for command in COMMANDS if command not in [*COMPARE, *EXPERIMENTS, *MAKES]]
    heads = {command: next((head for head in RUN_ELSEWHERE if command.startswith(head)), "") for command in others}
    assert [f"{COMMANDS[one]}: {one}" for one, head in heads.items() if not head and not one.startswith(OF_OTHERS)] == []
    for head in filter(None, heads.values()):
        assert head.split()[-1] in (REPO / RUN_ELSEWHERE[head]).read_text()
    assert len(COMPARE) >= 15
    assert MAKE.keys() <= set(MAKES)


@pytest.mark.parametrize("command", MAKES)
def test_make_does_what_it_says(command: str) -> None:
    shown = subprocess.run([*command.split(), "--dry-run"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert MAKE.get(command, "") in shown


@pytest.mark.parametrize("command", COMPARE)
def test_a_comparison_is_one_that_compare_takes(command: str) -> None:
    """Its file is there and params.yaml has every key; tests/flows/test_compare.py runs sweeps to their end."""
    words = shlex.split(command)[3:]
    options = list(zip(words[::2], words[1::2], strict=True))
    found = dict(options)
    assert found.keys() <= {"--set", "--seeds", "--list", "--name"}
    file = REPO / found["--list"] if "--list" in found else None
    arguments = read_arguments([value for option, value in options if option == "--set"], found.get("--seeds"), file)
    assert make_sweep(**arguments, name=found.get("--name")).variants


@pytest.mark.parametrize("command", EXPERIMENTS)
def test_an_experiment_names_params_and_a_stage_that_exist(command: str) -> None:
    words = shlex.split(command)
    settings = [words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "-S"]
    assert settings
    assert set(settings) <= set(dotted(read_params(REPO / "params.yaml")))
    assert words[-1] in YAML(typ="safe").load(REPO / "dvc.yaml")["stages"]


def test_the_experiment_on_a_released_log_is_the_one_that_is_run() -> None:
    """By tests/smoke/test_imported_log.py."""
    assert " ".join(BY_QUESTION.split()) in [" ".join(command.split()) for command in EXPERIMENTS]


@pytest.mark.parametrize("name", ["svamp", "gsm8k", "mawps", "stories", "openings", "harmless", "solutions"])
def test_a_variant_prepares_its_data(name: str, tmp_path: Path, nursery: Nursery, database: Path, shared: Path) -> None:
    """As written but for the rows; tests/smoke/test_variants.py takes several to the end, at small sizes."""
    folder = checkout(tmp_path)
    assign(folder, [*variants()[name], "prepare_data.max_rows=500"])
    (folder / "mlflow.db").write_bytes(database.read_bytes())
    done = nursery.run(folder, "tasks.data.prepare", REALIGN_SHARED=str(shared))
    assert done.code == 0, done.stderr
    assert (folder / "data/prepared/prompts.parquet").exists()
