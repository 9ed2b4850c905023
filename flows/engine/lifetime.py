"""No process outlives the flow: children end when their parent is gone, and a process group ends as a whole.

A dying process cannot always send a signal, but the kernel closes its pipes whatever killed it. So every child of a flow
has a pipe from its parent as stdin, the parent pipe, and ends itself when that pipe closes.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil

PARENT = "REALIGN_PARENT"  # the process that a flow started by another flow must not outlive
GRACE = 15.0  # seconds that a stage has, after SIGTERM, to tell MLflow that it was killed


def end_with_parent(when_gone: Callable[[], None]) -> None:
    """Call `when_gone` (in a thread) when the process that holds the other end of stdin is gone. Stdin becomes /dev/null."""
    parent_pipe = os.dup(0)  # not inherited by what this process starts
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(parent_pipe, 1):
            pass
        when_gone()

    threading.Thread(target=wait, daemon=True).start()


def follow(pid: int) -> None:
    """End in good order (SIGTERM to this process) when process `pid` is gone, whatever ended it."""

    def wait() -> None:
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(pid)], [], [])  # ready at its end, also while nobody has asked for its exit code
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
