"""Who may compute where: a slot of cores for every stage, and GPUs by id for those that ask.

A slot is a file that its holder has locked. The kernel drops the lock when the last process that shares it is gone, so a
crash of any of them frees the slot and nothing else does; no service has to notice.
"""

import fcntl
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError

SLOTS = Path(os.environ.get("REALIGN_SLOTS", ".scratch/slots"))  # one folder for all checkouts that share the devices
ONE_FLOW = Path(".scratch/align/lock")
SECONDS_BETWEEN_LOOKS = 0.5  # for slots that another flow gives back; our own are seen at once


def only_flow() -> TextIO:
    """One flow at a time works in a checkout. Returns the locked file: keep it open, and let the children share it.

    After a crash the next flow therefore waits until the last child of the crashed one is gone.
    """
    ONE_FLOW.parent.mkdir(parents=True, exist_ok=True)
    lock = ONE_FLOW.open("a+")
    if not _lock(lock):
        lock.seek(0)
        print(f"waiting for the flow of process {lock.read().strip()}, which is at work in this folder", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Lease:
    """What a stage was given: the environment that says so, and the locked files its child must share."""

    devices: dict[str, str]
    files: list[int]


@dataclass(frozen=True)
class Claim:
    """Work that is ours alone. waited: somebody else has done it meanwhile, or has failed."""

    file: int  # open and locked: the child must share it
    waited: bool


class Slots:
    """The slots of this machine: as many stages side by side as there are cores for, each GPU used by one of them."""

    def __init__(self, runtime: RuntimeConfig):
        cores = len(os.sched_getaffinity(0))
        self.cpus = [f"cpu-{number}" for number in range(max(1, cores // max(1, runtime.threads)))]
        self.on_gpu = runtime.device != "cpu"
        self.gpus = _gpus() if self.on_gpu else []
        self._changed = threading.Condition()
        self._stopped = False
        SLOTS.mkdir(parents=True, exist_ok=True)

    def check(self, name: str, gpus: int) -> None:
        """Refuse what could never be given."""
        if self.on_gpu and gpus > len(self.gpus):
            raise InputError(f"stage {name} asks for {gpus} GPUs (meta.gpus in dvc.yaml) and this machine has {len(self.gpus)}")

    @contextmanager
    def lease(self, gpus: int) -> Iterator[Lease]:
        """Wait for a slot, and for so many GPUs; all at once, so that nobody holds one device while waiting for another."""
        wanted = [(self.cpus, 1), (self.gpus, gpus if self.on_gpu else 0)]
        with self._changed:
            held = self._wait_for(lambda: _take(wanted))
        try:
            ids = [Path(file.name).name.removeprefix("gpu-") for file in held[1:]]
            yield Lease({"CUDA_VISIBLE_DEVICES": ",".join(ids)} if self.on_gpu else {}, [file.fileno() for file in held])
        finally:
            with self._changed:
                for file in held:
                    file.close()
                self._changed.notify_all()

    @contextmanager
    def claim(self, work: Path) -> Iterator[Claim]:
        """Wait until nobody else does this work: of several experiments that have a stage in common, one computes it."""
        work.parent.mkdir(parents=True, exist_ok=True)
        with work.open("w") as file:
            waited = not _lock(file)
            if waited:
                with self._changed:
                    self._wait_for(lambda: _lock(file) or None)
            yield Claim(file.fileno(), waited)

    def stop(self) -> None:
        """End all waiting."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _wait_for(self, take: Callable[[], Taken | None]) -> Taken:
        while (taken := take()) is None:
            if self._stopped:
                raise InputError("the flow was stopped")
            self._changed.wait(SECONDS_BETWEEN_LOOKS)
        return taken


def _take(wanted: list[tuple[list[str], int]]) -> list[TextIO] | None:
    """So many locked files of each kind, or None and nothing taken."""
    held: list[TextIO] = []
    for names, count in wanted:
        mine: list[TextIO] = []
        for name in names:
            if len(mine) == count:
                break
            file = (SLOTS / name).open("w")
            if _lock(file):
                mine.append(file)
            else:
                file.close()
        held += mine
        if len(mine) < count:
            for taken in held:
                taken.close()
            return None
    return held


def _lock(file: TextIO) -> bool:
    """Whether it could be locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _gpus() -> list[str]:
    """CUDA_VISIBLE_DEVICES, or every GPU of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None and shutil.which("nvidia-smi"):
        listing = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
        visible = ",".join(listing.stdout.split()) if listing.returncode == 0 else ""
    return [f"gpu-{device.strip()}" for device in (visible or "").split(",") if device.strip()]
