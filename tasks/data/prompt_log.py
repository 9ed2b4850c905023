"""The log Prompt-OIRL learns from: which prompt got which query right, collected from our own model or brought from elsewhere.

`prompt_log.source` is a table (.parquet, .jsonl, .json, .csv) that DVC watches, such as the one collect_prompt_log writes, or a
file of data/prompt_logs (.yaml) that names a log outside the repository, pinned by its sha256.

Needed are `query`, `prompt` and `correct`, under these names or by templates over the columns there are ("{question}");
`query_id`, `prompt_id`, `completion`, `split` and `cost` (of the call) are taken where they are there. One row is one call of
the model: a query that was asked again under the same prompt stands there again, and may well have been answered differently.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row, read_json
from tasks.data.contamination import HeldOut, shared_grams
from tasks.data.pinned import pinned_file, read_rows
from tasks.data.splits import normalise
from tasks.data.templates import fill

LogColumn: TypeAlias = Literal["query_id", "prompt_id", "query", "prompt", "completion", "correct", "split", "cost"]

REQUIRED: tuple[LogColumn, ...] = ("query", "prompt", "correct")
OPTIONAL: tuple[LogColumn, ...] = ("query_id", "prompt_id", "completion", "split", "cost")
LABELS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": None}
COLUMNS = (*REQUIRED, *OPTIONAL)
FOLDS = 5


class PromptLogConfig(Config):
    """params.yaml: prompt_log. What the gate and the fit must agree on."""

    namespace = "prompt_log"

    source: str
    split: Literal["given", "question"]
    fold: Annotated[int, Field(ge=0, lt=FOLDS)]


class CriticsConfig(Config):
    """Inside a file of data/prompt_logs: how sure the language model was of each answer to a test query.

    Columns prompt_id, row (the number of the test call under its prompt) and confidence.
    """

    file: str
    sha256: str | None = None
    where: dict[str, str | bool | int] = Field(default_factory=dict)


class LogFileConfig(Config):
    """A file of data/prompt_logs: where a log lies, which of its rows, and how its columns are called."""

    namespace = "log"

    file: str  # .jsonl, .json, .csv or .parquet; ${VARIABLE} is replaced
    sha256: str | None = None
    where: dict[str, str | bool | int] = Field(default_factory=dict)  # column: the value that its rows must have
    columns: dict[LogColumn, str] = Field(default_factory=dict)
    critics: CriticsConfig | None = None


def read_prompt_log(config: PromptLogConfig, path: Path) -> list[Row]:
    """One row per call, with exactly the eight columns, `correct` as a bool (None where it is empty) and the split to use.

    path: that of `config.source`. Raises InputError for a log that is missing, changed, not as described, or of one kind of
    answer only. An empty table, which is what collect_prompt_log writes for queries without answers, is returned as it is.
    """
    if path.suffix == ".yaml":
        described = LogFileConfig.load(path)
        file = pinned_file(described.file, described.sha256, f"{path}: log")
        rows = _calls(_taken(read_rows(file), described.where, file), described.columns, file)
    elif rows := read_rows(path):
        rows = _calls(dict(enumerate(rows)), {}, path)
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
    rows = list(_taken(read_rows(file), critics.where, file).values())
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


def _taken(rows: list[Row], where: dict[str, str | bool | int], file: Path) -> dict[int, Row]:
    """The rows to use, by their number in the file."""
    if not rows:
        raise InputError(f"{file} holds no rows; a log needs at least one")
    taken = dict(enumerate(rows))
    for column, value in where.items():
        try:
            fill(f"{{{column}}}", rows[0])
        except InputError as error:
            raise InputError(f"{file}: {error} (`where` of the log)") from None
        found = {index: str(row.get(column)) for index, row in taken.items()}
        taken = {index: taken[index] for index, text in found.items() if text.casefold() == str(value).casefold()}
        if not taken:
            there = ", ".join(repr(text) for text in sorted(set(found.values()))[:8])
            raise InputError(f"{file}: no row has {value!r} as its `{column}` (`where` of the log); there are {there}")
    return taken


def _calls(rows: dict[int, Row], columns: dict[LogColumn, str], file: Path) -> list[Row]:
    """The rows in our columns. A query or a prompt without an id gets one, by its text."""
    templates = {column: f"{{{column}}}" for column in OPTIONAL if column in next(iter(rows.values()))}
    templates |= {column: f"{{{column}}}" for column in REQUIRED} | columns
    calls = []
    for index, row in rows.items():
        try:
            call: Row = {**dict.fromkeys(COLUMNS), **{name: fill(text, row) for name, text in templates.items()}}
            call["correct"], call["cost"] = _label(call["correct"]), _cost(call["cost"])
        except InputError as error:
            raise InputError(f"{file}, row {index}: {error}") from None
        calls.append(call)
    for kind in ("query", "prompt"):
        _identify(dict(zip(rows, calls, strict=True)), kind, file)
    return calls


def _label(text: str) -> bool | None:
    if text.casefold() not in LABELS:
        raise InputError(f"`correct` is {text[:40]!r}; it must be true or false, or 1 or 0")
    return LABELS[text.casefold()]


def _cost(text: str | None) -> float | None:
    try:
        cost = float(text) if text else None
    except ValueError:
        cost = -1.0
    if cost is not None and not 0 <= cost < float("inf"):
        raise InputError(f"`cost` is {text!r}; it must be a number of at least 0")
    return cost


def _identify(calls: dict[int, Row], kind: str, file: Path) -> None:
    """Give ids where there are none; one id means one text."""
    made: dict[str, str] = {}
    first: dict[str, int] = {}
    for index, call in calls.items():
        text = call[kind]
        if call[f"{kind}_id"] is None:
            call[f"{kind}_id"] = made.setdefault(text, f"{kind}-{len(made)}")
        earlier = first.setdefault(call[f"{kind}_id"], index)
        if calls[earlier][kind] != text:
            raise InputError(
                f"{file}: {kind} {call[f'{kind}_id']} has one text in row {earlier} and another in row {index}; "
                f"correct the log, or name another column as `{kind}_id`"
            )


def _refuse_one_kind(rows: Sequence[Row], path: Path) -> None:
    labels = {row["correct"] for row in rows if row["split"] == "train"} - {None}
    if len(labels) == 1:
        kind = "right" if labels.pop() else "wrong"
        raise InputError(
            f"{path}: every answer to a training question is {kind}, so no prompt is better than another; bring more"
        )
