"""An earlier flow once more, in a scratch checkout: code, params and source data as they were, nothing that was computed."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import TextIO

from dvc.exceptions import DvcException
from dvc.repo import Repo

from flows.engine.checkout import make_checkout, start_align
from flows.engine.executor import ONE_FLOW
from flows.engine.graph import open_repo, read_graph
from flows.engine.lifetime import GRACE, end_group
from flows.engine.lineage import DVC_LOCK, mark_killed
from flows.engine.lockfile import read_lock
from flows.engine.locks import take, wait_for
from flows.engine.rerun.record import Record, metrics_of
from flows.engine.rerun.verdict import Side
from tasks.core.errors import InputError
from tasks.core.stage import RECEIPTS

FINDS_ALIGN = "import importlib.util, sys; sys.exit(importlib.util.find_spec('flows.align') is None)"


def claim(folder: Path) -> TextIO:
    """One rerun at a time works in a checkout: a locked file beside it, in which its MLflow run is named while it works.

    What is named in a file that nobody has locked was killed, and MLflow is told.
    """
    mine = folder.with_suffix(".lock")
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.touch()
    free = {file: lock for file in mine.parent.glob("*.lock") if (lock := take(file))}
    for lock in free.values():
        mark_killed(lock.read())
        lock.truncate(0)
    claimed = free.pop(mine, None)
    for lock in free.values():
        lock.close()
    if not claimed:
        raise InputError(f"another process is at work on this rerun, in {folder}; wait for it, or end it")
    return claimed


def restore(record: Record, folder: Path) -> None:
    """Make the checkout. Its DVC cache is empty and it has no dvc.lock, so every stage must run."""
    wait_for(folder / ONE_FLOW).close()  # a killed rerun of it may still be ending
    make_checkout(folder, record.commit, record.patch, shared_cache=False)
    (folder / DVC_LOCK).unlink(missing_ok=True)
    if not (folder / "dvc.yaml").exists():
        raise InputError(f"commit {record.commit[:12]} has no dvc.yaml, hence no stages; choose a later one")
    if subprocess.run([sys.executable, "-c", FINDS_ALIGN], cwd=folder, capture_output=True).returncode:
        raise InputError(f"commit {record.commit[:12]} has no flows/align.py to run its stages; choose a later one")
    _bring_sources(record, folder)


def stages_of(folder: Path, until: str | None) -> dict[str, tuple[str, ...]]:
    """What each stage of a checkout needs, in an order in which they can run."""
    with chdir(folder), open_repo() as repo:  # DVC names stages as they are seen from the current folder
        graph = read_graph(repo)
        return (graph.until(until) if until else graph).upstream


def reproduce(folder: Path, until: str | None, says: dict[str, str], show: Callable[[str], None]) -> str:
    """Run the flow of the checkout, `says` in its environment. Returns what it said when it failed, or nothing."""
    process = start_align(folder, *(["--until", until] if until else []), **says)
    assert process.stdout is not None
    lines: list[str] = []
    try:
        for line in process.stdout:
            show(line.rstrip())
            lines = [*lines[-99:], line.strip()]
        code = process.wait()
    except BaseException:  # Ctrl-C, SIGTERM, cancelled in Prefect
        end_group(process.pid, 2 * GRACE)  # it grants its own stages GRACE
        process.wait()
        raise
    return "\n".join(filter(None, lines)) or f"exit code {code}" if code else ""


def reproduced(folder: Path) -> Side:
    """What the flow of the checkout has left."""
    lock = folder / DVC_LOCK
    stages = read_lock(lock.read_text(encoding="utf-8")) if lock.exists() else {}
    receipts = {name: folder / RECEIPTS / f"{name}.json" for name in stages}
    return Side(stages, {name: metrics_of(json.loads(file.read_text())) for name, file in receipts.items() if file.exists()})


def _bring_sources(record: Record, folder: Path) -> None:
    """What `dvc add` and `dvc import` track comes from this project's cache, or from where DVC finds it."""
    with Repo() as here:
        full = {"cache": {"dir": here.cache.local_cache_dir}}
    try:
        with chdir(folder), Repo(config=full) as there:  # with the cache of this project, for this once
            sources = [stage.addressing for stage in there.index.stages if not stage.cmd]
            if sources:
                there.pull(targets=sources)
    except DvcException as error:
        said = " ".join(str(error).split())
        raise InputError(f"the source data of {record.name} cannot be restored: {said}") from error
