"""A folder in which the data stages run as real processes, with the project's own data files and small numbers."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.core.config import read_params
from tasks.core.files import Row
from tests.processes import REPO, Done, Nursery

STAGES = {
    "prepare_data": "tasks.data.prepare",
    "validate_data": "tasks.data.validate data",
    "validate_preferences": "tasks.data.validate preferences",
    "validate_prompt_log": "tasks.data.validate prompt_log",
}


def write_csv(file: Path, rows: list[Row]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Workspace:
    """params: those of the repository; set("prepare_data.max_rows", 10) changes one."""

    def __init__(self, folder: Path, database: Path, nursery: Nursery, shared: Path | None = None):
        self.folder, self.nursery = folder, nursery
        self.environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
        for name in ("sources", "instructions", "expectations", "prompt_logs"):
            shutil.copytree(REPO / "data" / name, folder / "data" / name)
        shutil.copy(REPO / "data/arithmetic.yaml", folder / "data")
        shutil.copy(database, folder / "mlflow.db")
        self.params = read_params(REPO / "params.yaml")
        self.set("prepare_data.max_rows", 120)

    def set(self, key: str, value: Any) -> None:
        namespace, name = key.split(".")
        self.params[namespace][name] = value
        with (self.folder / "params.yaml").open("w") as stream:
            YAML(typ="safe").dump(self.params, stream)

    def run(self, stage: str) -> Done:
        return self.nursery.run(self.folder, STAGES[stage], **self.environment)

    def refused(self, stage: str) -> str:
        """The one sentence a stage refuses with; exit code 1, nothing else on stderr, nothing published."""
        done = self.run(stage)
        lines = done.stderr.splitlines()
        assert done.code == 1, done.stderr
        assert len(lines) == 1, done.stderr
        assert not (self.folder / "runs" / f"{stage}.json").exists()
        return lines[0]

    def write_sources(self, text: str) -> None:
        """A sources file of its own."""
        (self.folder / "sources.yaml").write_text(text)
        self.set("prepare_data.sources", "sources.yaml")


@pytest.fixture
def workspace(tmp_path: Path, database: Path, nursery: Nursery) -> Workspace:
    return Workspace(tmp_path, database, nursery)


@pytest.fixture
def use_shared(workspace: Workspace, shared: Path) -> Callable[[str], None]:
    """use_shared("gsm8k"): the sources file data/sources/gsm8k.yaml, with limits that real text fits."""

    def use(name: str) -> None:
        workspace.environment["REALIGN_SHARED"] = str(shared)
        workspace.set("prepare_data.sources", f"data/sources/{name}.yaml")
        workspace.set("task.max_prompt_tokens", 1200)
        workspace.set("task.max_new_tokens", 2000)

    return use
