"""A choice of prompts that is fitted and registered without a process: words alone, two prompts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.tracking import Tracker
from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.fit import register
from tasks.prompt_oirl.reference import Reference
from tasks.prompt_oirl.selector import fit
from tests.tasks.prompt_oirl.test_selector import PROMPTS, rows_of


def register_fit(folder: Path, prompts: dict[str, str] = PROMPTS) -> str:
    """As the stage does it, into the registry of this folder's project; returns the run."""
    rows = rows_of(60, prompts=prompts)
    answers = Answers.of(rows)
    fitted = fit(answers, None, "kernel", seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    fitted.save(folder)
    Reference.of(fitted.features(answers.queries), answers, seed=0).save(folder / "reference.npz")
    tracker = Tracker("prompt_oirl", {}, {})
    stage: Any = SimpleNamespace(metrics={"gain": 0.1, "gain_low": 0.05, "contaminated": 0}, tracker=tracker)
    register(stage, folder, answers.queries[:2])
    tracker.finish("FINISHED")
    return tracker.run_id


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path) -> Path:
    """The folder of a project with an MLflow database that knows nothing yet."""
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def registered(registry: Path) -> Path:
    """The same with a fitted choice as version 1, `newest`."""
    register_fit(registry / "models/prompt_oirl")
    return registry
