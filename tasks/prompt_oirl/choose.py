"""Queries in, for each the prompt to ask it with: what a fitted Prompt-OIRL model answers, here and over HTTP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tasks.core.errors import InputError, did_you_mean
from tasks.core.files import Row
from tasks.prompt_oirl.reference import Reference

VERSIONS = "prompt_uris.json"  # in the folder of a registered model: prompt_id -> URI in MLflow's prompt registry


class Choosing(Protocol):
    """What selector.py and finetune.py have in common."""

    prompts: Any  # prompt_id -> text

    def features(self, queries: Sequence[str]) -> Any: ...

    def score(self, features: Any) -> Any: ...

    def unread(self, queries: Sequence[str]) -> list[int]: ...


def load_selector(folder: Path) -> tuple[Choosing, Reference]:
    """Whatever the stage prompt_oirl has fitted into this folder, and what it kept of its log."""
    from tasks.prompt_oirl.finetune import FinetunedSelector
    from tasks.prompt_oirl.selector import Selector

    selector = Selector.load(folder) if (folder / "selector.json").exists() else FinetunedSelector.load(folder)
    return selector, Reference.load(folder / "reference.npz")


def choose(
    selector: Choosing, reference: Reference, queries: Sequence[Any], candidates: Sequence[str], margin: float = 0.0
) -> list[Row]:
    """One row per query {prompt_id, prompt, probability, alternatives, unread_tokens, distance, far}.

    alternatives: from likely to unlikely. unread_tokens: how many tokens at the end of the query the encoder's window left out.
    distance, far: see tasks/prompt_oirl/reference.py.
    candidates: ids of the prompts to choose among. margin: how much more r̂ must promise of another prompt than of the best one
    on average. Raises InputError for unknown ids, for none at all, for a margin that is no chance, and for a blank query.
    """
    known = list(selector.prompts)
    candidates = list(dict.fromkeys(candidates))
    if not known:
        raise InputError("this model knows no prompts: the log it was made from was empty")
    if not candidates:
        raise InputError(f"`candidates` is empty; name at least one of {', '.join(known)}, or leave it out to choose among all")
    for candidate in candidates:
        if candidate not in known:
            hint = did_you_mean(candidate, known) or f"; there are {', '.join(known)}"
            raise InputError(f"prompt {candidate!r} is not known{hint}")
    for index, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"query {index} is blank or null; write one, or leave the row out")
    if not 0 <= margin <= 1:
        raise InputError(f"`margin` is {margin}; it is a difference of chances, from 0 to 1")
    if not queries:
        return []
    features = selector.features(list(queries))
    chances = selector.score(features)[:, [known.index(candidate) for candidate in candidates]]
    usual = max(candidates, key=lambda candidate: reference.success[candidate])
    distances = reference.distances(features).round(3).tolist()
    rows = []
    for found, unread, distance in zip(chances, selector.unread(list(queries)), distances, strict=True):
        by_prompt = dict(zip(candidates, map(float, found), strict=True))
        first = max(candidates, key=lambda candidate: by_prompt[candidate])
        first = usual if by_prompt[first] - by_prompt[usual] < margin else first
        far = {"unread_tokens": unread, "distance": distance, "far": distance > 1}
        rows.append(row_of(by_prompt, selector.prompts, first) | far)
    return rows


def with_versions(rows: list[Row], uris: dict[str, str]) -> list[Row]:
    """Each with the version of its prompt in MLflow's registry as `prompt_uri`; empty where it has none."""
    return [row | {"prompt_uri": uris.get(row["prompt_id"], "")} for row in rows]


def row_of(chances: dict[str, float], prompts: Any, first: str) -> Row:
    """{prompt_id, prompt, probability, alternatives} of the prompt `first`."""
    others = sorted((each for each in chances if each != first), key=lambda other: -chances[other])
    alternatives = [{"prompt_id": other, "probability": round(chances[other], 6)} for other in others]
    return {
        "prompt_id": first,
        "prompt": prompts[first],
        "probability": round(chances[first], 6),
        "alternatives": alternatives,
    }
