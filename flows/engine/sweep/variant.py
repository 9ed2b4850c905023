"""One variant of a sweep: its checkout, `python -m flows.align` in it, and its experiment in the user's repository.

The checkout stays when it is done: what a killed compare left in it, checkpoints included, is continued by the next one.
"""

import hashlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from dvc.utils.serialize import modify_yaml

from flows.engine.checkout import make_checkout, start_align
from flows.engine.executor import ONE_FLOW
from flows.engine.git import changes, git
from flows.engine.lineage import VARIANT
from flows.engine.locks import wait_for
from flows.engine.sweep.axes import Variant
from tasks.core.config import PARAMS
from tasks.core.errors import InputError
from tasks.core.tracking import PIPELINE_RUN_ID

STAGE_LINE = re.compile(r"\S+ +│ ")  # of the flow's output: what a stage says, and not its plan and its tables
ITS_OWN_LOG = re.compile(r" \(see \S+\)$")  # in the checkout; ours holds all of it


@dataclass(frozen=True)
class Start:
    """What every variant starts from: HEAD, and what the user has changed since."""

    commit: str
    patch: str

    @classmethod
    def now(cls) -> Self:
        return cls(git("rev-parse", "HEAD").strip(), changes())


@dataclass(frozen=True)
class Ended:
    """How a variant ended. why: the sentence with which it failed; experiment: its name in DVC, once saved."""

    state: Literal["saved", "failed", "stopped"]
    seconds: float
    why: str = ""
    experiment: str = ""


class Variants:
    """All variants at work, so that all can be ended at once. folder: holds a checkout and a log of each."""

    def __init__(self, folder: Path, start: Start, show: Callable[[str, str], None]):
        self.folder = folder
        self._start = start
        self._show = show
        self._repository = threading.Lock()  # of the user: one at a time reads and writes it
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._stopping = False

    def checkout(self, variant: Variant) -> Path:
        return self.folder / variant.name

    def log(self, variant: Variant) -> Path:
        return self.folder / f"{variant.name}.log"

    def carry_out(self, variant: Variant, experiment: str, sweep_run_id: str) -> Ended:
        """Run the variant's flow as part of the sweep's; where it succeeds, save it as a DVC experiment."""
        began = time.monotonic()
        try:
            with self._repository:
                self.prepare(variant)
            said, code = self._align(variant, sweep_run_id)
            if self._stopping:
                return Ended("stopped", time.monotonic() - began, "the sweep was stopped")
            if code:
                why = ITS_OWN_LOG.sub("", said) or f"exit code {code}"
                return Ended("failed", time.monotonic() - began, f"{why} (see {self.log(variant)})")
            with self._repository:
                self._save(self.checkout(variant), experiment)
        except (InputError, OSError) as error:
            return Ended("failed", time.monotonic() - began, str(error))
        self._show(variant.name, f"saved as DVC experiment {experiment}")
        return Ended("saved", time.monotonic() - began, experiment=experiment)

    def stop(self) -> None:
        """End every flow in good order, and start no more."""
        with self._lock:
            self._stopping = True
            running = list(self._running.values())
        for process in running:
            process.terminate()
        for process in running:
            process.wait()

    def prepare(self, variant: Variant) -> None:
        folder = self.checkout(variant)
        identity = hashlib.sha256(json.dumps([self._start.commit, self._start.patch, variant.params]).encode()).hexdigest()
        kept = folder / ".scratch/variant"  # written last: a checkout without it was not finished
        if kept.exists() and kept.read_text() == identity:
            return
        wait_for(folder / ONE_FLOW).close()  # of a compare that was killed a moment ago, a stage may still be ending there
        make_checkout(folder, self._start.commit, self._start.patch)
        with modify_yaml(folder / PARAMS) as params:  # keeps the comments, as `dvc exp run -S` does
            for key, value in variant.params.items():
                *above, last = key.split(".")
                inner = params
                for part in above:
                    inner = inner[part]
                inner[last] = value
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(identity)

    def _align(self, variant: Variant, sweep_run_id: str) -> tuple[str, int]:
        """The last line that the flow printed, and its exit code."""
        with self._lock:
            if self._stopping:
                return "", 1
            process = start_align(self.checkout(variant), **{PIPELINE_RUN_ID: sweep_run_id, VARIANT: variant.name})
            self._running[variant.name] = process
        last_line = ""
        assert process.stdout is not None
        with process.stdout, self.log(variant).open("w", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                last_line = line.strip() or last_line
                if STAGE_LINE.match(line):
                    self._show(variant.name, line.rstrip())
        code = process.wait()
        with self._lock:
            del self._running[variant.name]
        return last_line, code

    def _save(self, folder: Path, experiment: str) -> None:
        """`dvc exp save` in the checkout, whose commit then becomes an experiment of the user's repository.

        By git alone: the outputs are in the cache that both share. The ref is where DVC looks for experiments on the
        commit that the sweep started from; one of the same name is overwritten.
        """
        for key, otherwise in {"user.name": "realign", "user.email": "realign@localhost"}.items():
            git("-C", str(folder), "config", key, _setting(key) or otherwise)  # dvc commits; a clone lacks the user's own
        command = [sys.executable, "-m", "dvc", "exp", "save", "--quiet", "--force", "--name", experiment]
        saved = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if saved.returncode:
            said = [line for line in saved.stderr.splitlines() if line.startswith("ERROR")]
            raise InputError(f"dvc exp save: {said[0].removeprefix('ERROR: ') if said else saved.stderr.strip()}")
        ref = f"refs/exps/{self._start.commit[:2]}/{self._start.commit[2:]}/{experiment}"
        git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", str(folder), f"+{ref}:{ref}")


def _setting(key: str) -> str:
    """Of the user's git, wherever it is set; empty where it is not."""
    return subprocess.run(["git", "config", key], capture_output=True, text=True).stdout.strip()
