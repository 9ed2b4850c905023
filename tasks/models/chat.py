"""Chat templates: messages become a prompt here, and nowhere else.

A prompt that a template wrote begins with MARK (tasks/models/text.py), and so does the rest of every control token that
somebody else spelled, so `<|im_end|>` in a message stays ten harmless characters while the template's own is the control token.
Otherwise the text is that of `apply_chat_template(add_generation_prompt=True)`, and its ids are the template's own.

Where training differs from a template's text of a whole dialogue: nothing behind the end of a turn carries loss (Qwen3,
SmolLM2: a newline), and an answer has no more before it than the generation prompt writes (Qwen3 puts an empty `<think>`
block before its last answer: `template_options: {enable_thinking: false}` writes the same). Pieces that a vocabulary knows
and does not call special, such as Qwen3's `<think>`, are that one token wherever they stand, as for the template.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.models.text import MARK, render
from tasks.models.tokenizer import pad_apart

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOCK = (
    "the tokenizer's chat template reads the clock, so every run would write other prompts; give it the date in "
    'prepare_data.template_options, such as {date_string: "1 Jan 2026"}, or set a template without one'
)


def adopt_template(tokenizer: "PreTrainedTokenizerBase", options: Mapping[str, Any] | None) -> None:
    """The options become part of the template, and end-of-text is what ends a turn: whoever loads the tokenizer, or a model
    saved with it, then writes the same prompts and stops at the same token."""
    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template; set `prepare_data.chat: false` and `prepare_data.template_options: null`, "
            "or name an instruct model's folder in `prepare_data.tokenizer`"
        )
    template = tokenizer.get_chat_template()
    unknown = set(options or {}) - set(re.findall(r"\w+", template))
    if unknown:
        raise InputError(f"prepare_data.template_options: the chat template does not know `{min(unknown)}`; leave it out")
    literals = {name: json.dumps(value).replace("null", "none") for name, value in (options or {}).items()}
    tokenizer.chat_template = "".join(f"{{% set {name} = {value} %}}" for name, value in literals.items()) + template
    tokenizer.eos_token = end_of_turn(tokenizer)
    pad_apart(tokenizer)


def write_prompt(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Row], tools: Any = None) -> str:
    """The prompt that asks for the next turn of the assistant. turns: {role, content}, the last one of the user."""
    if tools and not re.search(r"\btools\b", tokenizer.get_chat_template()):
        raise InputError("the tokenizer's chat template writes no `tools`; leave the column out with `ignore: [tools]`")
    guarded = [_guard(tokenizer, turn) for turn in turns]
    written = _render(tokenizer, guarded, add_generation_prompt=True, tools=_guard(tokenizer, tools) or None)
    lost = next(
        (turn["role"] for turn in guarded if turn["role"] != "assistant" and turn["content"].strip() not in written), None
    )
    if lost:
        raise InputError(f"the tokenizer's chat template drops the {lost} turn; leave it out, or put it into the user's turn")
    return MARK + written


def write_query(tokenizer: "PreTrainedTokenizerBase", like: str, query: str, instruction: str, prompt_format: str) -> str:
    """The prompt of a query with another instruction: by the template, if it wrote the prompt `like`."""
    if not like.startswith(MARK):
        return render(query, instruction, prompt_format)
    return write_prompt(tokenizer, instructed([{"role": "user", "content": query}], instruction, prompt_format))


def instructed(turns: Sequence[Row], instruction: str, prompt_format: str) -> list[Row]:
    """The turns, with the instruction in the last one of them. The format's outer space belongs between prompt and completion,
    where the template has its own."""
    before, _, after = prompt_format.partition("{query}")
    *others, last = turns
    text = render("", instruction, before).lstrip() + last["content"] + render("", instruction, after).rstrip()
    return [*others, last | {"content": text}]


def end_of_turn(tokenizer: "PreTrainedTokenizerBase") -> str:
    """The first control token that the template writes behind an answer; the tokenizer's end-of-text if it writes none."""
    answer = "An answer."
    turns = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": answer}]
    _, _, behind = _render(tokenizer, turns, tools=None).rpartition(answer)
    names = sorted((token.content for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    found = re.search("|".join(map(re.escape, names)), behind) if names else None
    return found[0] if found and found[0] else str(tokenizer.eos_token)


def _render(tokenizer: "PreTrainedTokenizerBase", turns: list[Row], **options: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, strftime_now="", **options))
    except Exception as error:  # a template refuses in its own words, such as "system role not supported"
        if "not callable" in str(error) and "strftime_now" in tokenizer.get_chat_template():
            raise InputError(CLOCK) from None
        raise InputError(f"the tokenizer's chat template does not take these messages ({error})") from None


def _guard(tokenizer: "PreTrainedTokenizerBase", value: Any) -> Any:
    """The value with every control token that its texts spell broken by MARK."""
    if isinstance(value, Mapping):
        return {key: _guard(tokenizer, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_guard(tokenizer, item) for item in value]
    if not isinstance(value, str):
        return value
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = "|".join(re.escape(name) for name in sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True))
    return re.sub(f"(?={names})(.)", rf"\1{MARK}", value, flags=re.DOTALL) if names else value
