"""What the flow is about to do with each stage, and why: decided from hashes, before anything starts.

cached   the outputs in the workspace belong to these inputs
restore  DVC's run cache holds the outputs of these inputs: they are checked out, nothing is computed
run      nothing of the kind: the stage's command runs
depends  an upstream stage will run; whether this one must is known when that one has written its outputs
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dvc.dependency import Dependency, ParamsDependency
from dvc.fs import localfs
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage
from dvc.utils.serialize import load_path
from dvc_data.hashfile.hash_info import HashInfo

from flows.engine.explain import param_changes, some
from flows.engine.graph import Graph, dotted
from flows.engine.lockfile import adopt
from flows.engine.runcache import foreseen_hash, foreseen_outs, is_as_locked, overlaps, work_of
from tasks.core.errors import InputError, did_you_mean

Action = Literal["cached", "restore", "run", "depends"]


@dataclass(frozen=True)
class Step:
    """One line of the plan."""

    name: str
    action: Action
    why: str
    upstream: tuple[str, ...]
    command: str
    params: tuple[str, ...]  # keys of params.yaml that the stage reads
    gpus: int
    work: str = ""  # what DVC's run cache calls it, where that is known before it runs


def make_plan(graph: Graph) -> dict[str, Step]:
    """A step for every stage, in an order in which they can run."""
    steps: dict[str, Step] = {}
    restored: dict[str, list[Output]] = {}  # outputs that will be checked out, by stage
    read = cache(_read)
    for name, stage in graph.stages.items():
        upstream = graph.upstream[name]
        coming = [out for need in upstream for out in restored.get(need, [])]
        waits_for = [need for need in upstream if steps[need].action in ("run", "depends")]
        unknown = [out for need in waits_for for out in graph.stages[need].outs]
        hashes, reasons = _compare(stage, coming, unknown, read)
        action: Action
        work = ""
        if waits_for:
            action, reasons = "depends", [*reasons, f"upstream {some(waits_for)} will run"]
        elif not reasons:
            action, reasons = "cached", ["frozen"] if stage.frozen else []
        elif (outs := foreseen_outs(stage, hashes)) is not None:
            action, restored[name] = "restore", outs
        else:
            action, work = "run", work_of(stage, hashes)
        params = tuple(key for dep in stage.params for key in dep.params)
        steps[name] = Step(name, action, some(reasons, "; "), upstream, _command(stage), params, graph.gpus(name), work)
    return steps


def resolve(repo: Repo, name: str) -> tuple[Literal["cached", "restored", "run"], str]:
    """Once everything upstream is done: leave the stage, check its outputs out of the cache, or say that it must run; and
    what DVC's run cache calls that work."""
    stage = repo.stage.load_one(name=name)
    hashes, reasons = _compare(stage, [], [], _read)
    if not reasons:
        return "cached", ""
    if (outs := foreseen_outs(stage, hashes)) is None:
        return "run", work_of(stage, hashes)
    if is_as_locked(stage, hashes):  # DVC looks no further than dvc.lock then
        adopt(repo, stage, outs)
    repo.reproduce(targets=[name], single_item=True)
    return "restored", ""


def _compare(
    stage: Stage, coming: list[Output], unknown: list[Output], read: Callable[[str], Any]
) -> tuple[dict[str, HashInfo], list[str]]:
    """The hashes that the stage's inputs will have, and every reason why its outputs cannot stay as they are.

    coming: outputs of upstream stages that will be restored; unknown: of those that will run; read: of a params file.
    """
    hashes: dict[str, HashInfo] = {}
    changed: list[str] = []
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            hashes[dep.fs_path] = _params_hash(stage, dep, read(dep.fs_path))
            old, new = (dict(one.value or {}) for one in (dep.hash_info, hashes[dep.fs_path]))  # type: ignore[arg-type]
            changed += param_changes(old, new)  # where others have a hash, DVC has the values
            continue
        if any(overlaps(dep, out) for out in unknown):
            continue
        overlapping = [out for out in coming if overlaps(dep, out)]
        if not overlapping and not dep.exists:
            raise _missing(stage, dep)
        hashes[dep.fs_path] = foreseen_hash(dep, overlapping) if overlapping else dep.get_hash()
        if hashes[dep.fs_path] != dep.hash_info:
            changed.append(f"{dep} changed")
    never = not any(item.hash_info for item in [*stage.deps, *stage.outs])
    if never:
        return hashes, ["never run"]
    if stage.frozen:
        return hashes, []
    if stage.always_changed or stage.is_callback:
        changed.append("runs every time")
    if stage.changed_stage():
        changed.insert(0, "command changed")
    return hashes, changed + [reason for out in stage.outs for reason in _changed_out(out)]


def _params_hash(stage: Stage, dep: ParamsDependency, values: Any) -> HashInfo:
    """What DVC records of a params file: the values of the keys that the stage names. The file is read once for all."""
    found: dict[str, Any] = {} if dep.params else dict(values)
    for key in dep.params:
        inner = values
        for part in key.split("."):
            if not isinstance(inner, dict) or part not in inner:
                near = did_you_mean(key, dotted(values))
                raise InputError(f"{dep}: missing key `{key}`, which stage {stage.addressing} reads{near}")
            inner = inner[part]
        found[key] = inner
    return HashInfo(dep.PARAM_PARAMS, found)  # type: ignore[arg-type]  # DVC puts the values where others have a hash


def _changed_out(out: Output) -> Iterator[str]:
    match out.status().get(str(out)):
        case "deleted":
            yield f"{out} missing"
        case "modified":
            yield f"{out} was changed by hand"
        case "not in cache":
            yield f"{out} not in DVC's cache"
        case "new":
            yield f"{out} is a new output"


def _read(path: str) -> Any:
    try:
        return load_path(path, localfs)
    except FileNotFoundError:
        raise InputError(f"{Path(path).name} is missing; stages in dvc.yaml read it") from None


def _missing(stage: Stage, dep: Dependency) -> InputError:
    """An input that is not there and that no stage makes."""
    path = Path(str(dep))
    near = did_you_mean(path.name, [item.name for item in path.parent.glob("*")] if path.parent.is_dir() else [])
    return InputError(f"{path} is missing: stage {stage.addressing} reads it and no stage writes it{near}")


def _command(stage: Stage) -> str:
    return stage.cmd if isinstance(stage.cmd, str) else " && ".join(stage.cmd)
