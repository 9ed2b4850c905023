"""Several processes for one stage: how many, and how they meet.

Every one runs the whole stage on the same inputs. The first is the stage: it alone writes outputs, checkpoints and the MLflow
run; each other is a Follower. What they share out is in tasks/models/data_parallel.py.

torch's variables RANK, WORLD_SIZE and LOCAL_RANK say which process this is. tasks/core/launcher.py starts processes and sets
them; where they are set already, by torchrun or by hand, on one machine or on several, none is started.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.config import PARAMS, Config, lookup, read_params
from tasks.core.errors import InputError

TRAINING = ("base_model", "sft", "judge_model", "reward_model", "policy")  # every other stage is one process
STOPPED = 143  # exit code of a process that had to end: by SIGTERM, or because it has lost the others
RENDEZVOUS = "REALIGN_RENDEZVOUS"  # where those of the launcher meet; others meet at torch's MASTER_ADDR and MASTER_PORT


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
        raise InputError(f"{PARAMS}: `compute.processes` of this stage is {count}, but WORLD_SIZE is {world}; make them equal")
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
        if os.environ["RANK"] != "0" or RENDEZVOUS not in os.environ:  # else the launcher says more
            print("lost the other processes:", " ".join(str(error).split()), file=sys.stderr)
        raise Stopped from error
