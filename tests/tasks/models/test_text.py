"""One layout of text as tokens: <bos> prompt, completion <eos>, and nothing of it by accident."""

import pytest
from pydantic import ValidationError

from tasks.models.chat import write_prompt
from tasks.models.text import TaskConfig, decode, encode_completion, encode_completions, encode_prompt, encode_prompts, render
from tasks.models.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["Tom has 12 apples."], 300)
BOS, EOS = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id


def test_render_fills_only_its_own_format() -> None:
    assert render("a {instruction} b", "{query}!", "{query}\n{instruction}\n") == "a {instruction} b\n{query}!\n"


@pytest.mark.parametrize(
    ("prompt_format", "says"), [("{instruction}", "must contain {query}"), ("{query} {question}", "{question} is not known")]
)
def test_a_prompt_format_must_name_the_query(prompt_format: str, says: str) -> None:
    with pytest.raises(ValidationError) as error:
        TaskConfig(prompt_format=prompt_format, max_prompt_tokens=1, max_new_tokens=1, verifier="number")
    assert says in str(error.value)


def test_one_bos_in_front_and_one_eos_behind() -> None:
    prompt, completion = encode_prompt(TOKENIZER, "Tom has"), encode_completion(TOKENIZER, " 12 apples.")
    assert prompt[0] == BOS
    assert completion[-1] == EOS
    assert [*prompt, *completion].count(BOS) == [*prompt, *completion].count(EOS) == 1
    assert decode(TOKENIZER, [*prompt, *completion]) == "Tom has 12 apples."


def test_control_tokens_in_plain_text_are_text() -> None:
    assert encode_prompt(TOKENIZER, "<s></s><pad>").count(BOS) == 1
    assert encode_completion(TOKENIZER, "a</s>b").count(EOS) == 1


def test_a_chat_template_writes_its_own_bos_and_nobody_else_does() -> None:
    chat = train_tokenizer(["Tom"], 300)
    chat.chat_template = "{{ bos_token }}{{ messages[0].content }}"
    assert encode_prompt(chat, write_prompt(chat, [{"role": "user", "content": "Tom <s>"}])).count(BOS) == 1
    assert encode_prompt(chat, "Tom <s>").count(BOS) == 1


def test_without_bos_nothing_is_put_in_front() -> None:
    tokenizer = train_tokenizer(["Tom"], 300)
    tokenizer.bos_token = None
    assert encode_prompt(tokenizer, "Tom") == encode_completion(tokenizer, "Tom")[:-1]


def test_many_are_as_one_by_one() -> None:
    texts = ["Tom", "", "has 12", "\n"]
    assert encode_prompts(TOKENIZER, texts) == [encode_prompt(TOKENIZER, text) for text in texts]
    assert encode_completions(TOKENIZER, texts) == [encode_completion(TOKENIZER, text) for text in texts]
    assert encode_prompts(TOKENIZER, []) == []
