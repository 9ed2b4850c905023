"""An algorithm's train() in memory: real data, checkpoints and files, but no process and no tracker."""

from pathlib import Path
from typing import Any

from tasks.core.checkpoint import Checkpoint
from tasks.core.config import lookup
from tests.project import PARAMS


class KilledError(Exception):
    """The run ended in the middle, with a checkpoint."""


class Bench:
    """What train() asks of a stage. changed: other params, by namespace. killed_at: the step before which it ends."""

    device, seed, name, variant = "cpu", 7, "policy@any-0", "any-0"

    def __init__(self, folder: Path, written: Path, changed: dict[str, Any] | None = None, killed_at: int | None = None):
        self.folder, self.written, self.changed, self.killed_at = folder, written, changed or {}, killed_at
        self.start, self.history, self.checkpoint = 0, [], Checkpoint(written / "checkpoint")

    def params(self, config_class):
        values = lookup(PARAMS, config_class.namespace)
        values |= {"weights": {"verifier": 1.0}} if "weights" in values else {}
        return config_class.model_validate(values | self.changed.get(config_class.namespace, {}))

    def dep(self, path):
        return self.folder / path

    def out(self, path):
        return self.written / path

    def resume(self, **parts):
        self.parts = parts
        self.start, _ = self.checkpoint.restore(**parts)

    def steps(self, total):
        for step in range(self.start, total):
            if step == self.killed_at:
                self.checkpoint.save(step, {})
                raise KilledError
            yield step

    def log(self, step, values, every=1, samples=None):
        self.history.append({"step": step} | {key: float(value) for key, value in values.items()})

    def record(self, **metrics):
        self.metrics = metrics

    def table(self, name, rows):
        pass

    def report(self, folder, tables=None):
        self.reported = folder
