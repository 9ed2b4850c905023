"""Every parameter is checked before the first stage trains: a typo in policy.ppo must not surface after the SFT.

    python -m flows.engine.preflight sft,policy.ppo,runtime tasks.algorithms.sft tasks.algorithms.ppo

A process of its own, because only the stages' modules know their parameters and importing them is heavy. They are found
by the names that dvc.yaml's commands give them (`python -m <module>`); this is the only place that imports by name.
"""

import importlib
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.core.config import Config
from tasks.core.errors import InputError

if TYPE_CHECKING:
    from flows.engine.plan import Step


def check_params(steps: Iterable["Step"]) -> None:
    """Load the configuration of every one of these stages. Raises InputError with the first sentence."""
    steps = list(steps)
    modules = dict.fromkeys(module for step in steps for module in _modules(step.command))
    if not modules:
        return
    keys = ",".join(dict.fromkeys(key for step in steps for key in step.params))
    command = [sys.executable, "-m", "flows.engine.preflight", keys, *modules]
    checked = subprocess.run(command, capture_output=True, text=True)
    if checked.returncode:
        lines = [line for line in checked.stderr.splitlines() if line.strip()]
        raise InputError(lines[-1] if lines else f"the check of the parameters ended with exit code {checked.returncode}")


def main(keys: list[str], modules: list[str]) -> int:
    configs: dict[str, type[Config]] = {}
    for name in modules:
        try:
            members = vars(importlib.import_module(name)).values()
        except Exception as error:
            print(f"dvc.yaml: python -m {name} cannot start: {error}", file=sys.stderr)
            return 1
        for member in members:
            if isinstance(member, type) and issubclass(member, Config) and hasattr(member, "namespace"):
                configs[member.namespace] = member
    try:
        for key in keys:  # a Config of another file than params.yaml has a namespace that dvc.yaml does not name
            if key in configs:
                configs[key].load()
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _modules(command: str) -> list[str]:
    """What follows `python -m`, in each part of a command."""
    words = shlex.split(command)
    return [words[place + 1] for place, word in enumerate(words[:-1]) if word == "-m" and "python" in words[place - 1]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1].split(","), sys.argv[2:]))
