"""What all tests share: the optional data folder, a nursery of processes, and a small project whose stages have run.

Tests may run in several workers at a time (`pytest -n 2`). What is costly and only read is made once for all of them.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of huggingface_hub: no test asks the internet
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before any import of torch: two threads mostly spin

from tests.processes import Nursery, Once
from tests.project import STAGES, Project, make

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would our children

TESTS = Path(__file__).parent
STARTS_PROCESSES = {"nursery", "template"}  # whoever asks for one of these fixtures, or for one that is made with it
LONGEST_FIRST = ("learning", "smoke", "flows", "")  # folders: a long file that begins last leaves the other cores idle


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if STARTS_PROCESSES & set(getattr(item, "fixturenames", ())) or folder_of(item) in ("smoke", "flows"):
            item.add_marker("process")
    items.sort(key=order)


def order(item: pytest.Item) -> tuple[int, bool]:
    folder = folder_of(item)
    return LONGEST_FIRST.index(folder if folder in LONGEST_FIRST else ""), item.get_closest_marker("process") is None


def folder_of(item: pytest.Item) -> str:
    """`flows` of tests/flows/test_align.py."""
    return item.path.relative_to(TESTS).parts[0]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """once("project", fill): a folder that fill(folder) has filled, in the worker that asked first; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker in which it failed
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return get


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
def database(nursery: Nursery, once: Once) -> Path:
    """An empty MLflow database: making one takes longer than most stages here."""

    def fill(folder: Path) -> None:
        (folder / "make.py").write_text(
            f"from mlflow import MlflowClient\nMlflowClient(tracking_uri='sqlite:///{folder}/mlflow.db').search_experiments()\n"
        )
        done = nursery.run(folder, "make.py")
        assert done.code == 0, done.stderr

    return once("database", fill) / "mlflow.db"


@pytest.fixture(scope="session")
def project(nursery: Nursery, database: Path, once: Once) -> Project:
    """Every stage of tests/project.py after one complete run. Do not change it: take a copy."""

    def fill(folder: Path) -> None:
        project = make(folder, database, nursery)
        for stage in STAGES:
            done = project.run(stage)
            assert done.code == 0, done.stderr

    return Project(once("project", fill), nursery)
