"""The child process of one stage: `dvc repro --single-item <stage>`, which ends with the flow.

It differs from the dvc command in five ways: it waits for DVC's lock instead of giving up after three seconds (a stage
that trained for hours must not fail at committing its outputs), it says by exit code whether only a lock was in the way,
it starts the stage without importing everything again, it records no inputs that changed while the stage ran, and it never
leaves the stage alone: a signalled or orphaned dvc would let it run on.
"""

import logging
import os
import re
import signal

from dvc import lock
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo

from flows.engine.fork_command import forbid_commands, fork_commands
from flows.engine.inputs import refuse_changed_inputs
from flows.engine.lifetime import end_group, end_with_parent, silence
from flows.engine.lockfile import protect

FLOW_RUN_ID = "REALIGN_FLOW_RUN_ID"  # of Prefect, set by the flow for its children
SECONDS_BETWEEN_LOOKS = 0.05
LOCKED = 75  # exit code: another process holds a lock of DVC; nothing was done, try again


class Stopped(BaseException):
    """SIGTERM, from the flow or because the flow is gone."""


def reproduce(name: str, report: int, fetch: bool = False) -> int:
    """Returns the exit code of the child. report: where it will be written, once this process and its stage have ended.

    fetch: restore what somebody else has pushed to the DVC remote; the stage's command does not run.
    """
    signal.signal(signal.SIGTERM, _stop)
    logging.getLogger("dvc").setLevel(logging.WARNING)
    protect()
    refuse_changed_inputs()
    lock.DEFAULT_TIMEOUT = 6 * SECONDS_BETWEEN_LOOKS  # DVC looks for its lock six times in so long; twice a second is too rare
    if fetch:
        forbid_commands()
    else:
        fork_commands(not_for_the_stage=report)
    orphaned = []

    def pulled() -> None:
        orphaned.append(True)
        silence()
        os.kill(os.getpid(), signal.SIGTERM)

    end_with_parent(pulled)
    try:
        code = _reproduce(name, fetch)
    except Stopped:
        code = 128 + signal.SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_group(os.getpgid(0))
    if orphaned:
        _speak_for_the_dead(name)
    return code


def _speak_for_the_dead(name: str) -> None:
    """The flow was killed: nobody else is left to tell MLflow and Prefect. Imported here: no other child needs them."""
    from flows.engine.lineage import CURRENT, close_stage_run, mark_killed

    close_stage_run(name)
    if CURRENT.exists():  # not on a worker, whose flow lives elsewhere
        mark_killed(CURRENT.read_text())
    if os.environ.get(FLOW_RUN_ID):
        from flows.engine.api import report_crash

        report_crash(os.environ[FLOW_RUN_ID])


def _reproduce(name: str, fetch: bool) -> int:
    try:
        with Repo(_wait_for_lock=True) as repo:
            repo.reproduce(targets=[name], single_item=True, pull=fetch)
    except DvcException as error:
        reason = error.__cause__ or error
        if isinstance(reason, LockError):
            return LOCKED
        reason = " ".join(str(reason).split()) or repr(reason)
        said = re.search(r"exited with (-?\d+)$", reason)
        status = int(said[1]) if said else None  # of the stage's command
        if status is None:
            print(f"{name}: {reason}", flush=True)
        elif status < 0 or status > 128:  # the command itself, or the shell for it
            number = -status if status < 0 else status - 128
            hint = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
            print(f"{name}: killed by signal {number}{hint}", flush=True)
        return 1  # the command has said why
    return 0


def _stop(signum: int, frame: object) -> None:
    raise Stopped
