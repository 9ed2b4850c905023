"""The stage's own process starts several, watches them, and ends with them."""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tasks.core.processes import RENDEZVOUS, STOPPED, Stopped

GRACE = 10.0  # seconds in which the others of one that failed end by themselves, and once more after SIGTERM
PR_SET_PDEATHSIG = 1


def run_together(stage: str, count: int, run_one: Callable[[], int]) -> int:
    """run_one() in `count` processes; the exit code of the stage. If one fails, all end, and one sentence says why."""
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        started = [fork.Process(target=_become, args=(run_one, number, count, Path(folder))) for number in range(count)]
        try:
            for process in started:
                process.start()
            failed = _first_failure(started)
            _end(started)
        except (KeyboardInterrupt, Stopped) as interrupted:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            _end(started, at_once=True)
            return STOPPED if isinstance(interrupted, Stopped) else 130
        return _verdict(stage, started, failed, Path(folder)) if failed else 0


def _become(run_one: Callable[[], int], number: int, count: int, folder: Path) -> None:
    """Process `number`. The first prints as the stage does, the others into a file."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # it does not outlive the stage's own process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal it goes to all; that process tells us to end
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
        RENDEZVOUS: f"file://{folder}/rendezvous", "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }  # fmt: skip
    if number:
        sys.stdout = sys.stderr = log = (folder / f"{number}.log").open("w", buffering=1)
        for standard in (1, 2):  # what libraries write past Python
            os.dup2(log.fileno(), standard)
    sys.exit(run_one())


def _first_failure(processes: Sequence[BaseProcess]) -> BaseProcess | None:
    """Wait until one has failed, or all have ended well."""
    running: dict[Any, BaseProcess] = {process.sentinel: process for process in processes}
    while running:
        for sentinel in connection.wait([*running]):
            ended = running.pop(sentinel)
            ended.join()
            if ended.exitcode:
                return ended
    return None


def _end(processes: Sequence[BaseProcess], at_once: bool = False) -> None:
    """Time to end by themselves, unless at once; SIGTERM and time again; SIGKILL."""
    for order in (BaseProcess.terminate, BaseProcess.kill) if at_once else (None, BaseProcess.terminate, BaseProcess.kill):
        deadline = time.monotonic() + GRACE
        for process in processes:
            if order and process.pid and process.is_alive():
                order(process)
        for process in processes:
            if process.pid:
                process.join(max(0.0, deadline - time.monotonic()))


def _verdict(stage: str, processes: Sequence[BaseProcess], failed: BaseProcess, folder: Path) -> int:
    """Say why the stage has failed, unless its first process has; its exit code."""
    leader = processes[0].exitcode or 0
    if leader > 0 and leader != STOPPED:
        return leader
    guilty = next((process for process in (failed, *processes) if process.exitcode not in (0, STOPPED)), failed)
    number, code = processes.index(guilty), guilty.exitcode or 0
    log = folder / f"{number or 1}.log"
    said = log.read_text() if log.exists() else ""
    if code < 0:
        by = signal.Signals(-code).name
        print(
            f"{stage}: process {number + 1} of {len(processes)} was ended by {by}, so all were stopped; "
            "run it again, it resumes at its last checkpoint",
            file=sys.stderr,
        )
    elif code == STOPPED:
        print(f"{stage}: its {len(processes)} processes ended ({said.strip()[-200:]}); run it again", file=sys.stderr)
    else:
        print(said, end="", file=sys.stderr)
    return 1
