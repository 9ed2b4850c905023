"""Every command of the README is run: here, or in the test that is named for it."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ENVIRONMENT, PATIENCE, REPO
from tests.smoke.checkout import checkout, readme_commands, variants

RUN_ELSEWHERE = {
    "dvc repro": "tests/smoke/test_pipeline.py",
    "dvc metrics show": "tests/smoke/test_pipeline.py",
    "python -m flows.align": "tests/smoke/test_pipeline.py",
    "python -m flows.compare": "tests/flows/test_compare.py",
    "python -m flows.rerun": "tests/flows/test_rerun.py",
}
MAKE = {
    "make align": "python -m flows.align",
    "make zoo": "python -m flows.compare --name zoo --seeds 0,1,2 --set policy.algorithms=all",
    "make zoo REWARD=verifier": "--set 'reward.weights={verifier: 1.0}'",
    "make test": "pytest",
    "make ui": "mlflow server",
    "make check": "ruff check",
    "make server": "python -m flows.server",
    "make deploy": "python -m flows.deploy",
    "make worker POOL=gpu": "python -m flows.worker gpu",
    "make bench-clock": "python -m tests.bench.clock",
}


def test_no_command_is_left_out() -> None:
    commands = {command for command in readme_commands() if not command.startswith("dvc exp run")}
    commands = {" ".join(command.split()[:3]) if command.startswith("python") else command for command in commands}
    assert commands - {"source .venv/bin/activate"} == RUN_ELSEWHERE.keys() | MAKE.keys()
    for command, file in RUN_ELSEWHERE.items():
        assert f'"{command.split()[-1]}"' in (REPO / file).read_text()
    assert len(variants()) >= 5


@pytest.mark.parametrize("command", MAKE)
def test_make_does_what_it_says(command: str) -> None:
    shown = subprocess.run([*command.split(), "--dry-run"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert MAKE[command] in shown


@pytest.mark.parametrize("name", ["svamp", "gsm8k", "mawps", "stories", "openings", "harmless", "solutions"])
def test_variant_starts_as_written(name: str, tmp_path: Path, shared: Path) -> None:
    """The literal command, up to its first stage; tests/smoke/test_variants.py takes the settings to the end."""
    folder = checkout(tmp_path)
    command = next(command for command in readme_commands() if command.startswith(f"dvc exp run --name {name} "))
    environment = ENVIRONMENT | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REALIGN_SHARED": str(shared),
        "DVC_NO_ANALYTICS": "1",
    }
    words = shlex.split(command.removesuffix(" reward_model"))
    done = subprocess.run(
        [*words, "prepare_data"], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"Ran experiment\(s\): {name}", done.stdout)
    assert (folder / "data/prepared/prompts.parquet").exists()
