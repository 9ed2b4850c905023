"""dvc.lock is the old one or the new one, never a piece: DVC itself empties the file and then writes it.

Killed in between, it would leave a project that no dvc command can read; and whoever reads it without DVC's lock (the
flow, asking what must run while a stage is being committed) would see stages missing.
"""

import os
from typing import Any

from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc.utils.serialize import _common
from ruamel.yaml import YAML

_write = _common._dump_data


def _write_whole(path: Any, data: Any, *arguments: Any, **named: Any) -> None:
    partial = f"{os.fspath(path)}.partial"
    _write(partial, data, *arguments, **named)
    os.replace(partial, path)


def protect() -> None:
    """From now on in this process. The function replaced is private to DVC, which is pinned; tests/flows watches it."""
    _common._dump_data = _write_whole


def read_lock(text: str) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.lock."""
    return (YAML(typ="safe").load(text) or {}).get("stages", {})


def adopt(repo: Repo, stage: PipelineStage, outs: list[Output]) -> None:
    """Have dvc.lock say that the stage makes these outputs of its inputs: they are what DVC then restores."""
    found = {out.fs_path: out for out in outs}
    for out in stage.outs:
        out.hash_info, out.meta = found[out.fs_path].hash_info, found[out.fs_path].meta
    with repo.lock:
        Lockfile(repo, LOCK_FILE).dump(stage)
    repo._reset()
