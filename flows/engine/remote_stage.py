"""What a worker fetches to carry out a stage of somebody else's flow, and what it leaves for that flow when it is done."""

import os
import shutil
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dump_yaml

from flows.engine.checkout import make_checkout
from flows.engine.git import git
from flows.engine.graph import Graph, open_repo, read_graph
from flows.engine.plan import Step, make_plan
from flows.engine.runcache import overlaps
from tasks.core.errors import InputError
from tasks.core.stage import SCRATCH


def fetch_commit(commit: str) -> None:
    """From wherever this checkout fetches, unless it is here."""
    if not _known(commit):
        git("fetch", "--quiet", "--all")
    if not _known(commit):
        raise InputError(f"commit {commit[:12]} is not known to this worker: push it to where {os.getcwd()} fetches")


def enter(folder: Path, name: str, commit: str, patch: str, lock: dict[str, Any]) -> Step:
    """Make a scratch checkout, work in it from now on, and fetch what the stage reads: no more than that.

    A stage that was killed on this machine finds its checkpoint there.
    """
    make_checkout(folder, commit, patch)
    unfinished(folder).mkdir(exist_ok=True)
    (folder / SCRATCH / name).symlink_to(unfinished(folder))
    os.chdir(folder)
    dump_yaml("dvc.lock", lock)
    with open_repo() as repo:
        graph = read_graph(repo)
        if name not in graph.stages:
            raise InputError(f"dvc.yaml has no stage {name}")
        wrote = [out for need in graph.upstream[name] for out in graph.stages[need].outs]
        wanted = [out.fs_path for out in wrote if any(overlaps(dep, out) for dep in graph.stages[name].deps)]
        if wanted:
            repo.pull(targets=wanted)
        return make_plan(Graph({name: graph.stages[name]}, {name: ()}))[name]


def deliver(folder: Path, name: str) -> None:
    """Its outputs and DVC's note of how they were made go to the remote."""
    with open_repo() as repo:
        repo.push(targets=[name], run_cache=True)
    shutil.rmtree(unfinished(folder))


def unfinished(folder: Path) -> Path:
    """Beside the checkout, which is made anew every time."""
    return folder.with_name(f"{folder.name}.unfinished")


def _known(commit: str) -> bool:
    try:
        git("cat-file", "-e", f"{commit}^{{commit}}")
    except InputError:
        return False
    return True
