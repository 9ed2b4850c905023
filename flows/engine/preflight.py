"""Every parameter is checked before the first stage trains: a typo in policy.ppo must not surface after the SFT.

Only the stages' modules know what they accept. They are found by the names that dvc.yaml's commands give them
(`python -m <module>`), and imported by the process that will run them.
"""

import ast
import importlib
import inspect
import shlex
import sys
from collections.abc import Iterator
from contextlib import suppress

from tasks.core.config import Config
from tasks.core.errors import InputError


def complaint_about(keys: list[str], modules: list[str]) -> str:
    """Import the modules and load every configuration that the keys name. Returns the first complaint, or nothing."""
    configs: dict[str, type[Config]] = {}
    for name in modules:
        try:
            members = vars(importlib.import_module(name)).values()
        except Exception as error:
            return f"dvc.yaml: python -m {name} cannot start: {error}"
        for member in members:
            if isinstance(member, type) and issubclass(member, Config) and hasattr(member, "namespace"):
                configs[member.namespace] = member
    try:
        for key in keys:  # a Config of another file than params.yaml has a namespace that dvc.yaml does not name
            if key in configs:
                configs[key].load()
    except InputError as error:
        return str(error)
    return ""


def load_libraries() -> None:
    """Import what the project's modules, as far as they are loaded, will import inside their functions."""
    mine = [module for name, module in sys.modules.items() if name.startswith("tasks.") and getattr(module, "__file__", None)]
    for library, name in {found for module in mine for found in _imports(inspect.getsource(module))}:
        if not library.startswith("tasks."):
            with suppress(Exception):  # one that cannot be imported is the stage's affair
                getattr(importlib.import_module(library), name or "", None)


def _imports(source: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import statement at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def modules_of(command: str) -> list[str]:
    """What follows `python -m`, in each part of a command."""
    words = shlex.split(command)
    return [words[place + 1] for place, word in enumerate(words[:-1]) if word == "-m" and "python" in words[place - 1]]
