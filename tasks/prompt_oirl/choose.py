"""Queries in, for each the prompt to ask it with: what a fitted Prompt-OIRL model answers, here and over HTTP."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from tasks.core.errors import InputError
from tasks.core.files import Row


class Choosing(Protocol):
    """What selector.py and finetune.py have in common."""

    prompts: Any  # prompt_id -> text

    def probabilities(self, queries: Sequence[str]) -> Any: ...

    def unread(self, queries: Sequence[str]) -> list[int]: ...


def load_selector(folder: Path) -> Choosing:
    """Whatever the stage prompt_oirl has fitted into this folder."""
    from tasks.prompt_oirl.finetune import FinetunedSelector
    from tasks.prompt_oirl.selector import Selector

    return Selector.load(folder) if (folder / "selector.json").exists() else FinetunedSelector.load(folder)


def choose(selector: Choosing, queries: Sequence[Any], candidates: Sequence[str]) -> list[Row]:
    """One row per query {prompt_id, prompt, probability, alternatives, unread_tokens}, alternatives from likely to unlikely.

    unread_tokens: how many tokens at the end of the query the encoder's window left out; 0 if the whole query was read.
    candidates: ids of the prompts to choose among. Raises InputError for unknown ids, for none at all, and for a blank query.
    """
    known = list(selector.prompts)
    candidates = list(dict.fromkeys(candidates))
    if not known:
        raise InputError("this model knows no prompts: the log it was made from was empty")
    if not candidates:
        raise InputError(f"`candidates` is empty; name at least one of {', '.join(known)}, or leave it out to choose among all")
    for candidate in candidates:
        if candidate not in known:
            folded = {name.casefold(): name for name in reversed(known)}
            close = difflib.get_close_matches(candidate.casefold(), folded, n=1)
            hint = f"did you mean {folded[close[0]]}?" if close else f"there are {', '.join(known)}"
            raise InputError(f"prompt {candidate!r} is not known; {hint}")
    for index, query in enumerate(queries):
        if not isinstance(query, str) or not query.strip() or query == "None":  # so MLflow's server passes a null on
            raise InputError(f"query {index} is blank or null; write one, or leave the row out")
    if not queries:
        return []
    chances = selector.probabilities(list(queries))[:, [known.index(candidate) for candidate in candidates]]
    return [
        _row(dict(zip(candidates, map(float, row), strict=True)), selector.prompts) | {"unread_tokens": unread}
        for row, unread in zip(chances, selector.unread(list(queries)), strict=True)
    ]


def _row(chances: dict[str, float], prompts: Any) -> Row:
    first, *others = sorted(chances, key=lambda candidate: -chances[candidate])
    alternatives = [{"prompt_id": other, "probability": round(chances[other], 6)} for other in others]
    return {
        "prompt_id": first,
        "prompt": prompts[first],
        "probability": round(chances[first], 6),
        "alternatives": alternatives,
    }
