"""A tiny stage in a folder of its own: it trains two numbers, and gets into the trouble that TROUBLE asks for."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Done, Nursery, python

PARAMS = """
runtime: {seed: 0, threads: 1, device: cpu}
tiny: {num_steps: 12, learning_rate: 0.1}
policy:
  tiny: {num_steps: 3, learning_rate: 0.1}
"""
SCRIPT = '''
"""Fits y = ax + b to what input.txt holds."""

import os
import signal
import sys
import time

import torch

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import write_json, write_table
from tasks.core.run import run


class TinyConfig(Config):
    namespace = "policy.tiny" if "--seed" in sys.argv else "tiny"

    num_steps: int
    learning_rate: float


def trouble(step):
    """TROUBLE is "<kind> <step>", perhaps twice: where something happens that is no part of the work."""
    kind, at, *then = os.environ.get("TROUBLE", "none -1").split()
    if then and step == int(then[1]):
        kind = then[0]
    elif step != int(at):
        return 0.0
    match kind:
        case "input":
            raise InputError("row 7 of input.txt is empty; fill it in")
        case "crash":
            raise RuntimeError("a bug")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "term":
            os.kill(os.getpid(), signal.SIGTERM)
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        case "nan":
            return float("nan")
        case "wait":
            print("waiting", flush=True)
            while not os.path.exists("go"):
                time.sleep(0.01)
    return 0.0


def work(config, stage):
    target = float(stage.dep("input.txt").read_text())
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
    stage.resume(model=model, optimizer=optimizer)
    for step in stage.steps(config.num_steps):
        x = torch.rand(8, 1, generator=seeds.generator(stage.seed, "x", step))
        loss = (model(x) - target * x).square().mean() + trouble(step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        stage.log(step, {"loss/square": loss.detach(), "train/a": model.weight.item()},
                  samples=[{"step": step, "prompt": "x", "completion": "y", "score": 0.5}])
    stage.record(final_loss=loss.item())
    folder = stage.out("models/tiny")
    folder.mkdir(exist_ok=True)
    if full := os.environ.get("FULL_DISK"):
        (folder / full).symlink_to("/dev/full")
    if extra := os.environ.get("EXTRA_FILE"):
        write_json(folder / extra, 1)
    write_json(folder / "weights.json", [model.weight.item(), model.bias.item()])
    write_table(folder / "weights.parquet", [{"a": model.weight.item()}])
    trouble(-2)
    write_json(stage.out("data/line.json"), {"target": target})
    stage.report("reports/tiny", {"rows": [{"x": 1.0}]})


if __name__ == "__main__":
    run(TinyConfig, work)
'''


class Tiny:
    def __init__(self, folder: Path, nursery: Nursery):
        self.folder, self.nursery = folder, nursery

    def run(self, trouble: str = "none -1", **environment: str) -> Done:
        """A checkpoint after every step that may have one."""
        return self.nursery.run(self.folder, "tiny.py", TROUBLE=trouble, **{"REALIGN_CHECKPOINT_SECONDS": "0"} | environment)

    def plainly(self, **environment: str) -> Done:
        return python(self.folder, "tiny.py", **environment)

    def outputs(self) -> dict[str, bytes]:
        """Everything that another stage may read."""
        files = [file for top in ("models", "data", "reports") for file in (self.folder / top).rglob("*") if file.is_file()]
        return {file.relative_to(self.folder).as_posix(): file.read_bytes() for file in files}

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self) -> list[Any]:
        client = self.client()
        experiment = client.get_experiment_by_name("realign")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def steps(self, metric: str = "loss/square") -> list[int]:
        """Steps of the only run at which the metric has a point, as often as it has one."""
        (run,) = self.runs()
        return sorted(point.step for point in self.client().get_metric_history(run.info.run_id, metric))


@pytest.fixture
def tiny(tmp_path: Path, nursery: Nursery, database: Path) -> Tiny:
    shutil.copy(database, tmp_path / "mlflow.db")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "input.txt").write_text("3.0")
    (tmp_path / "tiny.py").write_text(SCRIPT)
    return Tiny(tmp_path, nursery)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, database: Path) -> Tiny:
    """The tiny stage after one run that nothing disturbed. Do not change it."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(database, folder / "mlflow.db")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "input.txt").write_text("3.0")
    (folder / "tiny.py").write_text(SCRIPT)
    whole = Tiny(folder, nursery)
    assert whole.run().code == 0
    return whole
