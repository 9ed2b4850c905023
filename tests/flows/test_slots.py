"""Devices are leased by id, never to two holders, and come back from the dead."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import pytest

from flows.engine import locks
from flows.engine import slots as module
from flows.engine.locks import only_one
from flows.engine.slots import Slots
from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError
from tests.flows.toy import ROOT
from tests.processes import PATIENCE

HOLD = """
import sys, time
from flows.engine.slots import Slots
from tasks.core.config import RuntimeConfig
with Slots(RuntimeConfig(seed=0, threads=1, device="cuda")).lease(int(sys.argv[1])) as lease:
    print(lease.devices["CUDA_VISIBLE_DEVICES"], flush=True)
    time.sleep(100)
"""


def share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots of our own, here and in the processes we start."""
    monkeypatch.setattr(module, "SLOTS", folder / "slots")
    monkeypatch.setenv("REALIGN_SLOTS", str(folder / "slots"))


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """Two pretended GPUs, and cores for six stages."""
    share(tmp_path, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    return Slots(RuntimeConfig(seed=0, threads=1, device="cuda"))


def at_once(work: Callable[[int], None], counts: list[int]) -> None:
    """A thread for each, and what one of them raises."""
    with ThreadPoolExecutor(len(counts)) as pool:
        list(pool.map(work, counts))


def test_never_two_holders(gpus: Slots) -> None:
    devices = {"4": threading.Lock(), "6": threading.Lock()}

    def hold(count: int) -> None:
        with gpus.lease(count) as lease:
            mine = lease.devices["CUDA_VISIBLE_DEVICES"].split(",")
            assert len(mine) == count
            for device in mine:
                assert devices[device].acquire(blocking=False)
            time.sleep(0.05)
            for device in mine:
                devices[device].release()

    at_once(hold, [1, 2, 1, 1, 2, 1, 1, 1])


def test_never_an_idle_device(gpus: Slots) -> None:
    """Each of six stages waits, holding its device, until another one holds the other."""
    both = threading.Barrier(2, timeout=PATIENCE)
    met: list[int] = []

    def hold(count: int) -> None:
        with gpus.lease(count):
            met.append(both.wait())

    at_once(hold, [1] * 6)
    assert sorted(met) == [0, 0, 0, 1, 1, 1]


def test_a_stage_without_gpus_waits_for_none(gpus: Slots) -> None:
    with gpus.lease(2), gpus.lease(0) as other:
        assert other.devices == {"CUDA_VISIBLE_DEVICES": ""}


def test_a_killed_holder_frees_its_devices(gpus: Slots) -> None:
    command = [sys.executable, "-c", HOLD, "2"]
    holder = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "4,6\n"
    taken = threading.Event()

    def wait() -> None:
        with gpus.lease(1):
            taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not taken.wait(0.7)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    thread.join(PATIENCE)
    assert taken.is_set()


def test_a_device_is_free_only_when_the_last_process_on_it_is_gone(gpus: Slots) -> None:
    """The flow may be killed before its child: the child still holds the device."""
    with gpus.lease(2) as lease:
        child = subprocess.Popen(["sleep", "100"], pass_fds=lease.files)
    command = [sys.executable, "-c", HOLD, "1"]
    waiter = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    assert waiter.stdout is not None
    try:
        assert select.select([waiter.stdout], [], [], 1.5)[0] == []
        child.kill()
        child.wait()
        assert waiter.stdout.readline() == "4\n"
    finally:
        child.kill()
        waiter.kill()
        waiter.wait()


def test_more_gpus_than_there_are_is_refused(gpus: Slots) -> None:
    gpus.check("sft", 2)
    with pytest.raises(InputError, match=r"stage sft asks for 3 GPUs .* this machine has 2"):
        gpus.check("sft", 3)


def test_without_gpus_the_cores_are_the_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share(tmp_path, monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    slots = Slots(RuntimeConfig(seed=0, threads=2, device="cpu"))
    slots.check("sft", 8)
    with slots.lease(8) as one, slots.lease(1), slots.lease(0):
        assert one.devices == {}
        assert len(one.files) == 1
        full = threading.Thread(target=lambda: slots.lease(0).__enter__(), daemon=True)
        full.start()
        full.join(0.7)
        assert full.is_alive()
    full.join(PATIENCE)
    assert not full.is_alive()


def test_a_second_flow_waits_for_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = f"from pathlib import Path; from flows.engine.locks import only_one\nlock = only_one(Path('{lock}'), 'flow')"
    with only_one(lock, "flow"):
        second = subprocess.Popen(
            [sys.executable, "-c", f"{script}; print('mine', flush=True)"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert second.stdout is not None
        assert second.stdout.readline() == f"waiting for the flow of process {os.getpid()}, which is at work in this folder\n"
        assert second.poll() is None
    assert second.stdout.readline() == "mine\n"
    second.wait()


def test_work_that_somebody_else_does_is_waited_for(gpus: Slots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, refused = threading.Event(), threading.Event()

    def take(work: Path) -> TextIO | None:
        if (lock := locks.take(work)) is None:
            refused.set()
        return lock

    monkeypatch.setattr(module, "take", take)
    order: list[str] = []

    def first() -> None:
        with gpus.claim(tmp_path / "work") as claim:
            assert not claim.waited
            began.set()
            assert refused.wait(PATIENCE)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(PATIENCE)
    with gpus.claim(tmp_path / "other") as other, gpus.claim(tmp_path / "work") as same:
        order.append("second")
        assert (other.waited, same.waited) == (False, True)
    assert order == ["first", "second"]
    thread.join()


def test_who_waits_is_told_to_stop(gpus: Slots) -> None:
    with gpus.lease(2):
        threading.Timer(0.1, gpus.stop).start()
        with pytest.raises(InputError, match="the flow was stopped"), gpus.lease(1):
            pass
