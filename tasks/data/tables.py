"""The rows of the five tables, from the generator or from data sets, with their prompts written out."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.dialogues import question_of, read_transcript, transcript
from tasks.data.formats import Example, FeedbackKind
from tasks.data.generate import GenerateConfig, Generator
from tasks.data.sources import InstructionsConfig, LoadedSet, Table
from tasks.data.splits import Split, split_of
from tasks.models.chat import instructed, write_prompt
from tasks.models.text import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tables: TypeAlias = dict[Table, list[Row]]
Key = TypeVar("Key")

COLUMNS: dict[Table, tuple[str, ...]] = {
    "corpus": ("text",),
    "demonstrations": ("id", "query", "instruction_id", "prompt", "completion"),
    "prompts": ("id", "query", "prompt", "answer", "solution", "mistake", "kind", "split"),
    "preferences": ("id", "prompt", "chosen", "rejected", "split"),
    "feedback": ("id", "prompt", "completion", "kind", "value", "annotator", "split"),
}
NUMBERS = ("value",)  # columns that are no text


def generated(config: GenerateConfig, instructions: InstructionsConfig, seed: int, max_rows: int | None) -> Tables:
    """The embedded default. Demonstrations carry `right`, whether their answer is; it is no column of the table."""
    generator = Generator(instructions.texts, instructions.default, seed)
    return {
        "prompts": generator.prompts(at_most(config.prompts.model_dump(), max_rows)),  # first: the others avoid them
        "demonstrations": generator.demonstrations(min(config.demonstrations, max_rows or config.demonstrations)),
        "corpus": generator.corpus(min(config.corpus, max_rows or config.corpus)),
        "preferences": [],
        "feedback": [],
    }


def collected(data_sets: Iterable[LoadedSet], instruction: str, max_rows: int | None) -> Tables:
    """What the data sets hold, each row on the side its query belongs to; demonstrations follow `instruction`."""
    tables: Tables = {table: [] for table in COLUMNS}
    for number, data_set in enumerate(data_sets):
        for table in data_set.config.tables:
            if table == "feedback":
                rows = judged(data_set)
            else:
                found = (_row(table, example, _side(example, data_set)) for example in data_set.examples)
                rows = [row for row in found if row is not None]
            tables[table] += [row | {"set": number} for row in rows]
    for row in tables["demonstrations"]:
        row["instruction_id"] = instruction
    first = {table: _first(rows, max_rows) for table, rows in tables.items()}
    return first | {"feedback": whole_rankings(first["feedback"], tables["feedback"])}


def add_prompts(
    tables: Tables,
    instructions: InstructionsConfig,
    prompt_format: str,
    tokenizer: "PreTrainedTokenizerBase | None",
    chat: bool,
) -> None:
    """Every query with its instruction, the default one where a row names none.

    A tokenizer with a chat template renders messages, and every query if `chat`; without one they become a transcript.
    """
    for row in (row for table in ("demonstrations", "prompts", "preferences", "feedback") for row in tables[table]):
        instruction = instructions.texts[row.get("instruction_id", instructions.default)]
        turns = row.get("turns")
        if chat and not turns:
            turns = read_transcript(row["query"]) or [{"role": "user", "content": row["query"]}]
        if not turns or tokenizer is None or not tokenizer.chat_template:
            if row.get("tools"):
                raise InputError(
                    f"{row.get('where') or row['id']}: only a chat template writes `tools`; name a tokenizer that has one in "
                    "prepare_data.tokenizer, or leave the column out with `ignore: [tools]`"
                )
            row["prompt"] = render(transcript(turns) if turns else row["query"], instruction, prompt_format)
            continue
        try:
            row["prompt"] = write_prompt(tokenizer, instructed(turns, instruction, prompt_format), row.get("tools"))
        except InputError as error:
            raise InputError(f"{row.get('where') or row['id']}: {error}") from None


def training_text(tables: Tables) -> list[str]:
    """What a tokenizer may learn from: nothing that is held out."""
    demonstrations = [row["prompt"] + row["completion"] for row in tables["demonstrations"]]
    prompts = [row["prompt"] for row in tables["prompts"] if row["split"] == "train"]
    return [row["text"] for row in tables["corpus"]] + demonstrations + prompts


def at_most(counts: dict[Key, int], limit: int | None) -> dict[Key, int]:
    """The counts scaled down to `limit` in total, at least 1 of each."""
    total = sum(counts.values())
    return counts if limit is None or total <= limit else {key: max(1, count * limit // total) for key, count in counts.items()}


def _side(example: Example, data_set: LoadedSet) -> Split:
    """By the first question of the user, in whatever shape it stands. Running text asks nothing that could be held out."""
    given, question = data_set.config.split, question_of(example.query, example.turns)
    return split_of(question, given, data_set.config.test_share) if question else given or "train"


def _row(table: Table, example: Example, split: Split) -> Row | None:
    """The example as a row of this table; None if it is held out and the table is for training only."""
    asked = {"turns": example.turns, "tools": example.tools, "where": example.where}
    match table:
        case "corpus":
            text = (
                example.text or f"{transcript(example.turns) if example.turns else example.query}\n{_imitated(example, table)}"
            )
            return {"text": text} if split == "train" and not example.goes_on else None  # a dialogue stands there once
        case "demonstrations":
            row = {"id": example.id, "query": _need(example, "query", table), "completion": _imitated(example, table)}
            return row | asked if split == "train" else None
        case "prompts":
            known = {"answer": example.answer, "solution": example.completion, "mistake": None, "kind": example.kind}
            return {"id": example.id, "query": _need(example, "query", table), **known, "split": split} | asked
        case "preferences":
            pair = {field: _need(example, field, table) for field in ("query", "chosen", "rejected")}
            return {"id": example.id, **pair, "split": "train" if split == "train" else "test"} | asked
        case "feedback":
            raise ValueError("one example may be several rows of this table: see `judged`")


def _imitated(example: Example, table: Table) -> str:
    if example.label is not None:
        raise InputError(
            f"{example.where or example.id}: table {table} would imitate a completion whatever its label; "
            "name the table feedback, or set `ignore: [label]` for this set"
        )
    return _need(example, "completion", table)


def whole_rankings(kept: list[Row], rows: list[Row]) -> list[Row]:
    """The kept rows without rankings that have lost a completion: what is left of one would have a gap."""
    before, after = (Counter(row["id"] for row in each) for each in (rows, kept))
    return [row for row in kept if row["kind"] != "ranking" or before[row["id"]] == after[row["id"]]]


def judged(data_set: LoadedSet) -> list[Row]:
    """One row per judged completion. Those of one example share its id; where each has a row of its own, those of one query and
    one annotator were judged together, and share the id of the first."""
    rows: list[Row] = []
    questions: dict[tuple[str, ...], str] = {}
    for example in data_set.examples:
        kind, said = _said(example)
        annotator = example.annotator or "unnamed"
        together = questions.setdefault((example.query, repr(example.turns), annotator, kind), example.id)
        question = {
            "id": example.id if example.judged else together,
            "query": _need(example, "query", "feedback"),
            "kind": kind,
            "annotator": annotator,
            "split": "train" if _side(example, data_set) == "train" else "test",
            "turns": example.turns,
            "tools": example.tools,
            "where": example.where,
        }
        rows += [question | {"completion": text, "value": _number(example, kind, value)} for text, value in said]
    return rows


def _said(example: Example) -> tuple[FeedbackKind, tuple[tuple[str, Any], ...]]:
    """What kind of feedback the example holds, and of which completions."""
    if example.scale:
        return example.scale, example.judged
    columns: dict[FeedbackKind, Any] = {"ranking": example.rank, "rating": example.rating, "thumbs": example.label}
    for kind, value in columns.items():
        if value is not None:
            return kind, ((_need(example, "completion", "feedback"), value),)
    raise InputError(
        f"{example.where or example.id}: table feedback needs a rank, a rating or a label; name its column in `columns`"
    )


def _number(example: Example, kind: FeedbackKind, value: Any) -> float:
    """true and false, also as text, are 1 and 0."""
    word = str(value).strip().lower()
    try:
        number = float({"true": 1, "false": 0}.get(word, word) if kind == "thumbs" else word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{example.where or example.id}: {kind} {value!r:.40} is not a number; correct the row or take it out of the file"
        )
    return number


def _need(example: Example, field: str, table: Table) -> str:
    value = getattr(example, field)
    if not value:
        raise InputError(
            f"{example.where or example.id}: table {table} needs a {field}; name its column in `columns` of the sources file"
        )
    return str(value)


def doubled(table: Table, rows: list[Row]) -> int:
    """How many rows repeat an earlier one, ids aside."""
    content = [column for column in COLUMNS[table] if column != "id"]
    return len(rows) - len({tuple(row[column] for column in content) for row in rows})


def _first(rows: list[Row], limit: int | None) -> list[Row]:
    """The first rows of each split of each set, in their proportions; split by split."""
    parts = [(row.get("split", "train"), row["set"]) for row in rows]
    room = at_most(Counter(parts), limit)
    by_split: defaultdict[str, list[Row]] = defaultdict(list)
    for row, (split, data_set) in zip(rows, parts, strict=True):
        if room[split, data_set]:
            room[split, data_set] -= 1
            by_split[split].append(row)
    return [row for group in by_split.values() for row in group]
