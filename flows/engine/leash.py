"""No process outlives the flow: a leash that pulls when the flow dies, and the end of a whole process group.

A signal reaches only those who can still send or receive it. The kernel closes the pipes of a dead process whatever
killed it, so every child of a flow holds the read end of one (its stdin) and ends itself when that end closes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

PARENT = "REALIGN_PARENT"  # the process that a flow started by another flow must not outlive
GRACE = 15.0  # seconds that a stage has, after SIGTERM, to tell MLflow that it was killed


def hold_leash(on_pull: Callable[[], None]) -> None:
    """Call `on_pull` (in a thread) when the process that holds the other end of stdin is gone. Stdin becomes /dev/null."""
    leash = os.dup(0)  # not inherited by what this process starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(leash, 1):
            pass
        on_pull()

    threading.Thread(target=wait, daemon=True).start()


def follow(pid: int) -> None:
    """End in good order (SIGTERM to this process) when process `pid` is gone, whatever ended it."""

    def wait() -> None:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        silence()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def silence() -> None:
    """Print to nobody from now on: whoever read it is dead, and the good order must not end at a broken pipe."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nothing, output)
    os.close(nothing)


def members(group: int) -> list[int]:
    """Living processes of a process group, without the caller."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == group and pid != os.getpid() and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def end_group(group: int, grace: float = GRACE) -> None:
    """SIGTERM to every member, time to end in good order, SIGKILL to who is left. The caller is spared."""
    deadline = time.monotonic() + grace
    signalled: set[int] = set()
    while left := members(group):
        late = time.monotonic() > deadline
        for pid in left:
            if late or pid not in signalled:
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
                signalled.add(pid)
        time.sleep(0.05)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        print(f"process {pid} of a stage cannot be ended: {error}", file=sys.stderr)
