"""The log Prompt-OIRL learns from: which prompt got which query right, collected from our own model or brought from elsewhere.

`prompt_log.source` is a table that DVC watches, such as the one collect_prompt_log writes, or a file of data/prompt_logs that
names a log outside the repository; tasks/data/calls.py reads both. What is added here is the split.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json
from tasks.data.calls import LogFileConfig, read_calls, taken
from tasks.data.contamination import HeldOut, shared_grams
from tasks.data.pinned import pinned_file, read_rows
from tasks.data.splits import normalise

FOLDS = 5


class PromptLogConfig(Config):
    """params.yaml: prompt_log. What the gate and the fit must agree on."""

    namespace = "prompt_log"

    source: str
    split: Literal["given", "question"]
    fold: Annotated[int, Field(ge=0, lt=FOLDS)]


def read_prompt_log(config: PromptLogConfig, path: Path) -> list[Row]:
    """One row per call, with exactly the eight columns, `correct` as in tasks/data/calls.py, and the split to use.

    path: that of `config.source`. Raises InputError for a log that is missing, changed, not as described, or of one kind of
    answer only. An empty table, which is what collect_prompt_log writes for queries without answers, is returned as it is.
    """
    rows = read_calls(path)
    if config.split == "question":
        _split_by_question(rows, config.fold)
    elif any(row["split"] is None for row in rows):
        raise InputError(f"{path}: the log has no column `split`; set `prompt_log.split: question`, or name it in `columns`")
    if path.suffix == ".yaml":
        _refuse_one_kind(rows, path)
    return rows


def read_critics(path: Path) -> list[Row]:
    """What the file of data/prompt_logs names as `critics`, if anything: {prompt_id, row, confidence}."""
    critics = LogFileConfig.load(path).critics if path.suffix == ".yaml" else None
    if critics is None:
        return []
    file = pinned_file(critics.file, critics.sha256, f"{path}: log.critics")
    rows = list(taken(read_rows(file), critics.where, file).values())
    for column in ("prompt_id", "row", "confidence"):
        if column not in rows[0]:
            raise InputError(f"{file}: no column `{column}` (`critics` of {path}); there are {', '.join(rows[0])}")
    return rows


def split_leaks(report: Path) -> bool:
    """Whether the split has test questions in train, as the gate has found. Refused, unless params.yaml allows it.

    report: the folder of the gate. Not to be asked by what divides the questions itself.
    """
    verdict = read_json(report / "verdict.json")
    if refusal := verdict.get("refusal"):
        raise InputError(refusal)
    return bool(verdict["contaminated"])


def prompt_ids(log: Sequence[Row]) -> tuple[list[str], list[str]]:
    """(with training calls, without: unseen prompts, under which only test queries are asked), in the order of the log."""
    every = list(dict.fromkeys(row["prompt_id"] for row in log))
    trained = {row["prompt_id"] for row in log if row["split"] == "train"}
    return [id for id in every if id in trained], [id for id in every if id not in trained]


def related(queries: Sequence[str]) -> list[str]:
    """A key for each query, the same for those that nearly repeat each other, directly or through others.

    Near is what the gate means by it (tasks/data/contamination.py), with room to spare: what has different keys cannot be found
    to be nearly the same.
    """
    keys = [normalise(query) for query in queries]
    texts = sorted(set(keys))
    known, root = HeldOut(texts, shared_grams(texts)), list(range(len(texts)))

    def find(place: int) -> int:
        while root[place] != place:
            place = root[place]
        return place

    for place, text in enumerate(texts):
        for other, _ in known.near(text):
            first, second = sorted((find(place), find(other)))
            root[second] = first
    names = {text: texts[find(place)] for place, text in enumerate(texts)}
    return [names[key] for key in keys]


def _split_by_question(rows: Sequence[Row], fold: int) -> None:
    """One fifth of the questions is test, by hash of the text; near-repeats of a question go with it."""
    for row, key in zip(rows, related([row["query"] for row in rows]), strict=True):
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % FOLDS
        row["split"] = "test" if place == fold else "train"


def _refuse_one_kind(rows: Sequence[Row], path: Path) -> None:
    labels = {row["correct"] for row in rows if row["split"] == "train"} - {None}
    if len(labels) == 1:
        label = labels.pop()
        kind = {1: "right", 0: "wrong"}.get(label, f"worth {label}")
        raise InputError(
            f"{path}: every answer to a training question is {kind}, so no prompt is better than another; bring more"
        )
