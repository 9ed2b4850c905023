"""Who may compute where: a slot of cores for every stage, and GPUs by id for those that ask. A slot is a locked file."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from flows.engine.locks import take
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError

SLOTS = Path(os.environ.get("REALIGN_SLOTS", ".scratch/slots")).resolve()  # of all checkouts that share the devices
SECONDS_BETWEEN_LOOKS = 0.5  # for slots that another flow gives back; our own are seen at once


@dataclass(frozen=True)
class Lease:
    """What a stage was given: the environment that says so, and the locked files its child must share."""

    devices: dict[str, str]
    files: list[int]


ELSEWHERE = Lease({}, [])  # what a stage needs of this machine when it runs on another


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
        self.gpus = gpus_here() if self.on_gpu else []
        self._changed = threading.Condition()
        self._stopped = False

    def check(self, name: str, gpus: int) -> None:
        """Refuse what could never be given."""
        if self.on_gpu and gpus > len(self.gpus):
            raise InputError(f"stage {name} asks for {gpus} GPUs (meta.gpus in dvc.yaml) and this machine has {len(self.gpus)}")

    @contextmanager
    def lease(self, gpus: int) -> Iterator[Lease]:
        """Wait for a slot, and for so many GPUs; all at once, so that nobody holds one device while waiting for another."""
        wanted = [(self.cpus, 1), (self.gpus, gpus if self.on_gpu else 0)]
        with self._changed:
            held = self._wait_for(lambda: _take_all(wanted))
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
        lock, waited = take(work), False
        if lock is None:
            waited = True
            with self._changed:
                lock = self._wait_for(lambda: take(work))
        with lock:
            yield Claim(lock.fileno(), waited)

    def stop(self) -> None:
        """End all waiting."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _wait_for(self, look: Callable[[], Any]) -> Any:
        while (taken := look()) is None:
            if self._stopped:
                raise InputError("the flow was stopped")
            self._changed.wait(SECONDS_BETWEEN_LOOKS)
        return taken


def _take_all(wanted: list[tuple[list[str], int]]) -> list[TextIO] | None:
    """So many locked files of each kind, or None and nothing taken."""
    held: list[TextIO] = []
    for names, count in wanted:
        mine: list[TextIO] = []
        for name in names:
            if len(mine) == count:
                break
            if file := take(SLOTS / name):
                mine.append(file)
        held += mine
        if len(mine) < count:
            for taken in held:
                taken.close()
            return None
    return held


def gpus_here() -> list[str]:
    """CUDA_VISIBLE_DEVICES, or every GPU of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None and shutil.which("nvidia-smi"):
        listing = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
        visible = ",".join(listing.stdout.split()) if listing.returncode == 0 else ""
    return [f"gpu-{device.strip()}" for device in (visible or "").split(",") if device.strip()]
