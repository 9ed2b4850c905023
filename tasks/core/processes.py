"""Several processes for one stage: its own process starts them, watches them, and ends with them.

Every one runs the whole stage on the same inputs. The first is the stage: it alone writes outputs, checkpoints and the MLflow
run; each other is a Follower. What they share out is in tasks/models/data_parallel.py.

torch's variables RANK, WORLD_SIZE and LOCAL_RANK say which process this is. Where they are set already, by torchrun or by hand,
on one machine or on several, none is started here.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tasks.core.config import PARAMS, Config, lookup, read_params
from tasks.core.errors import InputError

TRAINING = ("base_model", "sft", "judge_model", "reward_model", "policy")  # every other stage is one process
STOPPED = 143  # exit code of a process that had to end: by SIGTERM, or because it has lost the others
GRACE = 10.0  # seconds in which the others of one that failed end by themselves, and once more after SIGTERM
RENDEZVOUS = "REALIGN_RENDEZVOUS"  # where those started here meet; others meet at torch's MASTER_ADDR and MASTER_PORT
PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """End now; the last checkpoint stays."""


def processes_of(stage: str) -> int:
    """How many `compute.processes` asks for. A value that is no such number is refused where the namespace is loaded."""
    if stage.partition("@")[0] not in TRAINING:
        return 1
    try:
        asked = lookup(read_params(), "compute").get("processes")
    except InputError:
        return 1
    return asked if type(asked) is int and asked > 0 else 1


def check_sizes(config: Config, count: int) -> None:
    """Refuse what the processes cannot share evenly."""
    sizes = {name: getattr(config, name, None) for name in ("batch_size", "micro_batch_size")}
    if group := getattr(config, "group_size", None):
        sizes["rollout_batch_size / group_size"] = getattr(config, "rollout_batch_size", 0) // group
    for name, size in sizes.items():
        if size and size % count:
            raise InputError(
                f"{PARAMS}: `{config.namespace}.{name}` ({size}) must be a multiple of compute.processes ({count}); "
                "change one of them"
            )


@contextmanager
def joined(count: int, device: str) -> Iterator[None]:
    """All processes of the stage are there and can reduce tensors together; in the end they wait for each other."""
    check_world(count, device)
    if count == 1:
        yield
        return
    from torch import distributed

    backend, method = "gloo" if device == "cpu" else "nccl", os.environ.get(RENDEZVOUS, "env://")
    with collective():
        distributed.init_process_group(backend, init_method=method, rank=int(os.environ["RANK"]), world_size=count)
    yield
    with collective():
        distributed.barrier()
        distributed.destroy_process_group()


def check_world(count: int, device: str) -> None:
    """Refuse another number of processes than was asked for, and processes without a GPU of their own."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world != count:
        raise InputError(f"this stage is {count} by `compute.processes` of {PARAMS} and {world} by WORLD_SIZE; make them agree")
    if count == 1 or device == "cpu":
        return
    import torch

    if device != "cuda":
        raise InputError(f"{PARAMS}: `runtime.device` is {device}, but {count} processes need a GPU each; write cuda")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world)), torch.cuda.device_count()
    if here > gpus:
        raise InputError(
            f"{PARAMS}: `compute.processes`: {here} processes need a GPU each, and the stage has {gpus}; write {gpus}"
        )
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def collective() -> Iterator[None]:
    """What all processes do together. If one of them is gone, this one ends, and whoever watches them says why."""
    try:
        yield
    except RuntimeError as error:
        if os.environ["RANK"] != "0" or RENDEZVOUS not in os.environ:  # else run_together says more
            print("lost the other processes:", " ".join(str(error).split()), file=sys.stderr)
        raise Stopped from error


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
