"""What a stage was given: params, dependencies and code; and whether all of it is still what lies there when the stage ends.

DVC hashes the inputs when a stage has ended. Edited meanwhile, they would be recorded, in dvc.lock and in the run cache, with
outputs that were made of others.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from tasks.core.config import PARAMS, Config, flatten
from tasks.core.errors import InputError
from tasks.core.files import digest, files_of

TASKS = Path(__file__).parents[1]


class Inputs:
    """Of one stage, as they were when it read them."""

    def __init__(self, seed: int, *configs: Config):
        self._seed = seed
        self.configs = {config.namespace: config for config in configs}
        self.deps: dict[str, str] = {}  # path: digest
        self._stamps: dict[str, list[tuple[str, int, int]]] = {}
        sources = {file for file in files_of(TASKS) if file.suffix == ".py"} | _loaded()
        self._code = {os.path.relpath(file): digest(file) for file in sorted(sources) if file.is_file()}

    def add(self, path: str) -> None:
        self._stamps[path] = _stamps(Path(path))
        self.deps[path] = digest(Path(path))

    @cached_property
    def key(self) -> str:
        """Hash of everything that determines the result. Nothing may be added later."""
        configs = {name: config.model_dump(mode="json") for name, config in self.configs.items()}
        parts = [self._seed, configs, self.deps, self._code]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def assert_unchanged(self) -> None:
        """Raises InputError with all that is no longer what the stage was given."""
        if changed := [*self._changed_params(), *self._changed_files()]:
            raise InputError(f"{'; '.join(changed)}; what was made of the old is not published: run again")

    def _changed_params(self) -> Iterator[str]:
        says = f"{PARAMS} changed while it ran"
        for config in self.configs.values():
            try:
                now = flatten({config.namespace: type(config).load().model_dump()})
            except InputError as error:
                raise InputError(f"{says} ({error}); correct it and run again") from None
            then = flatten({config.namespace: config.model_dump()})
            keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
            yield from (f"{says}: `{key}` {then.get(key)} → {now.get(key)}" for key in keys)

    def _changed_files(self) -> Iterator[str]:
        for path, then in self.deps.items():
            if _stamps(Path(path)) != self._stamps[path] and (not Path(path).exists() or digest(Path(path)) != then):
                yield f"{path} changed while it ran"
        for file in sorted(_loaded()):
            path = os.path.relpath(file)
            if path in self._code and not (file.exists() and digest(file) == self._code[path]):
                yield f"{path} changed while it ran"


def _loaded() -> set[Path]:
    """Source files of the project that this process has imported; and names of no file, which some libraries make up."""
    files = {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return {Path(file) for file in map(os.path.abspath, files) if _is_ours(file)}


def _is_ours(file: str) -> bool:
    """Compares text: libraries bring thousands of modules, and a Path of each takes longer than to hash what is ours."""
    installed = file.startswith((f"{sys.prefix}/", f"{sys.base_prefix}/"))
    return file.endswith(".py") and not installed and file.startswith((f"{TASKS}/", f"{os.getcwd()}/"))


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Of every file: equal ones mean that no content has to be read again."""
    return [(str(file), status.st_mtime_ns, status.st_size) for file in files_of(path) for status in [file.stat()]]
