"""Where a flow's children come from: one process that pays the imports once, and forks.

    python -m flows.engine.forkserver <descriptor of a socket> <keys of params.yaml> <module> ...

Importing torch, transformers and mlflow takes longer than many a stage. This process imports what the stages import while
the flow is still planning, and each child starts with all of it loaded. Only libraries stay loaded: the project's own
modules are read anew for every stage, so that what runs is what DVC has hashed. Nothing is computed here, so a fork is as
good as a fresh interpreter.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flows.engine.preflight import complaint_about, load_libraries
from flows.engine.reproduce import reproduce
from tasks.core.errors import InputError
from tasks.core.mlflow_client import warm_up

LOG = Path(".scratch/logs/forkserver.log")
LARGEST_MESSAGE = 1 << 20  # bytes; most of it is an environment
READY = b"ready"


@dataclass(frozen=True)
class Child:
    """A process that reproduces one stage, in a session of its own."""

    pid: int
    parent_pipe: BinaryIO  # closed by us or, should we die, by the kernel: then the child ends itself
    output: BinaryIO  # all that it and its stage print
    report: BinaryIO

    def wait(self) -> int:
        """Its exit code; minus SIGKILL if it could not say one."""
        said = self.report.read()
        return int(said) if said else -signal.SIGKILL


class Forkserver:
    """Started early, asked later: while it still imports, requests wait in its socket."""

    def __init__(self, keys: list[str], modules: list[str]):
        """keys, modules: those that the stages which will run read from params.yaml, and run."""
        self._arguments = [",".join(keys), *modules]
        self._lock = threading.Lock()
        self._start()

    def check(self) -> None:
        """Wait until it has checked the parameters of all stages. Raises InputError with the first complaint."""
        said = self._socket.recv(LARGEST_MESSAGE)
        if said != READY:
            raise InputError(said.decode() or f"the process that starts the stages ended early; {LOG} says why")

    def fork(self, name: str, environment: dict[str, str], leases: list[int], fetch: bool = False) -> Child:
        """A child that reproduces stage `name`. leases: open files that it is to share; fetch: as `reproduce` has it."""
        (pipe_end, parent_pipe), (output, output_end), (report, report_end) = os.pipe(), os.pipe(), os.pipe()
        message = json.dumps({"name": name, "environment": environment, "fetch": fetch}).encode()
        descriptors = [pipe_end, output_end, report_end, *leases]
        with self._lock:
            try:
                socket.send_fds(self._socket, [message], descriptors)
            except OSError:  # somebody killed it; what it had forked lives on
                self._start()
                socket.send_fds(self._socket, [message], descriptors)
        for descriptor in (pipe_end, output_end, report_end):
            os.close(descriptor)
        told = os.fdopen(report, "rb")
        pid = told.readline()
        if not pid:
            raise InputError(f"the process that starts the stages ended; {LOG} says why")
        return Child(int(pid), os.fdopen(parent_pipe, "wb"), os.fdopen(output, "rb"), told)

    def close(self) -> None:
        """It ends; its children do not, before they are done."""
        self._socket.close()

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        LOG.parent.mkdir(parents=True, exist_ok=True)
        with theirs, LOG.open("w") as log:
            subprocess.Popen(
                [sys.executable, "-m", "flows.engine.forkserver", str(theirs.fileno()), *self._arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def main(descriptor: int, keys: list[str], modules: list[str]) -> None:
    flow = socket.socket(fileno=descriptor)
    complaint = complaint_about(keys, modules)
    with suppress(OSError):  # a flow that is gone is noticed below
        flow.send(complaint.encode() or READY)
    load_libraries()
    if modules:
        warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children report to the flow themselves: none stays a zombie
    gc.collect()
    gc.freeze()  # what is loaded is shared with the children for as long as nobody, the collector included, writes to it
    while not complaint:
        message, descriptors, _, _ = socket.recv_fds(flow, LARGEST_MESSAGE, 64)
        if not message:  # the flow is done, or dead
            return
        if os.fork() == 0:
            flow.close()
            become_child(**json.loads(message), descriptors=descriptors)
        for inherited in descriptors:
            os.close(inherited)


def become_child(name: str, environment: dict[str, str], fetch: bool, descriptors: list[int]) -> Any:
    """Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with suppress(OSError):  # what `top` shows, where the system has it
        Path("/proc/self/comm").write_text(name)
    parent_pipe, output, report, *_ = descriptors
    for ours, standard in ((parent_pipe, 0), (output, 1), (output, 2)):
        os.dup2(ours, standard)
    os.close(parent_pipe)
    os.close(output)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.write(report, f"{os.getpid()}\n".encode())
    code = 1
    try:
        code = reproduce(name, report, fetch)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(OSError):
        os.write(report, str(code).encode())
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
