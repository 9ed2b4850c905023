"""A file of calls of a model, as tables with the same eight columns: who was asked what, under which prompt, and how it went.

A table (.parquet, .jsonl, .json, .csv), or a file of data/prompt_logs (.yaml) that names one outside the repository, pinned by
its sha256, with the rows to take and what its columns are called.

The columns stand under their names, or are templates over those there are ("{question}"). One row is one call of the model: a
query that was asked again under the same prompt stands there again, and may well have been answered differently.

Benchmarks of routing are wide: one row a query, with columns of its own for each model. `models` names these, `model_columns`
how their columns are called, as "{model}|total_cost"; the score has the model's name unless said otherwise. Each row becomes a
call of each model, whose name is prompt_id and prompt. Of a table with a row a call, `model` is the column with the name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from tasks.core.config import Config
from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.pinned import pinned_file, read_rows
from tasks.data.templates import fill, no_such

LogColumn: TypeAlias = Literal["query", "prompt", "correct", "query_id", "prompt_id", "completion", "split", "cost"]

REQUIRED: tuple[LogColumn, ...] = ("query", "prompt", "correct")
COLUMNS: tuple[LogColumn, ...] = (*REQUIRED, "query_id", "prompt_id", "completion", "split", "cost")
BY_MODEL: dict[LogColumn, str] = {"prompt_id": "{model}", "prompt": "{model}"}
LABELS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": None}


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
    models: list[str] | dict[str, float] = Field(default_factory=list)  # to take; with numbers, what a call of each costs
    model: str | None = None  # column; without it the table is wide
    model_columns: dict[LogColumn, str] = Field(default_factory=dict)
    critics: CriticsConfig | None = None


def read_calls(path: Path, needed: Sequence[LogColumn] = REQUIRED) -> list[Row]:
    """One row per call, with exactly the eight columns, `correct` as a bool or, of a log with scores from 0 to 1, as a number;
    None where nothing is said.

    needed: columns that must be there. Raises InputError for a file that is missing, changed or not as described. A table
    without rows is returned as it is.
    """
    if path.suffix == ".yaml":
        described = LogFileConfig.load(path)
        file = pinned_file(described.file, described.sha256, f"{path}: log")
        rows: dict[Any, Row] = taken(read_rows(file), described.where, file)
        names = described.columns
        if described.model:
            rows = _of_models(rows, described.model, described.models, file)
        elif described.models:
            rows, names = _by_model(rows, described, file), BY_MODEL | names
        return _calls(rows, names, file, needed)
    table = read_rows(path)
    return _calls(dict(enumerate(table)), {}, path, needed) if table else []


def taken(rows: list[Row], where: dict[str, str | bool | int], file: Path) -> dict[int, Row]:
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


def _of_models(rows: dict[Any, Row], column: str, models: list[str] | dict[str, float], file: Path) -> dict[Any, Row]:
    """The rows of these models, with the cost of a call if it is given."""
    there = next(iter(rows.values()))
    if column not in there:
        raise InputError(f"{file}: no column `{column}`{no_such(column, there)} (`model` of the log)")
    known = list(dict.fromkeys(str(row[column]) for row in rows.values()))
    if not models:
        raise InputError(f"{file}: `models` of the log is empty; name those to take of {', '.join(known)}")
    if absent := next((model for model in models if model not in known), None):
        raise InputError(f"{file}: no row is of model `{absent}`{no_such(absent, known)} (`models` of the log)")
    costs = models if isinstance(models, dict) else {}
    found = {index: row for index, row in rows.items() if row[column] in models}
    return {index: row | ({"cost": costs[row[column]]} if costs else {}) for index, row in found.items()}


def _by_model(rows: dict[Any, Row], described: LogFileConfig, file: Path) -> dict[Any, Row]:
    """One row per call, with the name of the `model` and its columns under our names."""
    if isinstance(described.models, dict) and "cost" in described.model_columns:
        raise InputError(f"{file}: `models` has costs and `model_columns` a column of them; keep one of the two")
    found, there = {}, next(iter(rows.values()))
    columns: dict[LogColumn, str] = {"correct": "{model}", **described.model_columns}
    for model in described.models:
        names = {ours: name.replace("{model}", model) for ours, name in columns.items()}
        if absent := next((name for name in names.values() if name not in there), None):
            raise InputError(f"{file}: no column `{absent}`{no_such(absent, there)} (`models` of the log)")
        cost = {"cost": described.models[model]} if isinstance(described.models, dict) else {}
        for index, row in rows.items():
            found[f"{index}, {model}"] = row | {"model": model} | cost | {ours: row[name] for ours, name in names.items()}
    return found


def _calls(rows: dict[Any, Row], columns: dict[LogColumn, str], file: Path, needed: Sequence[LogColumn]) -> list[Row]:
    """The rows in our columns. A query or a prompt without an id gets one, by its text."""
    there = next(iter(rows.values()))
    templates = {column: f"{{{column}}}" for column in COLUMNS if column in there or column in needed} | columns
    calls = []
    for index, row in rows.items():
        try:
            call: Row = {**dict.fromkeys(COLUMNS), **{name: fill(text, row) for name, text in templates.items()}}
            call["correct"], call["cost"] = _label(call["correct"] or ""), _cost(call["cost"])
        except InputError as error:
            raise InputError(f"{file}, row {index}: {error}") from None
        calls.append(call)
    if any(isinstance(call["correct"], float) for call in calls):
        calls = [call | {"correct": None if call["correct"] is None else float(call["correct"])} for call in calls]
    for kind in ("query", "prompt"):
        if kind in templates:
            _identify(dict(zip(rows, calls, strict=True)), kind, file)
    return calls


def _label(text: str) -> bool | float | None:
    if text.casefold() in LABELS:
        return LABELS[text.casefold()]
    if not 0 <= (score := _number(text)) <= 1:
        raise InputError(f"`correct` is {text[:40]!r}; it must be true or false, or a score from 0 to 1")
    return score


def _cost(text: str | None) -> float | None:
    if not text:
        return None
    if not 0 <= (cost := _number(text)) < float("inf"):
        raise InputError(f"`cost` is {text!r}; it must be a number of at least 0")
    return cost


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _identify(calls: dict[Any, Row], kind: str, file: Path) -> None:
    """Give ids where there are none; one id means one text."""
    made: dict[str, str] = {}
    first: dict[str, Any] = {}
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
