"""How a stage's command starts: DVC would start a shell, and that a fresh interpreter that imports everything again.

Where the command is a plain `python -m <module> <arguments>`, the process that asks forks instead: the libraries are
loaded already. Anything else goes through DVC's shell as ever, and so does every command under `dvc repro`.
"""

import atexit
import os
import re
import runpy
import signal
import sys
import traceback
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

from dvc.exceptions import DvcException
from dvc.stage import run
from dvc.stage.exceptions import StageCmdFailedError

PLAIN = re.compile(r"python -m [\w.]+( [\w.,:=@/+-]+)*")

_run_in_shell = run._run


def fork_commands(not_for_the_stage: int) -> None:
    """From now on in this process. The function replaced is private to DVC, which is pinned; tests/flows watches it.

    not_for_the_stage: a descriptor that the stage must not hold open.
    """

    def start(executable: str | None, command: str, cwd: str, env: dict[str, str], **others: Any) -> None:
        if not PLAIN.fullmatch(command):
            return _run_in_shell(executable, command, cwd=cwd, env=env, **others)
        pid = os.fork()
        if pid == 0:
            os.close(not_for_the_stage)
            _become(command.split()[2:], cwd, env)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            raise StageCmdFailedError(command, code)

    run._run = start


def forbid_commands() -> None:
    """From now on DVC restores, or fails."""

    def refuse(executable: str | None, command: str, **others: Any) -> None:
        raise DvcException("its outputs are not in the DVC remote, where the worker that ran it should have left them")

    run._run = refuse


def _become(arguments: list[str], cwd: str, environment: dict[str, str]) -> NoReturn:
    """What `python -m <arguments>` is, but for the libraries that are loaded already."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    atexit._clear()  # what the parent has to do at its end is not ours
    code: Any = 1
    try:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        _forget_project()
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # taking so much of an interpreter down in good order would cost as much as a small stage


def _forget_project() -> None:
    """Drop every module that is not part of the installation: it may have been edited since it was loaded."""
    installed = (sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix))
    for name in [name for name, module in sys.modules.items() if not _place(module).startswith(installed)]:
        del sys.modules[name]


def _place(module: ModuleType) -> str:
    """Where it was loaded from; what comes with the interpreter itself lies in its prefix."""
    spec = getattr(module, "__spec__", None)
    places = [spec.origin] if spec and spec.has_location else list(spec.submodule_search_locations or []) if spec else []
    return str(places[0]) if places else sys.prefix
