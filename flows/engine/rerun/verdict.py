"""Did it come out the same? What was recorded against what was reproduced, stage by stage; pure functions.

identical         every output has the recorded hash. The receipt is left out: it names MLflow runs, which are new
within tolerance  outputs differ, but every metric on record has changed by at most the tolerance, relative to the
                  recorded value: |now - then| <= tolerance * |then|. A stage without metrics is judged by those of the
                  stages that come after it, and if none of them has any, by those before it
different         outputs differ by more than that, or no tolerance was granted

Why is read from dvc.lock: a stage whose inputs differ only because an earlier stage does is no news; one that differs
though its inputs are the recorded ones points at where it ran, or at chance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from flows.engine.environment import Environment, environment_changes, hardware_changes
from flows.engine.explain import param_changes, some
from tasks.core.stage import RECEIPTS

Word = Literal["identical", "within tolerance", "different", "failed", "not run", "not recorded"]


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: the stages as dvc.lock has them, and the metrics of each."""

    stages: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """On one stage. differs: its outputs that do; drift: the largest relative change of a metric, None without metrics."""

    stage: str
    word: Word
    why: str = ""
    differs: tuple[str, ...] = ()
    drift: float | None = None


def judge(
    upstream: dict[str, tuple[str, ...]],
    then: Side,
    now: Side,
    tolerance: float,
    failed: dict[str, str],
    unexplained: Callable[[str], str],
) -> list[Verdict]:
    """A verdict for every stage, in the order of `upstream`, which is one in which they can run.

    failed: stages that failed now, and why; unexplained: asked why a stage differs of which no recorded input does.
    """
    drifts = {name: drift(then.metrics.get(name, {}), now.metrics.get(name, {})) for name in upstream}
    makers = {path: name for name in upstream for side in (then, now) for path in _hashes(side.stages.get(name, {}), "outs")}
    blame: dict[str, list[str]] = {}  # the stages with which the differences of this one began
    verdicts: list[Verdict] = []
    for name in upstream:
        blame[name] = []
        if name in failed:
            verdicts.append(Verdict(name, "failed", failed[name]))
            continue
        if name not in now.stages:
            causes = [stage for stage in failed if stage in _above(name, upstream)]
            why = f"because {' and '.join(causes)} failed" if causes else "the flow ended before"
            verdicts.append(Verdict(name, "not run", why))
            continue
        if name not in then.stages:
            blame[name] = [name]  # if what it makes is not what a later stage had
            verdicts.append(Verdict(name, "not recorded", "there is nothing to compare it with"))
            continue
        old, new = then.stages[name], now.stages[name]
        differs = tuple(path for path in _differing(old, new, "outs") if path != (RECEIPTS / f"{name}.json").as_posix())
        if not differs:
            verdicts.append(Verdict(name, "identical", drift=drifts[name]))
            continue
        inherited, own = _inputs(old, new, makers, blame)
        blame[name] = inherited or [name]
        because = [f"because {' and '.join(inherited)} differ{'s' if len(inherited) == 1 else ''}"] if inherited else []
        reasons = [*own, *because] or [unexplained(name)]
        within = tolerance > 0 and _within(name, upstream, drifts, tolerance)
        verdicts.append(
            Verdict(name, "within tolerance" if within else "different", some(reasons, "; "), differs, drifts[name])
        )
    return verdicts


def conclude(verdicts: list[Verdict]) -> tuple[Word, str]:
    """The verdict on the whole, and the sentence that says it: the worst of all, and the first stage it is true of."""
    first = {word: next((one for one in verdicts if one.word == word), None) for word in ("failed", "not run", "different")}
    if broken := first["failed"] or first["not run"]:
        return "failed", f"{broken.stage} {broken.word}: {broken.why}"
    compared = [one for one in verdicts if one.word != "not recorded"]
    differing = [one for one in compared if one.differs]
    missing = len(verdicts) - len(compared)
    unknown = f"; {missing} {'is' if missing == 1 else 'are'} not on record" if missing else ""
    if worst := first["different"]:
        begins = f" (differences begin at {differing[0].stage})" if differing[0] is not worst else ""
        return "different", f"different: {worst.stage} is the first stage that differs{begins}: {worst.why}{unknown}"
    if differing:
        largest = max(one.drift for one in compared if one.drift is not None)
        said = f"{len(differing)} of {len(compared)} stages differ, {differing[0].stage} first ({differing[0].why})"
        said += f"; no metric changed by more than {largest:.2g} of its value"
        return "within tolerance", f"within tolerance: {said}{unknown}"
    return "identical", f"identical: all outputs of {len(compared)} stages have the recorded hashes{unknown}"


def surroundings(then: Environment | None, now: Environment) -> str:
    """Why a stage may differ of which no recorded input does."""
    if then is None:
        return "its inputs are the recorded ones; the environment and hardware it ran on are not on record"
    places = {"environment": environment_changes(then, now), "hardware": hardware_changes(then, now)}
    said = [f"{place} changed: {some(changes)}" for place, changes in places.items() if changes]
    return "; ".join(said) or "nothing that is recorded changed: the stage is not deterministic"


def drift(then: dict[str, float], now: dict[str, float]) -> float | None:
    """The largest relative change of a recorded metric; infinite for one that is gone, or was 0 and is not."""
    return max((_relative(value, now.get(name, math.nan)) for name, value in then.items()), default=None)


def _inputs(
    then: dict[str, Any], now: dict[str, Any], makers: dict[str, str], blame: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    """The stages because of which inputs differ, and what else differs in what went in."""
    inherited: list[str] = []
    own = ["command changed"] if then.get("cmd") != now.get("cmd") else []
    for file in {**then.get("params", {}), **now.get("params", {})}:
        own += param_changes(then.get("params", {}).get(file, {}), now.get("params", {}).get(file, {}))
    for path in _differing(then, now, "deps"):
        causes = [cause for out, maker in makers.items() if _overlap(path, out) for cause in blame.get(maker, [])]
        if causes:
            inherited += causes
        else:
            own.append(f"{'code' if _is_code(path) else 'data'} {path} changed")
    return list(dict.fromkeys(inherited)), own


def _within(name: str, upstream: dict[str, tuple[str, ...]], drifts: dict[str, float | None], tolerance: float) -> bool:
    after = [later for later in upstream if name in _above(later, upstream)]
    for judges in ([name], after, _above(name, upstream)):
        measured = [found for judge in judges if (found := drifts[judge]) is not None]
        if measured:
            return max(measured) <= tolerance
    return False


def _above(name: str, upstream: dict[str, tuple[str, ...]]) -> set[str]:
    direct = set(upstream[name])
    return direct.union(*(_above(need, upstream) for need in direct))


def _relative(then: float, now: float) -> float:
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    change = abs(now - then) / abs(then) if then else math.inf
    return math.inf if math.isnan(change) else change


def _hashes(stage: dict[str, Any], kind: str) -> dict[str, str | None]:
    """{path: hash}, whichever hash DVC used."""
    found = {entry["path"]: [entry.get(key) for key in ("md5", "etag", "checksum")] for entry in stage.get(kind, [])}
    return {path: next(filter(None, hashes), None) for path, hashes in found.items()}


def _differing(then: dict[str, Any], now: dict[str, Any], kind: str) -> list[str]:
    old, new = _hashes(then, kind), _hashes(now, kind)
    return [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]


def _overlap(one: str, other: str) -> bool:
    """Whether one path is the other, or lies inside it."""
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)


def _is_code(path: str) -> bool:
    return path.endswith(".py") or PurePosixPath(path).parts[0] in ("tasks", "flows")
