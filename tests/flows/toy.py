"""A small DVC project whose stages are real processes of no work, and `python -m flows.align` run on it as a user would."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from tests.processes import PATIENCE

ROOT = Path(__file__).parents[2]

FILES = {
    "params.yaml": """
        runtime: {seed: 0, threads: 1, device: cpu}
        prepare: {rows: 3}
        train: {num_steps: 2, learning_rate: 0.003, seconds_per_step: 0.0}
        work:
          names: [a, b]
          a: {scale: 2, seconds: 0.1}
          b: {scale: 3, seconds: 0.1}
        fragile: {fail: false}
        """,
    "dvc.yaml": """
        stages:
          prepare:
            cmd: python -m toy.prepare
            deps: [toy/light.py, toy/prepare.py]
            params: [prepare]
            outs: [data/rows.json, runs/prepare.json]
          train:
            cmd: python -m toy.train
            deps: [toy/light.py, toy/train.py]
            params: [train]
            outs: [models/train, runs/train.json]
          work:
            matrix:
              name: ${work.names}
            cmd: python -m toy.work ${item.name}
            deps: [data/rows.json, toy/light.py, toy/work.py]
            params: ["work.${item.name}"]
            outs: ["out/made/${item.name}", "runs/work@${item.name}.json"]
            meta: {gpus: 1}
          fragile:
            cmd: python -m toy.fragile
            deps: [data/rows.json, toy/light.py, toy/fragile.py]
            params: [fragile]
            outs: [out/fragile.json, runs/fragile.json]
          after_fragile:
            cmd: python -m toy.after_fragile
            deps: [out/fragile.json, toy/light.py, toy/after_fragile.py]
            outs: [out/after_fragile.json, runs/after_fragile.json]
          evaluate:
            cmd: python -m toy.evaluate
            deps: [models/train, out/made, toy/light.py, toy/evaluate.py]
            metrics: [reports/metrics.json]
            outs: [runs/evaluate.json]
        """,
    "toy/__init__.py": "",
    "toy/light.py": '''
        """A stage without MLflow: its outputs, a receipt, and a line in a journal of when it ran."""

        import json, os, sys, time, uuid
        from pathlib import Path

        import yaml


        def params(*keys):
            values = yaml.safe_load(Path("params.yaml").read_text())
            for key in keys:
                values = values[key]
            return values


        def run(name, out, value, seconds=0.0):
            journal("start", name)
            print(f"{name} at work on {os.environ.get('CUDA_VISIBLE_DEVICES', 'no device')}", flush=True)
            time.sleep(seconds)
            while Path(f"hold.{name}").exists():  # until a test has seen what it waits for
                time.sleep(0.02)
            write(out, value)
            receipt = {"run_id": uuid.uuid4().hex, "pipeline_run_id": os.environ.get("REALIGN_PIPELINE_RUN_ID"),
                       "metrics": {"value": float(len(json.dumps(value)))}}
            write(f"runs/{name}.json", receipt)
            journal("end", name)


        def write(path, value):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(json.dumps(value))


        def journal(what, name):
            with open("journal.txt", "a") as file:
                file.write(f"{what} {name} {os.getpid()} {time.time()}\\n")
        ''',
    "toy/prepare.py": """
        from tasks.core.config import Config
        from toy.light import params, run

        class PrepareConfig(Config):
            namespace = "prepare"
            rows: int

        if __name__ == "__main__":
            run("prepare", "data/rows.json", list(range(params("prepare", "rows"))))
        """,
    "toy/train.py": """
        import json, time
        from tasks.core.config import Config
        from tasks.core.run import run
        from tasks.core.stage import Stage
        from toy.light import journal

        class TrainConfig(Config):
            namespace = "train"
            num_steps: int
            learning_rate: float
            seconds_per_step: float

        def work(config: TrainConfig, stage: Stage) -> None:
            journal("start", "train")
            for step in range(config.num_steps):
                time.sleep(config.seconds_per_step)
                stage.log(step, {"loss/train": 1.0 / (step + 1)})
            out = stage.out("models/train")
            out.mkdir(parents=True, exist_ok=True)
            (out / "weights.json").write_text(json.dumps(config.learning_rate))
            stage.record(accuracy=0.5)
            journal("end", "train")

        if __name__ == "__main__":
            run(TrainConfig, work)
        """,
    "toy/work.py": """
        import sys
        from toy.light import params, run

        if __name__ == "__main__":
            name = sys.argv[1]
            mine = params("work", name)
            run(f"work@{name}", f"out/made/{name}/result.json", mine["scale"], mine["seconds"])
        """,
    "toy/fragile.py": """
        import sys
        from toy.light import params, run

        if __name__ == "__main__":
            if params("fragile", "fail"):
                sys.exit("fragile: told to fail by fragile.fail")
            run("fragile", "out/fragile.json", 1)
        """,
    "toy/after_fragile.py": """
        from toy.light import run

        if __name__ == "__main__":
            run("after_fragile", "out/after_fragile.json", 1)
        """,
    "toy/evaluate.py": """
        import json
        from pathlib import Path
        from toy.light import run

        if __name__ == "__main__":
            found = {path.parent.name: json.loads(path.read_text()) for path in Path("out/made").glob("*/result.json")}
            policy = {name: {"0": {"accuracy": value / 10, "kl": 0.1}} for name, value in sorted(found.items())}
            run("evaluate", "reports/metrics.json", {"sft": {"accuracy": 0.4}, "policy": policy})
        """,
}


@dataclass
class Flow:
    """A finished run of `python -m flows.align`."""

    code: int
    out: str
    err: str

    def table(self, title: str) -> dict[str, list[str]]:
        """The rows of a printed table: {stage: the other columns}."""
        lines = self.out.splitlines()
        begin = next(number for number, line in enumerate(lines) if line.strip() == title)
        header = lines[begin + 1]
        starts = [header.index(word) for word in header.split()]
        rows = {}
        for line in lines[begin + 2 :]:
            if line.strip() in ("what happened", "results") or " │ " in line or line.startswith("every run:"):
                break
            cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
            rows[cells[0]] = cells[1:]
        return rows

    def plan(self) -> dict[str, str]:
        return {stage: cells[0] for stage, cells in self.table("plan").items()}

    def happened(self) -> dict[str, str]:
        return {stage: cells[0] for stage, cells in self.table("what happened").items()}


class Project:
    """The toy project in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW", "CUDA", "REALIGN"))
        } | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "COLUMNS": "200"}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.align", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment | environment, stdout=pipe, stderr=pipe, text=True
        )

    def align(self, *arguments: str, **environment: str) -> Flow:
        return self.end(self.start(*arguments, **environment))

    def end(self, process: subprocess.Popen[str]) -> Flow:
        out, err = process.communicate(timeout=PATIENCE)
        return Flow(process.returncode, out, err)

    @contextmanager
    def hold(self, *stages: str) -> Iterator[None]:
        """These light stages do not end before the block does."""
        files = [self.folder / f"hold.{stage}" for stage in stages]
        for file in files:
            file.touch()
        try:
            yield
        finally:
            for file in files:
                file.unlink()

    def set(self, **values: Any) -> None:
        """params.yaml: set("train.num_steps", 3) as train__num_steps=3."""
        yaml = YAML()
        file = self.folder / "params.yaml"
        params = yaml.load(file)
        for path, value in values.items():
            *above, last = path.split("__")
            inner = params
            for key in above:
                inner = inner[key]
            inner[last] = value
        yaml.dump(params, file)

    def journal(self) -> list[tuple[str, str, int, float]]:
        """(start or end, stage, pid, time) of every light stage, in order."""
        file = self.folder / "journal.txt"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [(what, name, int(pid), float(at)) for what, name, pid, at in lines]

    def receipt(self, stage: str) -> dict[str, Any]:
        return json.loads((self.folder / f"runs/{stage}.json").read_text())

    def mlflow(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self) -> list[Any]:
        """All MLflow runs, the newest first."""
        client = self.mlflow()
        return list(client.search_runs([client.get_experiment_by_name("realign").experiment_id]))

    def pipelines(self) -> list[Any]:
        return [run for run in self.runs() if run.data.tags.get("flow") == "align"]

    def processes(self) -> list[psutil.Process]:
        """Everything still alive that works in this project's folder. It may end any moment: `info` keeps name and parent."""
        return self._at_work(lambda folder: folder == self.folder)

    def everywhere(self) -> list[psutil.Process]:
        """The same with the checkouts inside of it."""
        return self._at_work(lambda folder: folder.is_relative_to(self.folder))

    def _at_work(self, where: Callable[[Path], bool]) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["name", "ppid"]):
            try:
                if process.status() != psutil.STATUS_ZOMBIE and where(Path(process.cwd())):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found
