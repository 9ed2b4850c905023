"""The stage as a process: every figure with its interval, the same bytes again, no torch; and params it refuses."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.core.config import read_params
from tasks.core.files import digest, read_json, read_table
from tasks.report.run.tabular import CLAIMS
from tasks.tabular.study import ImitationConfig
from tests.processes import REPO, Nursery
from tests.project import write_params

SMALL = {
    "seeds": 3, "bootstrap_samples": 100, "looks": 20, "rarity": 0.9, "horizons": [4, 8], "num_labels": 64,
    "dagger_iterations": 4, "test_episodes": 200, "positions": 5, "walk_horizon": 5, "num_demonstrations": 400,
    "irl_steps": 30, "irl_episodes": 30, "gail_steps": 10, "apprenticeship_epsilon": 0.05,
}  # fmt: skip
METHODS = ["behavior_cloning", "dagger", "gail"]


@pytest.fixture(scope="module")
def params():
    return read_params(REPO / "params.yaml")["imitation"]


def run(folder: Path, nursery: Nursery, database: Path, values):
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")
    write_params(folder, {"runtime": {"seed": 0, "threads": 1, "device": "cpu"}, "imitation": values})
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')\n")  # found before the real one
    return nursery.run(folder, "tasks.tabular.study", PYTHONPATH=f"{folder}:{REPO}")


def test_every_figure_is_recorded_with_its_interval(tmp_path, nursery, database, params):
    done = run(tmp_path / "here", nursery, database, params | SMALL)
    assert done.code == 0, done.stderr
    report = tmp_path / "here/reports/imitation"
    metrics = read_json(report / "metrics.json")
    assert metrics.keys() == {f"{key}{end}" for key in CLAIMS for end in ("", "_low", "_high")}
    assert all(metrics[f"{key}_low"] <= metrics[key] <= metrics[f"{key}_high"] for key in CLAIMS)
    rows = read_table(report / "horizons.parquet")
    assert [(row["method"], row["horizon"]) for row in rows] == [(name, steps) for name in METHODS for steps in (4, 8)]
    assert all(row["error_low"] <= row["error"] <= row["error_high"] for row in rows)
    receipt = read_json(tmp_path / "here/runs/imitation.json")
    assert receipt["outs"].keys() == {"reports/imitation"}
    assert receipt["metrics"] == metrics
    again = run(tmp_path / "again", nursery, database, params | SMALL)
    assert again.code == 0, again.stderr
    assert digest(tmp_path / "again/reports/imitation") == digest(report)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"horizons": [8]}, r"horizons \[8\] must be two or more, ascending"),
        ({"horizons": [16, 8]}, "ascending"),
        ({"num_labels": 1000}, r"num_labels \(1000\) must be a multiple of dagger_iterations x horizon"),
        ({"rarity": 1.0}, "rarity"),
        ({"seeds": 1}, "seeds"),
        ({"gail_smoothing": 0.0}, "gail_smoothing"),
        ({"looks": 0}, "looks"),
    ],
)
def test_params_that_cannot_be_studied_are_refused(params, change, says):
    assert ImitationConfig.model_validate(params)
    with pytest.raises(ValidationError, match=says):
        ImitationConfig.model_validate(params | change)
