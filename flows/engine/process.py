"""Stages at work: one child process each, in a session of its own, its output shown line by line and kept in a file."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flows.engine.leash import end_group
from flows.engine.reproduce import LOCKED

LOGS = Path(".scratch/logs")
LOCK_RETRIES = 6  # waits of 0.5, 1, 2, ... seconds


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, why if that is not 0, and where all that it wrote is kept."""

    code: int
    why: str
    log: Path


class Children:
    """All stages at work, so that all can be ended at once."""

    def __init__(self, show: Callable[[str, str], None]):
        self._show = show
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._stopping = False

    def reproduce(self, name: str, says: dict[str, str], leases: list[int]) -> Ended:
        """Run the stage and wait for it; what is transient (a lock of DVC, held by someone else) is tried again.

        says: environment that names the runs it belongs to and the devices it may use; leases: open files whose locks the
        child shares, so that a device is free only when the last process on it is gone, whoever is killed first.
        """
        environment = os.environ | says | {"PYTHONUNBUFFERED": "1"}
        here = str(Path(sys.executable).parent)  # `python` in a stage's command is the python of the flow
        environment["PATH"] = os.pathsep.join([here, environment.get("PATH", os.defpath)])
        for attempt in range(LOCK_RETRIES):
            ended = self._run(name, environment, leases)
            if ended.code != LOCKED or self._stopping:
                return ended
            self._show(name, "another dvc process is in the way; trying again")
            time.sleep(0.5 * 2**attempt)
        return Ended(LOCKED, "another dvc process holds a lock of DVC; end it and run again", ended.log)

    def stop(self) -> None:
        """End all of them, at once, and start no more."""
        with self._lock:
            self._stopping = True
            groups = [process.pid for process in self._running.values()]
        enders = [threading.Thread(target=end_group, args=(group,)) for group in groups]
        for thread in enders:
            thread.start()
        for thread in enders:
            thread.join()

    def _run(self, name: str, environment: dict[str, str], leases: list[int]) -> Ended:
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{name}.log"
        with self._lock:
            if self._stopping:
                return Ended(-1, "the flow was stopped", log)
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.engine.reproduce", name],
                env=environment,
                stdin=subprocess.PIPE,  # the leash: never written to, closed by the kernel when this process dies
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=leases,
            )
            self._running[name] = process
        # A child that was killed cannot end its stage, and its stage would keep the pipe below open.
        reaper = threading.Thread(target=_reap, args=(process,))
        reaper.start()
        last_line = ""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with log.open("w", encoding="utf-8") as kept:
                for line in process.stdout:
                    kept.write(line)
                    kept.flush()
                    if line.strip():
                        last_line = line.strip()
                        self._show(name, line.rstrip())
        finally:
            process.stdout.close()
            process.stdin.close()  # pulls the leash, should we be here before the child has ended
            reaper.join()
            with self._lock:
                del self._running[name]
        why = last_line if process.returncode > 0 and last_line else f"dvc ended with exit code {process.returncode}"
        return Ended(process.returncode, why, log)


def _reap(process: "subprocess.Popen[str]") -> None:
    process.wait()
    end_group(process.pid)
