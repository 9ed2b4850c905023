"""Rows of other people's data sets as examples: what was asked, what was answered, what was preferred.

Known by their columns: prompt/completion, prompt/chosen/rejected, chosen/rejected alone (whole dialogues, as in HH-RLHF),
messages, and instruction/input/output (Alpaca). Feedback of other kinds: prompt/completion with a rank, a rating, a label (true
or false, as in TRL) or a correction; prompt/completions with ranks or ratings; prompt/answers (Nectar) and
instruction/completions (UltraFeedback), where each answer carries its rank or score. For anything else the sources file says
which columns make which field, by templates like "{question}". The text of a data set is only ever inserted, never evaluated.
"""

import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.core.errors import InputError
from tasks.core.files import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FieldName: TypeAlias = Literal[
    "query", "completion", "answer", "kind", "chosen", "rejected", "text", "rank", "rating", "label", "annotator"
]
FeedbackKind: TypeAlias = Literal["ranking", "rating", "thumbs"]
ASSISTANT = "\n\nAssistant:"
SPEAKERS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": ASSISTANT}


@dataclass(frozen=True, slots=True)
class Example:
    """query: what is asked, before any instruction; answer: the reference to check against; text: running text, no query.

    rank, rating or label: what `annotator` said of the completion, as the row has it. judged: several completions with what was
    said of each; scale: what that is.
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


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each {name} replaced; a whole number stored as 504.0 is written 504.

    Only plain names are replaced (str.format would follow attributes). Raises InputError naming the nearest name.
    """
    return re.sub(r"{(\w+)}", lambda match: _write(values, match[1]), template)


def read_examples(
    rows: Sequence[Row],
    file: str,
    name: str,
    templates: Mapping[FieldName, str],
    tokenizer: "PreTrainedTokenizerBase | None",
    drop_empty: bool = False,
) -> list[Example]:
    """Every row as an example with id "<name>-<row>". Raises InputError naming the file, the row and the column.

    templates: override or replace what the columns say by themselves. tokenizer: renders messages, if it has a chat template.
    drop_empty: leave out rows without a text where one belongs; otherwise they are refused.
    """
    if not rows:
        raise InputError(f"{file} holds no rows; a data set needs at least one")
    whole = not {"query", "text"}.isdisjoint(templates)
    fields_of = _nothing if whole else _recognise(list(rows[0]), file)
    examples = []
    for index, row in enumerate(rows):
        try:
            fields = fields_of(row, tokenizer) | {field: fill(template, row) for field, template in templates.items()}
            example = Example(id=f"{name}-{index}", **fields)
        except InputError as error:
            raise InputError(f"{file}, row {index}: {error}") from None
        empty = _empty(example)
        if empty is None:
            examples.append(example)
        elif not drop_empty:
            raise InputError(f"{file}, row {index}: the {empty} is empty; write one, or set `drop_empty: true` for this set")
    return examples


def answer_after(example: Example, marker: str, file: str) -> Example:
    """The reference is what follows the last marker: "72" of "…#### 72"."""
    _, found, answer = (example.answer or "").rpartition(marker)
    if not found:
        raise InputError(f"{file}, {example.id}: the answer has no {marker!r}; correct the row or `answer_after`")
    return replace(example, answer=answer.strip())


Reader: TypeAlias = Callable[[Row, "PreTrainedTokenizerBase | None"], dict[str, Any]]


def _nothing(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    return {}


def _pair(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    return {"query": _get(row, "prompt"), "chosen": _get(row, "chosen"), "rejected": _get(row, "rejected")}


def _dialogues(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    """Two dialogues that part at an answer of the assistant: what they share, up to there, is the prompt."""
    chosen, rejected = _get(row, "chosen"), _get(row, "rejected")
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    shared, found, _ = "".join(left for left, _ in alike).rpartition(ASSISTANT)
    if not found:
        raise InputError(f"`chosen` and `rejected` do not begin with the same dialogue up to {ASSISTANT.strip()!r}")
    prompt = shared + ASSISTANT
    return {"query": prompt, "chosen": chosen[len(prompt) :].strip(), "rejected": rejected[len(prompt) :].strip()}


def _messages(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    """The last turn is the completion, all before it the prompt: by the tokenizer's chat template, or as a plain dialogue."""
    turns = [{"role": _get(turn, "role"), "content": _get(turn, "content")} for turn in _turns(row)]
    unknown = [turn["role"] for turn in turns if turn["role"] not in SPEAKERS]
    if unknown:
        raise InputError(f"`messages`: unknown role {unknown[0]!r}{_nearest(unknown[0], SPEAKERS)}")
    if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] != "user":
        raise InputError("`messages` must end with a turn of the user and the assistant's answer")
    asked, answered = turns[:-1], turns[-1]["content"]
    if tokenizer is not None and tokenizer.chat_template:
        prompt = _by_template(asked, tokenizer)
    else:
        prompt = "".join(f"{SPEAKERS[turn['role']]} {turn['content']}" for turn in asked) + ASSISTANT
    return {"query": prompt, "completion": answered}


def _by_template(turns: list[Row], tokenizer: "PreTrainedTokenizerBase") -> str:
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template refuses in its own words, such as "system role not supported"
        raise InputError(f"the tokenizer's chat template does not take these messages ({error})") from None


def _completion(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    return {"query": _get(row, "prompt"), "completion": _get(row, "completion")}


def _judged(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    said = {name: row.get(name) for name in ("rank", "rating", "label")}
    annotator = row.get("annotator")
    return _completion(row, tokenizer) | said | {"annotator": None if annotator is None else str(annotator)}


def _correction(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    """The correction is preferred to what it corrects."""
    return {"query": _get(row, "prompt"), "chosen": _get(row, "correction"), "rejected": _get(row, "completion")}


def _lists(values: str, scale: FeedbackKind) -> Reader:
    """Of completions, and of what was said of them."""

    def read(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
        completions, said = row.get("completions"), row.get(values)
        if not isinstance(completions, list) or not isinstance(said, list) or len(completions) != len(said):
            raise InputError(f"`completions` and `{values}` must be lists of the same length")
        return {"query": _get(row, "prompt"), "judged": tuple(zip(completions, said, strict=True)), "scale": scale}

    return read


def _entries(asked: str, answers: str, text: str, value: str, scale: FeedbackKind) -> Reader:
    """A list of answers, each a mapping with its text and what was said of it."""

    def read(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
        listed = row.get(answers)
        if not isinstance(listed, list) or not all(
            isinstance(entry, dict) and {text, value} <= entry.keys() for entry in listed
        ):
            raise InputError(f"`{answers}` must be a list of {{{text}, {value}}}")
        return {"query": _get(row, asked), "judged": tuple((entry[text], entry[value]) for entry in listed), "scale": scale}

    return read


def _alpaca(row: Row, tokenizer: "PreTrainedTokenizerBase | None") -> dict[str, Any]:
    given = row.get("input") or ""
    return {"query": _get(row, "instruction") + (f"\n{given}" if given else ""), "completion": _get(row, "output")}


READERS: dict[tuple[str, ...], Reader] = {
    ("prompt", "chosen", "rejected"): _pair,
    ("chosen", "rejected"): _dialogues,
    ("messages",): _messages,
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
    nearest = max(READERS, key=lambda needed: sum(bool(difflib.get_close_matches(name, columns)) for name in needed))
    missing = next(name for name in nearest if name not in columns)
    known = " or ".join("/".join(needed) for needed in READERS)
    raise InputError(
        f"{file}: no column `{missing}`{_nearest(missing, columns)} (known formats are {known}; "
        "for any other, the sources file names the columns in `columns`)"
    )


def _turns(row: Row) -> list[Row]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise InputError("`messages` must be a list of {role, content}")
    return turns


def _get(row: Row, column: str) -> str:
    if column not in row:
        raise InputError(f"no column `{column}`{_nearest(column, row)}")
    if not isinstance(row[column], str):
        raise InputError(f"`{column}` must be text, found {row[column]!r:.60}")
    return str(row[column])


def _write(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        raise InputError(f"no column `{name}`{_nearest(name, values)}")
    value = values[name]
    return str(int(value)) if isinstance(value, float) and value.is_integer() else "" if value is None else str(value)


def _empty(example: Example) -> str | None:
    """The name of a field that should hold text and does not."""
    asked = {"query": example.query} if example.text is None else {}
    written = {field: getattr(example, field) for field in ("completion", "chosen", "rejected", "text")}
    judged = {f"completion {number}": text for number, (text, _) in enumerate(example.judged)}
    texts = asked | written | judged
    return next((field for field, text in texts.items() if text is not None and not str(text).strip()), None)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [str(column) for column in known], n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; there are {', '.join(f'`{column}`' for column in known)}"
