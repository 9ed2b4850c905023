"""The stages of dvc.yaml and their order, as DVC itself sees them. Nothing about the DAG is written down a second time."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import Stage

from flows.engine.lockfile import protect
from tasks.core.config import PARAMS, policy_matrix, read_params
from tasks.core.errors import InputError, did_you_mean

logging.getLogger("dvc").setLevel(logging.WARNING)  # the flow says itself what it restores


@dataclass(frozen=True)
class Graph:
    """Stages in an order in which they can run; `upstream` names the direct dependencies of each."""

    stages: dict[str, Stage]
    upstream: dict[str, tuple[str, ...]]

    def until(self, target: str) -> "Graph":
        """Only `target` (a stage, or all of a matrix: `policy`) and what it needs."""
        wanted = {name for name in self.stages if name == target or name.partition("@")[0] == target}
        if not wanted:
            known = dict.fromkeys([*self.stages, *(name.partition("@")[0] for name in self.stages)])
            raise InputError(f"dvc.yaml has no stage `{target}`{did_you_mean(target, known)}")
        for name in reversed(self.stages):
            if name in wanted:
                wanted.update(self.upstream[name])
        return Graph(
            {name: stage for name, stage in self.stages.items() if name in wanted},
            {name: upstream for name, upstream in self.upstream.items() if name in wanted},
        )

    def gpus(self, name: str) -> int:
        """How many GPUs the stage asks for: `meta: {gpus: n}` in dvc.yaml, which does not enter DVC's hash."""
        gpus = (self.stages[name].meta or {}).get("gpus", 0)
        if not isinstance(gpus, int) or gpus < 0:
            raise InputError(f"dvc.yaml: stage {name}: meta.gpus is {gpus!r}; it should be a whole number")
        return gpus


@contextmanager
def open_repo() -> Iterator[Repo]:
    """A fresh view of the DVC project in this folder; DVC's errors become one sentence. One thread at a time may hold it."""
    if not Path("dvc.yaml").exists():
        raise InputError("no dvc.yaml here; run from the folder that holds it")
    protect()
    try:
        with Repo(_wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        raise InputError(_sentence(error)) from error


def read_graph(repo: Repo) -> Graph:
    """All stages that have a command. Files under `dvc add` are inputs like any other."""
    if PARAMS.exists() and "policy" in read_params():
        policy_matrix()  # a malformed matrix gives a traceback of DVC
    graph = repo.index.graph  # edges go from a stage to the stages it needs
    place = {stage: number for number, stage in enumerate(repo.index.stages)}
    ordered = networkx.lexicographical_topological_sort(graph.reverse(copy=False), key=place.__getitem__)
    stages = {stage.addressing: stage for stage in ordered if stage.cmd}
    upstream = {
        name: tuple(sorted((need.addressing for need in graph.successors(stage) if need.cmd), key=list(stages).index))
        for name, stage in stages.items()
    }
    return Graph(stages, upstream)


def dotted(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of nested params, inner ones as a.b."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{key}.")


def _sentence(error: DvcException) -> str:
    """DVC's message on one line, with the nearest key where it names one that params.yaml lacks."""
    text = " ".join(str(error).split())
    if "is not a git repository" in text:
        return (
            f"{Path.cwd()} is no git checkout, and runs are recorded by commit: clone the repository, "
            "or make one of this folder (git init && git add --all && git commit -m start)"
        )
    for file in ("dvc.lock", "dvc.yaml"):
        if Path(file).exists() and "\n<<<<<<< " in f"\n{Path(file).read_text(encoding='utf-8')}":
            return f"{file} holds the marks of a merge conflict; take one side (git checkout --ours {file}) and run again"
    cause = getattr(error, "exc", None)  # of a file that does not fit the schema: the list of what is wrong
    for problem in getattr(cause, "errors", [])[:1]:
        text += f": {problem.error_message} in {'.'.join(map(str, problem.path))}"
    missing = re.search(r"Could not find '([\w.]+)'", text)
    if missing:
        text += did_you_mean(missing[1], dotted(read_params()))
    return text
