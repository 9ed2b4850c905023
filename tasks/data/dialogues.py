"""Dialogues in the shapes people store them in, as turns {role, content} of the system, the user and the assistant.

Known are messages (role/content), ShareGPT (from/value) and transcripts ("\\n\\nHuman: …\\n\\nAssistant: …", as in HH-RLHF).
What no text can say, such as an image or the call of a tool, is refused. Turns stay turns until tasks/models renders them.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from tasks.core.errors import InputError, did_you_mean
from tasks.core.files import Row

Turns: TypeAlias = list[Row]

ASSISTANT = "\n\nAssistant:"
SPEAKERS = {"system": "\n\nSystem:", "user": "\n\nHuman:", "assistant": ASSISTANT}
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"} | {role: role for role in SPEAKERS}
TOOLS = ("tool", "function", "function_call", "observation", "ipython")
UNWRITTEN = ("tool_calls", "function_call", "images", "audio", "videos")  # keys of a turn that hold what is no text


def read_turns(value: Any, column: str) -> Turns:
    """A list of messages as turns; two of one speaker never follow each other."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise InputError(f"`{column}` must be a list of {{role, content}} or {{from, value}}")
    turns = [_turn(turn, column) for turn in value]
    for before, after in itertools.pairwise(turns):
        if before["role"] == after["role"]:
            raise InputError(f"`{column}`: two turns of the {after['role']} follow each other; join them")
    return turns


def answered(turns: Turns, column: str) -> list[tuple[Turns, str]]:
    """Every answer of the assistant with all the turns before it, so that each of them carries loss."""
    if len(turns) < 2 or turns[-1]["role"] != "assistant" or turns[-2]["role"] != "user":
        raise InputError(f"`{column}` must end with a turn of the user and the assistant's answer")
    places = [place for place in range(1, len(turns)) if turns[place]["role"] == "assistant"]
    unasked = [place for place in places if turns[place - 1]["role"] != "user"]
    if unasked:
        raise InputError(f"`{column}`, turn {unasked[0]}: the assistant answers no turn of the user")
    return [(turns[:place], turns[place]["content"]) for place in places]


def parted(prompt: str | Turns, chosen: str | Turns, rejected: str | Turns) -> tuple[Turns, str, str]:
    """The turns that two dialogues share, and the answers in which they part. A side may repeat the prompt or go on from it."""
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    left, right = (
        [*asked, {"role": "assistant", "content": side}] if isinstance(side, str)
        else side if side[0]["role"] != "assistant" else asked + side
        for side in (chosen, rejected)
    )  # fmt: skip
    if len(left) != len(right) or left[:-1] != right[:-1] or asked not in ([], left[: len(asked)], _without_system(left[:-1])):
        raise InputError("`chosen` and `rejected` must be one dialogue up to their last turns, and begin with `prompt`")
    for side in (left, right):
        answered(side, "chosen")
    return left[:-1], left[-1]["content"], right[-1]["content"]


def read_transcript(text: str) -> Turns | None:
    """The turns of "\\n\\nHuman: …\\n\\nAssistant:", which ends where the assistant answers; None for any other text."""
    if not text.startswith(SPEAKERS["user"]) or not text.endswith(ASSISTANT):
        return None
    turns: Turns = []
    for part in text.removesuffix(ASSISTANT).split("\n\n")[1:]:
        role = next((role for role in ("user", "assistant") if f"\n\n{part}".startswith(SPEAKERS[role])), None)
        if role and (not turns or role != turns[-1]["role"]):
            turns.append({"role": role, "content": f"\n\n{part}".removeprefix(SPEAKERS[role]).strip()})
        else:
            turns[-1]["content"] += f"\n\n{part}"
    return turns if turns[-1]["role"] == "user" else None


def transcript(turns: Iterable[Row]) -> str:
    """The turns for a model without a chat template."""
    return "".join(f"{SPEAKERS[turn['role']]} {turn['content']}" for turn in turns) + ASSISTANT


def query_of(turns: Sequence[Row]) -> str:
    """What is asked, whatever the system says: the question of the user, or the dialogue that leads to it."""
    spoken = _without_system(turns)
    return str(spoken[0]["content"]) if len(spoken) == 1 else transcript(spoken)


def question_of(query: str, turns: Sequence[Row]) -> str:
    """The first thing that the user says: the same for every turn of a dialogue, and for the same question in any other
    shape."""
    said = (turn["content"] for turn in turns or read_transcript(query) or () if turn["role"] == "user")
    return str(next(said, query))


def _without_system(turns: Sequence[Row]) -> Turns:
    return [turn for turn in turns if turn["role"] != "system"]


def _turn(turn: Row, column: str) -> Row:
    said = {key: value for key, value in turn.items() if value not in (None, [], {}, "")}
    unlearnt = [key for key in ("weight", "train") if turn.get(key) is not None and not turn[key]]
    if unlearnt:
        raise InputError(
            f"`{column}`: a turn with `{unlearnt[0]}` is not to be learnt from, but every answer here is; leave it out"
        )
    speaker, text = ("from", "value") if "from" in turn else ("role", "content")
    role = str(turn.get(speaker))
    unwritten = [key for key in UNWRITTEN if key in said] + [role] * (role in TOOLS)
    if unwritten:
        raise InputError(f"`{column}`: a turn holds `{unwritten[0]}`, which is no text; leave such dialogues out")
    if role not in ROLES:
        raise InputError(f"`{column}`: unknown role {role!r}{did_you_mean(role, ROLES)}")
    return {"role": ROLES[role], "content": _text(turn, text, column)}


def _text(turn: Row, key: str, column: str) -> str:
    """Content parts that are text are joined; another part is refused."""
    if key not in turn:
        raise InputError(f"`{column}`: a turn has no column `{key}`; there are {', '.join(f'`{name}`' for name in turn)}")
    content = turn[key]
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type", "text") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise InputError(f"`{column}`: the `{key}` of a turn must be text, found {content!r:.60}; leave such dialogues out")
    return content
