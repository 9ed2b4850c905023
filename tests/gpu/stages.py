"""Stages of tests/project.py within this process, on any device and without MLflow, which a GPU machine need not have."""

import contextlib
import importlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tasks.core.config import RuntimeConfig
from tasks.core.stage import Stage
from tests.project import PARAMS, Project, make, write_params

WORK = ("train", "collect", "evaluate")  # what the work of a stage is called in its module


class Silence:
    """A tracker that forgets what it is told."""

    run_id = pipeline_run_id = ""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class Unrecorded(Stage):
    """A stage that knows how long its steps took."""

    tracker: Any = Silence()
    seconds: Sequence[float] = ()

    def steps(self, total: int) -> Iterator[int]:
        self.seconds = []
        for step in super().steps(total):
            began = now()
            yield step
            self.seconds.append(now() - began)


def now() -> float:
    """The time once the device has done all it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_project(folder: Path, device: str, changes: dict[str, Any]) -> Path:
    """What the stages before base_model write, and the params with these namespaces changed."""
    folder.mkdir()
    (folder / "none.db").touch()
    make(folder, folder / "none.db", None)
    set_device(folder, device, changes)
    return folder


def set_device(folder: Path, device: str, changes: dict[str, Any]) -> None:
    write_params(folder, PARAMS | changes | {"runtime": PARAMS["runtime"] | {"device": device}})


def work(folder: Path, name: str, publish: bool = True) -> Unrecorded:
    """The stage after its work, with its outputs in place, or left where nobody looks for them."""
    module, _, seed = Project(folder, None).module(name).partition(" --seed ")
    imported = importlib.import_module(module)
    does = next(getattr(imported, verb) for verb in WORK if hasattr(imported, verb))
    with contextlib.chdir(folder), mock.patch("tasks.prompt_oirl.fit.register"):  # which writes an MLflow model
        stage = Unrecorded(name, does.__annotations__["config"].load(), RuntimeConfig.load(), int(seed) if seed else None)
        does(stage.config, stage)
        if publish:
            stage.finish()
    return stage
