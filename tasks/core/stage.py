"""One stage of dvc.yaml as a process: config in, outputs whole or absent, everything recorded.

    def work(config: SftConfig, stage: Stage) -> None: ...

The work calls the stage (stage.dep, stage.out, stage.log, ...); the stage never calls back. Its entry is tasks/core/run.py.
"""

import math
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from tasks.core import progress, seeds
from tasks.core.checkpoint import Checkpoint, Stateful
from tasks.core.config import Config, RuntimeConfig, flatten
from tasks.core.errors import InputError
from tasks.core.files import Row, digest, publish, write_json, write_table
from tasks.core.inputs import Inputs
from tasks.core.recorded_runs import known, mark
from tasks.core.tracking import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCRATCH = Path(".scratch")
RECEIPTS = Path("runs")
WRITTEN = ("dvc.lock", "environment.json")  # by every flow: changes that are not the user's
AnyConfig = TypeVar("AnyConfig", bound=Config)


class Stage:
    """What a stage may touch: its dependencies, its outputs, the tracker, its checkpoint."""

    def __init__(self, name: str, config: Config, runtime: RuntimeConfig, seed: int | None):
        self.name = name
        self.config = config
        self.runtime = runtime
        self.seed = seeds.derive(runtime.seed, name if seed is None else f"policy-{seed}")
        self.metrics: dict[str, float] = {}
        self._began = psutil.Process().create_time()  # imports are part of what a stage costs
        self.history: list[dict[str, Any]] = []
        self.samples: list[Row] = []
        self.start = 0  # first step still to do; more than 0 in a resumed run
        self._inputs = Inputs(self.seed, config, runtime)
        self._outs: dict[Path, Path] = {}
        self._scratch = SCRATCH / name
        self._tracker: Tracker | None = None
        self._checkpoint: Checkpoint | None = None
        shutil.rmtree(self._scratch / "out", ignore_errors=True)  # what a failed run had written

    @property
    def variant(self) -> str:
        """ppo-0 for the stage policy@ppo-0: the name of its outputs."""
        return self.name.partition("@")[2]

    @property
    def device(self) -> str:
        return self.runtime.device

    def params(self, config_class: type[AnyConfig]) -> AnyConfig:
        """A further namespace the stage depends on, such as `task`. Who asks again gets what was read first."""
        known = self._inputs.configs.get(config_class.namespace)
        if isinstance(known, config_class):
            return known
        self._assert_no_key_yet()
        config = config_class.load()
        self._inputs.configs[config.namespace] = config
        return config

    def dep(self, path: str) -> Path:
        """A declared dependency. Raises InputError if it is not there."""
        self._assert_no_key_yet()
        found = Path(path)
        if not found.exists():
            raise InputError(f"{path} is missing; if a stage makes it, `dvc repro` or `dvc pull` brings it")
        self._inputs.add(path)
        return found

    def out(self, path: str) -> Path:
        """Where to write a declared output: it appears under its own name only when the whole stage has succeeded."""
        staged = self._scratch / "out" / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        self._outs[Path(path)] = staged
        return staged

    @property
    def tracker(self) -> Tracker:
        """The MLflow run of this stage, opened at first use: after the deps are known, so a killed run is continued."""
        if self._tracker is None:
            scratch = self._scratch / self._inputs.key
            kept = scratch / "run_id"
            self._forget_others(scratch)
            resumed = kept.read_text() if kept.exists() and known(kept.read_text()) else None
            self._tracker = Tracker(self.name, self._tags(), self._params(), resumed, self._began)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(self._tracker.run_id)
            for path, md5 in self._inputs.deps.items():
                self._tracker.input(path, md5)
        return self._tracker

    def resume(self, **parts: Stateful) -> None:
        """Name the objects a checkpoint must hold; if an earlier process was killed, they get its state."""
        tracker = self.tracker
        self._checkpoint = Checkpoint(self._scratch / self._inputs.key)
        self.start, journal = self._checkpoint.restore(**parts)
        self.history, self.samples = journal.get("history", []), journal.get("samples", [])
        if self.start:
            print(f"{self.name}: resumes at step {self.start}", flush=True)
            tracker.tag("resumed_at_step", str(self.start))

    def steps(self, total: int) -> Iterator[int]:
        """Steps still to do, with progress; a checkpoint is written between steps when it is due."""
        assert self._checkpoint is not None, "call stage.resume(...) before stage.steps(...)"
        for step in progress.track(range(self.start, total), total, self.name, self.start):
            yield step
            if self._checkpoint.due():
                self.tracker.send()  # a resumed run starts after the checkpoint: what is before it must have been told
                self._checkpoint.save(step + 1, {"history": self.history, "samples": self.samples})

    def log(self, step: int, values: dict[str, Any], every: int = 1, samples: list[Row] | None = None) -> None:
        """Metrics of a step, kept every so many steps, and completions to read.

        A loss that is not finite ends the stage before the next checkpoint.
        """
        numbers = {key: float(value) for key, value in values.items()}
        for key, value in numbers.items():
            if key.startswith("loss/") and not math.isfinite(value):
                kept = self._checkpoint.file if self._checkpoint and self._checkpoint.file.exists() else None
                raise InputError(
                    f"{self.name}: {key} is {value} at step {step}; "
                    + (f"the last good checkpoint is kept in {kept.parent}; " if kept else "no checkpoint was due yet; ")
                    + f"lower `{self.config.namespace}.learning_rate`"
                )
        if step % every == 0:
            self.history.append({"step": step, **{key: round(value, 6) for key, value in numbers.items()}})
            self.tracker.metrics(numbers, step)
        if samples:
            self.samples += samples
            self.table("samples", self.samples)

    def record(self, **metrics: float) -> None:
        """Final figures of the stage: in the receipt, in MLflow, and in the stage's report folder."""
        self.metrics |= {key: round(float(value), 6) for key, value in metrics.items()}
        self.tracker.metrics(self.metrics)

    def table(self, name: str, rows: list[Row]) -> None:
        """Rows to look at: a table in MLflow."""
        self.tracker.table(rows, name)

    def figure(self, name: str, figure: "Figure") -> None:
        """A plot of the run's page in MLflow."""
        file = self._scratch / f"{name}.png"
        figure.savefig(file, dpi=200)
        self.tracker.file(file, "plots")

    def report(self, folder: str, tables: dict[str, list[Row]] | None = None) -> None:
        """Write metrics.json, history.json and named tables below `folder`, for later stages and the report page."""
        out = self.out(folder)
        write_json(out / "metrics.json", self.metrics)
        if self.history:
            write_json(out / "history.json", self.history)
        if self.samples:
            tables = {"samples": self.samples} | (tables or {})
        for name, rows in (tables or {}).items():
            write_table(out / f"{name}.parquet", rows)

    def finish(self) -> None:
        """Publish the outputs, upload them, write the receipt; none of it if an input is not what the stage was given."""
        self._inputs.assert_unchanged()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.tracker.metrics(
            {"system/peak_memory_mib": usage.ru_maxrss / 1024, "system/cpu_seconds": usage.ru_utime + usage.ru_stime}
        )
        hashes = {}
        publish(self._outs)
        for final in self._outs:
            hashes[final.as_posix()] = digest(final)
            if (final / "config.json").exists():  # a model, as Hugging Face keeps it
                self.tracker.model(final, hashes[final.as_posix()])
            else:
                self.tracker.file(final, final.parts[0] if final.suffix else final.as_posix())
        receipt = {
            "run_id": self.tracker.run_id,
            "pipeline_run_id": self.tracker.pipeline_run_id,
            "metrics": self.metrics,
            "outs": hashes,
        }
        write_json(RECEIPTS / f"{self.name}.json", receipt)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def end(self, status: str) -> None:
        if self._tracker:
            self._tracker.finish(status)

    def _assert_no_key_yet(self) -> None:
        assert self._tracker is None, "name every param and dependency before the first log or resume: they make the run's key"

    def _params(self) -> dict[str, Any]:
        """The stage's own namespace by bare keys, so that algorithms share columns in MLflow; the others by full name."""
        shared = {name: config.model_dump() for name, config in self._inputs.configs.items() if config is not self.config}
        return flatten(self.config.model_dump()) | flatten(shared)

    def _tags(self) -> dict[str, str]:
        return {"stage": self.name, "mlflow.source.name": f"dvc repro {self.name}", **git_tags()}

    def _forget_others(self, keep: Path) -> None:
        """Checkpoints of other inputs are of no use any more; the runs they belong to were killed."""
        for other in self._scratch.glob("*/run_id"):
            if other.parent != keep:
                mark(other.read_text(), "KILLED")
                shutil.rmtree(other.parent)


def git_tags() -> dict[str, str]:
    """The commit the work was done at, and whether the tree differed from it."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    changed = [line[3:] for line in changes.splitlines() if line[3:] not in WRITTEN]
    return {"mlflow.source.git.commit": commit, "git.dirty": str(bool(changed)).lower()}
