"""What DVC records of a stage's inputs is what they were when it began: those it hashes at the end must be the same.

A stage of this project looks itself (tasks/core/inputs.py), before it publishes. This is for the moment between that and
DVC's own look, for what dvc.yaml declares and a stage reads in its own way, and for stages that are no stages of ours.
"""

from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.stage import Stage

from flows.engine.explain import param_changes, some

_save_deps = Stage.save_deps


def refuse_changed_inputs() -> None:
    """From now on in this process, which reproduces one stage. DVC hashes its inputs before it runs and after."""
    given: dict[str, Any] = {}

    def save_deps(stage: Stage, **options: Any) -> None:
        _save_deps(stage, **options)
        now = {str(dep): dep.hash_info for dep in stage.deps}
        if changed := [change for dep in stage.deps if str(dep) in given for change in _changes(dep, given[str(dep)])]:
            raise DvcException(f"{some(changed)} changed while it ran; nothing is recorded of it: run again")
        given.update(now)

    Stage.save_deps = save_deps


def _changes(dep: Any, then: Any) -> list[str]:
    if isinstance(dep, ParamsDependency):
        return list(param_changes(dict(then.value or {}), dict(dep.hash_info.value or {})))
    return [] if dep.hash_info == then else [str(dep)]
