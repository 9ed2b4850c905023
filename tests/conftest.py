"""What all tests share: the optional data folder, a nursery of processes, and a small project whose stages have run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub: no test asks the internet

from tests.processes import Nursery
from tests.project import STAGES, Project, make

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would our children


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data sets, models and reference numbers; REALIGN_SHARED, or ../shared beside the checkout."""
    folder = Path(os.environ.get("REALIGN_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("the shared data folder is absent; set REALIGN_SHARED to it")
    return folder


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="session")
def database(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes longer than most stages here."""
    folder = tmp_path_factory.mktemp("database")
    (folder / "make.py").write_text(
        f"from mlflow import MlflowClient\nMlflowClient(tracking_uri='sqlite:///{folder}/mlflow.db').search_experiments()\n"
    )
    assert nursery.run(folder, "make.py").code == 0
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def project(nursery: Nursery, database: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Every stage of tests/project.py after one complete run. Do not change it: take a copy."""
    project = make(tmp_path_factory.mktemp("project"), database, nursery)
    for stage in STAGES:
        project.done[stage] = project.run(stage)
        assert project.done[stage].code == 0, project.done[stage].stderr
    return project
