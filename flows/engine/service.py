"""A Python program of somebody else, run as a service of ours: what it prints goes to a file, and it never outlives us.

    python -m flows.engine.service <module> <arguments> ...

Such a program does not watch a parent pipe, so a supervisor does: this small process. When it is told to, or when the
process that started it is gone, it ends the program and the processes that the program started for itself. Those that the
program started for others, as a worker does with flows, end by their own means: the supervisor waits for them, even if the
program was killed and left them orphans.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from flows.engine.lifetime import GRACE, end_group, end_with_parent

LOGS = Path(".scratch/logs")
PR_SET_CHILD_SUBREAPER = 36  # Linux: orphans below this process become its children, not those of process 1


class Service:
    """A program at work; `name` is also the name of its log."""

    def __init__(self, name: str, *command: str, **says: str):
        """command: what follows `python -m`; says: further environment."""
        LOGS.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = LOGS / f"{name}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.engine.service", *command],
                env=os.environ | says,
                stdin=subprocess.PIPE,  # the parent pipe
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: services end in an order
            )

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """In good order; returns when nothing of it is left."""
        self._process.terminate()
        self._process.wait()
        end_group(self._process.pid)  # had the supervisor been killed


def main(command: list[str]) -> int:
    def stop(signum: int, frame: object) -> None:
        sys.exit(128 + signum)

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, stop)
    end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        return subprocess.Popen([sys.executable, "-m", *command]).wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_group(os.getpgid(0))
        _wait_for_orphans()


def _wait_for_orphans() -> None:
    deadline = time.monotonic() + 2 * GRACE
    while left := psutil.Process().children(recursive=True):
        psutil.wait_procs(left, timeout=0.2)
        if time.monotonic() > deadline:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
