"""Entry point of every stage: an honest exit, whatever happens.

    if __name__ == "__main__":
        run(SftConfig, train)

Exit code 0; 1 with one sentence on bad input or a full disk, or with a traceback if the fault is ours; 130 or 143 if
interrupted. MLflow is told FINISHED, FAILED or KILLED. A stage that trains is as many processes as `compute.processes` says.
"""

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable

from tasks.core.config import RuntimeConfig
from tasks.core.errors import InputError, check_system
from tasks.core.follower import Follower
from tasks.core.processes import STOPPED, Stopped, check_sizes, joined, processes_of
from tasks.core.stage import AnyConfig, Stage

LESS_MEMORY = (
    "lower a `micro_batch_size`, `compute.rows_at_once` or `compute.logits_at_once`, or set `compute.checkpointing` to true"
)


def run(config_class: type[AnyConfig], work: Callable[[AnyConfig, Stage], None]) -> None:
    """Entry point of every stage: exit code 0, or 1 with one sentence, or 130/143 when interrupted."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    if "." in config_class.namespace:  # policy.<algorithm>: one stage per seed
        parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    name = stage_name(config_class.namespace, getattr(arguments, "seed", None))
    processes = processes_of(name)

    def run_one() -> int:
        return _run(config_class, work, name, getattr(arguments, "seed", None), processes)

    if processes == 1 or "RANK" in os.environ:
        sys.exit(run_one())
    from tasks.core.launcher import run_together

    sys.exit(run_together(name, processes, run_one))


def _run(
    config_class: type[AnyConfig], work: Callable[[AnyConfig, Stage], None], name: str, seed: int | None, processes: int
) -> int:
    kind = Follower if processes > 1 and os.environ["RANK"] != "0" else Stage
    stage = None
    status, code = "FAILED", 1
    try:
        check_system()
        config, runtime = config_class.load(), RuntimeConfig.load()
        check_sizes(config, processes)
        stage = kind(name, config, runtime, seed)
        make_deterministic(runtime)
        with joined(processes, runtime.device):
            work(config, stage)
        stage.finish()
        status, code = "FINISHED", 0
    except InputError as error:
        print(f"{name}: {error}" if not str(error).startswith(f"{name}:") else error, file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG):
            traceback.print_exc()
        else:
            print(
                f"{name}: cannot write {error.filename or 'an output'} ({error.strerror}); nothing was published",
                file=sys.stderr,
            )
    except KeyboardInterrupt:
        status, code = "KILLED", 130
    except Stopped:
        status, code = "KILLED", STOPPED
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; a stage without torch does not import it
            print(f"{name}: {str(error).partition('.')[0]}; {LESS_MEMORY}", file=sys.stderr)
        else:
            traceback.print_exc()
    if stage:
        stage.end(status)
    return code


def stage_name(namespace: str, seed: int | None = None) -> str:
    """policy.ppo and seed 0 give policy@ppo-0, the name DVC gives to that entry of the matrix."""
    head, _, tail = namespace.partition(".")
    return f"{head}@{tail}-{seed}" if tail else head


def make_deterministic(runtime: RuntimeConfig) -> None:
    """On this device, with so many threads: their number changes the order of float additions, hence the last bits."""
    os.environ["OMP_NUM_THREADS"] = str(runtime.threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS is not deterministic, and torch refuses
    if "torch" not in sys.modules:
        return
    import torch

    kind, _, index = runtime.device.partition(":")
    if kind != "cpu" and (kind != "cuda" or int(index or 0) >= torch.cuda.device_count()):
        raise InputError(f"params.yaml: `runtime.device`: there is no device {runtime.device} here; write cpu")
    torch.set_num_threads(runtime.threads)
    torch.use_deterministic_algorithms(True)


def _stop(signum: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever ends a whole group may say it twice: MLflow must still be told
    raise Stopped
