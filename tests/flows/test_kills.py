"""Twenty processes are killed at random while a pipeline runs: flows, their helpers, dvc, stages. No result shows it."""

import random
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from dvc.utils.serialize import load_yaml

from tests.flows.toy import Project
from tests.processes import PATIENCE, wait_until

KILLS = 20
STAGE = '''
"""A random walk of some numbers: each step depends on the one before it and on all that the stage has read."""

import sys
import time

import torch

from tasks.core import seeds
from tasks.core.config import Config
from tasks.core.files import write_json
from tasks.core.run import run
from tasks.core.stage import Stage

NAME = __spec__.name.rpartition(".")[2]


class WalkConfig(Config):
    namespace = NAME

    num_steps: int
    reads: list[str]


def work(config: WalkConfig, stage: Stage) -> None:
    start = [stage.dep(f"out/{name}").stat().st_size for name in config.reads]
    walk = torch.nn.Linear(4, 1)
    torch.nn.init.constant_(walk.weight, float(sum(start)))
    torch.nn.init.zeros_(walk.bias)
    optimizer = torch.optim.AdamW(walk.parameters(), lr=0.1)
    stage.resume(walk=walk, optimizer=optimizer)
    for step in stage.steps(config.num_steps):
        x = torch.rand(8, 4, generator=seeds.generator(stage.seed, "x", step))
        loss = walk(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(0.05)
        stage.log(step, {"loss/walk": loss.detach()})
    stage.record(last=loss.item())
    write_json(stage.out(f"out/{NAME}") / "weights.json", walk.weight.tolist())


if __name__ == "__main__":
    run(WalkConfig, work)
'''
READS: dict[str, list[str]] = {"first": [], "left": ["first"], "right": ["first"], "last": ["left", "right"]}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """first → left, right → last; every stage is a real one, with checkpoints."""
    stages, params = "stages:\n", "runtime: {seed: 0, threads: 1, device: cpu}\n"
    (tmp_path / "walks").mkdir()
    for name, reads in READS.items():
        deps = ", ".join([f"walks/{name}.py", *(f"out/{read}" for read in reads)])
        stages += f"  {name}:\n    cmd: python -m walks.{name}\n    deps: [{deps}]\n    params: [{name}, runtime]\n"
        stages += f"    outs: [out/{name}, runs/{name}.json]\n"
        params += f"{name}: {{num_steps: 30, reads: [{', '.join(reads)}]}}\n"
        (tmp_path / f"walks/{name}.py").write_text(STAGE)
    (tmp_path / "dvc.yaml").write_text(stages)
    (tmp_path / "params.yaml").write_text(params)
    for command in ("git init -q", f"{sys.executable} -m dvc init -q"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    return Project(tmp_path)


def hashes(project: Project) -> dict[str, str]:
    lock = load_yaml(project.folder / "dvc.lock")["stages"]
    outs = [out for stage in lock.values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if not out["path"].startswith("runs/")}


def test_twenty_kills_change_nothing(project: Project, database: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    shutil.copy(database, project.folder / "mlflow.db")
    twin = Project(Path(shutil.copytree(project.folder, tmp_path_factory.mktemp("twin") / "project")))
    undisturbed = twin.align()
    assert undisturbed.code == 0, undisturbed.err

    chance = random.Random(0)
    killed: list[str] = []
    process = start(project)
    while len(killed) < KILLS:
        time.sleep(chance.uniform(0.5, 3.0))
        if process.poll() is not None:
            wait_until(lambda: not project.processes())
            if process.returncode == 0:  # too few kills to keep it from being done: from the beginning
                for made in ("out", "runs", ".dvc/cache"):
                    shutil.rmtree(project.folder / made)
                (project.folder / "dvc.lock").unlink()
            process = start(project)
            continue
        with suppress(psutil.NoSuchProcess, IndexError):  # it, or all of them, ended in this moment
            victim = chance.choice(project.processes())
            words = f"{victim.name()} {' '.join(victim.cmdline()[2:4])}"
            victim.kill()
            killed.append(words)
        if (project.folder / "dvc.lock").exists():
            hashes(project)  # it can be read: never a piece
    process.wait(timeout=PATIENCE)
    wait_until(lambda: not project.processes())
    flow = project.align()
    assert flow.code == 0, (flow.err, killed)

    assert hashes(project) == hashes(twin)
    assert "RUNNING" not in {run.info.status for run in project.runs()}
    assert not list(project.folder.glob(".scratch/spool/*.jsonl"))
    for name in READS:
        run_id = project.receipt(name)["run_id"]
        steps = [point.step for point in project.mlflow().get_metric_history(run_id, "loss/walk")]
        assert sorted(steps) == list(range(30)), (name, killed)


def start(project: Project) -> subprocess.Popen[bytes]:
    with (project.folder / "flow.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.align"],
            cwd=project.folder,
            env=project.environment | {"REALIGN_CHECKPOINT_SECONDS": "0"},
            stdout=log,
            stderr=log,
        )
