"""Stages at work: one child process each, in a session of its own, its output shown line by line and kept in a file."""

import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flows.engine.forkserver import Child, Forkserver
from flows.engine.lifetime import end_group
from flows.engine.plan import Step
from flows.engine.preflight import modules_of
from flows.engine.reproduce import LOCKED

LOGS = Path(".scratch/logs")
LOCK_RETRIES = 6  # waits of 0.5, 1, 2, ... seconds


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, why if that is not 0, and the file that keeps all it wrote."""

    code: int
    why: str
    log: str


class Children:
    """All stages at work, so that all can be ended at once."""

    def __init__(self, show: Callable[[str, str], None]):
        self._show = show
        self._forkserver: Forkserver | None = None
        self._lock = threading.Lock()
        self._running: dict[str, Child] = {}
        self._stopping = False

    def prepare(self, steps: Iterable[Step]) -> None:
        """Begin to load what these stages will need. Returns at once."""
        steps = list(steps)
        keys = dict.fromkeys(key for step in steps for key in step.params)
        modules = dict.fromkeys(module for step in steps for module in modules_of(step.command))
        self._forkserver = Forkserver(list(keys), list(modules))

    def check(self) -> None:
        """Their parameters. Raises InputError with the first complaint."""
        assert self._forkserver, "prepare() comes first"
        self._forkserver.check()

    def close(self) -> None:
        """No child will be asked for any more."""
        if self._forkserver:
            self._forkserver.close()

    def reproduce(self, name: str, says: dict[str, str], leases: list[int], fetch: bool = False) -> Ended:
        """Run the stage and wait for it; what is transient (a lock of DVC, held by someone else) is tried again.

        says: environment that names the runs it belongs to and the devices it may use; leases: open files whose locks the
        child shares, so that a device is free only when the last process on it is gone, whoever is killed first; fetch:
        restore what a worker has pushed instead of running.
        """
        environment = os.environ | says | {"PYTHONUNBUFFERED": "1"}
        here = str(Path(sys.executable).parent)  # `python` in a stage's command is the python of the flow
        environment["PATH"] = os.pathsep.join([here, environment.get("PATH", os.defpath)])
        for attempt in range(LOCK_RETRIES):
            ended = self._run(name, environment, leases, fetch)
            if ended.code != LOCKED or self._stopping:
                return ended
            self._show(name, "another dvc process is in the way; trying again")
            time.sleep(0.5 * 2**attempt)
        return Ended(LOCKED, "another dvc process holds a lock of DVC; end it and run again", ended.log)

    def stop(self) -> None:
        """End all of them, at once, and start no more."""
        with self._lock:
            self._stopping = True
            groups = [child.pid for child in self._running.values()]
        enders = [threading.Thread(target=end_group, args=(group,)) for group in groups]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join()

    def _run(self, name: str, environment: dict[str, str], leases: list[int], fetch: bool) -> Ended:
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{name}.log"
        with self._lock:
            if self._stopping:
                return Ended(-1, "the flow was stopped", str(log))
            assert self._forkserver, "prepare() comes first"
            child = self._running[name] = self._forkserver.fork(name, environment, leases, fetch)
        # A child that was killed cannot end its stage, and its stage would keep the output below open.
        codes: list[int] = []
        reaper = threading.Thread(target=lambda: codes.append(_reap(child)))
        reaper.start()
        last_line = ""
        try:
            with log.open("w", encoding="utf-8") as kept:
                for line in io.TextIOWrapper(child.output, errors="replace"):
                    kept.write(line)
                    kept.flush()
                    if line.strip():
                        last_line = line.strip()
                        self._show(name, line.rstrip())
        finally:
            child.output.close()
            child.parent_pipe.close()  # ends the child, should we be here before it has ended
            reaper.join()
            with self._lock:
                del self._running[name]
        [code] = codes
        why = last_line if code > 0 and last_line else f"dvc ended with exit code {code}"
        return Ended(code, why, str(log))


def _reap(child: Child) -> int:
    code = child.wait()
    end_group(child.pid)
    return code
