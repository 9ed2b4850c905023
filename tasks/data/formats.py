"""Rows of other people's data sets as examples: what was asked, what was answered, what was preferred.

Known by their columns: prompt/completion, prompt/chosen/rejected, chosen/rejected alone (whole dialogues, as in HH-RLHF),
messages, conversations (ShareGPT), question/chosen/rejected (Orca) and instruction/input/output (Alpaca). A prompt, a
completion and the sides of a pair may be text or lists of messages, as in TRL and UltraFeedback-binarized. Feedback of other
kinds: prompt/completion with a rank, a rating, a label (true or false, as in TRL's KTO) or a correction; prompt/completions
with ranks or ratings; prompt/answers (Nectar) and instruction/completions (UltraFeedback), where each answer carries its
rank or score. `system` and `history` stand before the question in any of them. For anything else the sources file says which
columns make which field, by templates like "{question}". The text of a data set is only ever inserted, never evaluated.

Nothing that changes the meaning of a row is left out in silence: a column of MEANING that no field uses is refused.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from tasks.core.errors import InputError, did_you_mean
from tasks.core.files import Row
from tasks.data.dialogues import ASSISTANT, Turns, answered, parted, query_of, read_turns
from tasks.data.templates import fill, no_such
from tasks.models.text import MARK

FieldName: TypeAlias = Literal[
    "query", "completion", "answer", "kind", "chosen", "rejected", "text", "rank", "rating", "label", "annotator", "system"
]
FeedbackKind: TypeAlias = Literal["ranking", "rating", "thumbs"]
MEANING = (
    "system", "system_prompt", "history", "tools", "functions", "image", "images", "audio", "audios", "video", "videos",
    "label", "weight", "weights", "system_message", "context", "documents", "tool_calls", "function_call",
)  # fmt: skip
NOTHING: tuple[Any, ...] = (None, "", [], {})
NO_VALUE = ("", "n/a", "na", "nan", "none", "null")


@dataclass(frozen=True, slots=True)
class Example:
    """query: what is asked, before any instruction; answer: the reference to check against; text: running text, no query.

    rank, rating or label: what `annotator` said of the completion, as the row has it. judged: several completions with what was
    said of each; scale: what that is. turns: the messages that ask, and the tools they offer; none where the query says it all.
    goes_on: whether a later example holds this dialogue and more. where: file and row, for sentences.
    """

    id: str
    query: str = ""
    completion: str | None = None
    answer: str | None = None
    kind: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    text: str | None = None
    rank: Any = None
    rating: Any = None
    label: Any = None
    annotator: str | None = None
    judged: tuple[tuple[str, Any], ...] = ()
    scale: FeedbackKind | None = None
    turns: tuple[Row, ...] = ()
    tools: Any = None
    goes_on: bool = False
    where: str = field(default="", compare=False)


def read_examples(
    rows: Sequence[Row],
    file: str,
    name: str,
    templates: Mapping[FieldName, str],
    drop_empty: bool = False,
    ignore: Sequence[str] = (),
) -> tuple[list[Example], int]:
    """Every row as an example with id "<name>-<row>", every answer of a longer dialogue as "<name>-<row>.<answer>".

    templates: override or replace what the columns say by themselves. drop_empty: leave out examples without a text or a value
    where one belongs, and say how many; otherwise they are refused. ignore: columns that are read as if they were not there.
    Raises InputError naming the file, the row and the column.
    """
    if not rows:
        raise InputError(f"{file} holds no rows; a data set needs at least one")
    unknown = [column for column in ignore if column not in rows[0]]
    if unknown:
        raise InputError(f"{file}: `ignore` names no column `{unknown[0]}`{no_such(unknown[0], rows[0])}")
    whole = not {"query", "text"}.isdisjoint(templates)
    read = _nothing if whole else _recognise([column for column in rows[0] if column not in ignore], file)
    examples: list[Example] = []
    left_out = 0
    for index, row in enumerate(rows):
        where = f"{file}, row {index}"
        try:
            found = _read_row({column: value for column, value in row.items() if column not in ignore}, read, templates)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for number, fields in enumerate(found):
            id = f"{name}-{index}" if len(found) == 1 else f"{name}-{index}.{number}"
            example = Example(id=id, **fields, goes_on=number + 1 < len(found), where=where)
            empty = _empty(example)
            if empty is None:
                examples.append(example)
            elif not drop_empty:
                raise InputError(f"{where}: the {empty} is empty; write one, or set `drop_empty: true` for this set")
            else:
                left_out += 1
    return examples, left_out


def answer_after(example: Example, marker: str, file: str) -> Example:
    """The reference is what follows the last marker: "72" of "…#### 72"."""
    _, found, answer = (example.answer or "").rpartition(marker)
    if not found:
        raise InputError(f"{file}, {example.id}: the answer has no {marker!r}; correct the row or `answer_after`")
    return replace(example, answer=answer.strip())


Reader: TypeAlias = Callable[[Row], list[dict[str, Any]]]  # the fields of each example that a row holds


def _read_row(row: Row, read: Reader, templates: Mapping[FieldName, str]) -> list[dict[str, Any]]:
    """The fields of its examples, with what stands before the question, and what the templates say."""
    _refuse_unwritable(row)
    written = {name: fill(template, row) for name, template in templates.items()}
    used = {name for template in templates.values() for name in re.findall(r"{(\w+)}", template)}
    system = written.pop("system", None) or _optional(row, "system") or _optional(row, "system_prompt")
    examples = [_preceded(fields | written, system, row) for fields in read(row)]
    used |= {"system", "system_prompt", "history", "tools"} | {name for fields in examples for name in fields}
    lost = [column for column in row if column.lower() in MEANING and column not in used and row[column] not in NOTHING]
    if lost:
        raise InputError(
            f"the column `{lost[0]}` changes what the row means, and nothing here uses it; name it in `columns`, or leave it "
            f"out with `ignore: [{lost[0]}]` for this set"
        )
    return examples


def _preceded(fields: dict[str, Any], system: str | None, row: Row) -> dict[str, Any]:
    """With the system's turn, the earlier rounds of `history` and the `tools`, where the row has them."""
    history, tools = row.get("history") or [], row.get("tools") or None
    if "query" not in fields or not (system or history or tools):
        return fields
    turns = list(fields.get("turns") or [{"role": "user", "content": fields["query"]}])
    if history:
        if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
            raise InputError("`history` must be a list of [question, answer]")
        said = [
            {"role": role, "content": text} for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
        turns = [*read_turns(said, "history"), *turns]
    if system and turns[0] != {"role": "system", "content": system}:
        if turns[0]["role"] == "system":
            raise InputError("the dialogue begins with another system turn than the column `system`; leave one of them out")
        turns = [{"role": "system", "content": system}, *turns]
    return fields | _asked(turns) | {"tools": tools}


def _asked(turns: Turns) -> dict[str, Any]:
    return {"query": query_of(turns), "turns": tuple(turns)}


def _nothing(row: Row) -> list[dict[str, Any]]:
    return [{}]


def _pair(row: Row) -> list[dict[str, Any]]:
    """Sides and prompt as text or as messages; without a prompt the shared turns are it."""
    prompt, chosen, rejected = (_text_or_turns(row, column) for column in ("prompt", "chosen", "rejected"))
    if isinstance(prompt, str) and isinstance(chosen, str) and isinstance(rejected, str):
        return [{"query": prompt, "chosen": chosen, "rejected": rejected}]
    turns, left, right = parted(prompt, chosen, rejected)
    return [_asked(turns) | {"chosen": left, "rejected": right}]


def _dialogues(row: Row) -> list[dict[str, Any]]:
    """Two dialogues that part at an answer of the assistant: what they share, up to there, is the prompt."""
    if isinstance(row.get("chosen"), list):
        return _pair(row | {"prompt": []})
    chosen, rejected = (_get(row, column).replace("\r\n", "\n") for column in ("chosen", "rejected"))
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared, found, _ = "".join(left for left, _ in alike).rpartition(ASSISTANT)
    if not found:
        raise InputError(
            f"`chosen` and `rejected` do not begin with the same dialogue up to {ASSISTANT.strip()!r}; if the prompt stands in "
            'another column, name it in `columns`, as {query: "{…}", chosen: "{chosen}", rejected: "{rejected}"}'
        )
    prompt = shared + ASSISTANT
    return [{"query": prompt, "chosen": chosen[len(prompt) :].strip(), "rejected": rejected[len(prompt) :].strip()}]


def _asked_by(column: str) -> Reader:
    """A pair whose prompt stands in a column of another name, with Alpaca's input behind it."""
    return lambda row: _pair({"chosen": row.get("chosen"), "rejected": row.get("rejected"), "prompt": _with_input(row, column)})


def _messages(column: str) -> Reader:
    """Each answer of the assistant is a completion, all before it its prompt."""
    return lambda row: [
        _asked(turns) | {"completion": completion}
        for turns, completion in answered(read_turns(row.get(column), column), column)
    ]


def _completion(row: Row) -> list[dict[str, Any]]:
    prompt, completion = _text_or_turns(row, "prompt"), _text_or_turns(row, "completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return [{"query": prompt, "completion": completion}]
    turns, answer, _ = parted(prompt, completion, completion)
    return [_asked(turns) | {"completion": answer}]


def _judged(row: Row) -> list[dict[str, Any]]:
    said = {name: row.get(name) for name in ("rank", "rating", "label")}
    annotator = row.get("annotator")
    return [fields | said | {"annotator": None if annotator is None else str(annotator)} for fields in _completion(row)]


def _correction(row: Row) -> list[dict[str, Any]]:
    """The correction is preferred to what it corrects."""
    return [{"query": _get(row, "prompt"), "chosen": _get(row, "correction"), "rejected": _get(row, "completion")}]


def _lists(values: str, scale: FeedbackKind) -> Reader:
    """Of completions, and of what was said of them."""

    def read(row: Row) -> list[dict[str, Any]]:
        completions, said = row.get("completions"), row.get(values)
        if not isinstance(completions, list) or not isinstance(said, list) or len(completions) != len(said):
            raise InputError(f"`completions` and `{values}` must be lists of the same length")
        _refuse_no_text("completions", completions)
        return [{"query": _get(row, "prompt"), "judged": tuple(zip(completions, said, strict=True)), "scale": scale}]

    return read


def _entries(asked: str, answers: str, text: str, value: str, scale: FeedbackKind) -> Reader:
    """A list of answers, each a mapping with its text and what was said of it."""

    def read(row: Row) -> list[dict[str, Any]]:
        listed = row.get(answers)
        if not isinstance(listed, list) or not all(
            isinstance(entry, dict) and {text, value} <= entry.keys() for entry in listed
        ):
            raise InputError(f"`{answers}` must be a list of {{{text}, {value}}}")
        _refuse_no_text(answers, [entry[text] for entry in listed])
        return [{"query": _get(row, asked), "judged": tuple((entry[text], entry[value]) for entry in listed), "scale": scale}]

    return read


def _alpaca(row: Row) -> list[dict[str, Any]]:
    return [{"query": _with_input(row, "instruction"), "completion": _get(row, "output")}]


def _with_input(row: Row, column: str) -> str:
    given = _optional(row, "input") if column != "input" else None
    return _get(row, column) + (f"\n{given}" if given else "")


READERS: dict[tuple[str, ...], Reader] = {
    ("prompt", "chosen", "rejected"): _pair,
    ("question", "chosen", "rejected"): _asked_by("question"),
    ("instruction", "chosen", "rejected"): _asked_by("instruction"),
    ("input", "chosen", "rejected"): _asked_by("input"),
    ("query", "chosen", "rejected"): _asked_by("query"),
    ("chosen", "rejected"): _dialogues,
    ("messages",): _messages("messages"),
    **{(column,): _messages(column) for column in ("conversations", "conversation", "dialogue", "dialog")},
    ("prompt", "completion", "rank"): _judged,
    ("prompt", "completion", "rating"): _judged,
    ("prompt", "completion", "label"): _judged,
    ("prompt", "completion", "correction"): _correction,
    ("prompt", "completion"): _completion,
    ("prompt", "completions", "ranks"): _lists("ranks", "ranking"),
    ("prompt", "completions", "ratings"): _lists("ratings", "rating"),
    ("prompt", "answers"): _entries("prompt", "answers", "answer", "rank", "ranking"),
    ("instruction", "completions"): _entries("instruction", "completions", "response", "overall_score", "rating"),
    ("instruction", "output"): _alpaca,
}


def _recognise(columns: Sequence[str], file: str) -> Reader:
    for needed, reader in READERS.items():
        if set(needed) <= set(columns):
            return reader
    nearest = max(READERS, key=lambda needed: sum(bool(did_you_mean(name, columns)) for name in needed))
    missing = next(name for name in nearest if name not in columns)
    known = " or ".join("/".join(needed) for needed in READERS)
    raise InputError(
        f"{file}: no column `{missing}`{no_such(missing, columns)} (known formats are {known}; "
        "for any other, the sources file names the columns in `columns`)"
    )


def _text_or_turns(row: Row, column: str) -> str | Turns:
    value = row.get(column)
    return _get(row, column) if not isinstance(value, list) else read_turns(value, column) if value else []


def _get(row: Row, column: str) -> str:
    if column not in row:
        raise InputError(f"no column `{column}`{no_such(column, row)}")
    if not isinstance(row[column], str):
        raise InputError(f"`{column}` must be text, found {row[column]!r:.60}")
    return str(row[column])


def _optional(row: Row, column: str) -> str | None:
    return _get(row, column) if row.get(column) else None


def _refuse_no_text(column: str, values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise InputError(f"`{column}` must hold texts, found {value!r:.60}")


def _refuse_unwritable(value: Any, column: str = "") -> None:
    """Half a character, as a cut export leaves it, and the mark of a chat template, which no text may hold."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_unwritable(item, column or str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_unwritable(item, column)
    elif isinstance(value, str) and (bad := re.search(rf"[\ud800-\udfff{MARK}]", value)):
        raise InputError(
            f"`{column}` holds U+{ord(bad[0]):04X} at character {bad.start()}, which is no text; correct or remove it"
        )


def _empty(example: Example) -> str | None:
    """The name of a field that should hold text and does not."""
    asked = {"query": example.query} if example.text is None else {}
    written = {field: getattr(example, field) for field in ("completion", "chosen", "rejected", "text")}
    judged = {f"completion {number}": text for number, (text, _) in enumerate(example.judged)}
    texts = asked | written | judged
    blank = next((field for field, text in texts.items() if text is not None and not visible(text)), None)
    values = {field: getattr(example, field) for field in ("rank", "rating", "label")}
    values |= {f"{example.scale} of completion {number}": value for number, (_, value) in enumerate(example.judged)}
    missing = (f"{field} ({value!r})" for field, value in values.items() if value is not None and _no_value(value))
    unsaid = (field for field, value in values.items() if " of " in field and value is None)
    return blank or next(missing, None) or next(unsaid, None)


def _no_value(value: Any) -> bool:
    return str(value).strip().lower() in NO_VALUE


def visible(text: str) -> str:
    """What is left without space and characters of no width."""
    return re.sub(r"[\s\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff]", "", text)
