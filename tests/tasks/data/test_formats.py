"""Every known format from real rows, and one sentence for every way a row can be wrong."""

from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.dialogues import question_of
from tasks.data.formats import Example, answer_after, read_examples
from tasks.data.templates import fill


def read(*rows: Row, templates: Any = None, **options: Any) -> list[Example]:
    return read_examples(list(rows), "file.jsonl", "set", templates or {}, **options)[0]


def refused(*rows: Row, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        read(*rows, **options)
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.startswith("file.jsonl")
    return sentence


def test_prompt_and_completion() -> None:
    assert read({"prompt": "2+2?", "completion": "4"}) == [Example("set-0", query="2+2?", completion="4")]


def test_prompt_chosen_rejected() -> None:
    rows = [{"prompt": "2+2?", "chosen": "4", "rejected": "5", "by": "x"}, {"prompt": "1+1?", "chosen": "2", "rejected": "2"}]
    assert read(*rows)[1] == Example("set-1", query="1+1?", chosen="2", rejected="2")  # equal sides are for the gate to find


def test_dialogues_part_at_the_last_shared_answer() -> None:
    shared = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: What is 2+2?\n\nAssistant:"
    [example] = read({"chosen": shared + " It is 4.", "rejected": shared + " It is 5."})
    assert example == Example("set-0", query=shared, chosen="It is 4.", rejected="It is 5.")


def test_every_answer_of_a_dialogue_is_an_example() -> None:
    said = [{"from": who, "value": text} for who, text in (("human", "Hi"), ("gpt", "Hello"), ("human", "2+2?"), ("gpt", "4"))]
    [first, last] = read({"conversations": said, "system": "Be brief."})
    assert (first.id, first.query, first.completion, first.goes_on) == ("set-0.0", "Hi", "Hello", True)
    assert (last.id, last.completion, last.turns[0]["content"]) == ("set-0.1", "4", "Be brief.")
    assert question_of(first.query, first.turns) == question_of(last.query, last.turns) == question_of("Hi", ())


USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", "2+2?"), ("assistant", "4"), ("assistant", "5")))
PAIRS: list[Row] = [
    {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    {"prompt": "2+2?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD], "score_chosen": 8.0},
]


@pytest.mark.parametrize("row", PAIRS)
def test_pairs_of_messages(row: Row) -> None:
    assert read(row) == [Example("set-0", query="2+2?", chosen="4", rejected="5", turns=(USER,))]


def test_a_system_and_a_history_stand_before_the_question() -> None:
    row: Row = {"instruction": "2+2?", "output": "4", "system": "Be brief.", "history": [["Hi", "Hello"]]}
    assert [turn["content"] for turn in read(row)[0].turns] == ["Be brief.", "Hi", "Hello", "2+2?"]
    [orca] = read({"system": "Be brief.", "question": "2+2?", "chosen": "4", "rejected": "5"})
    assert orca.turns[1:] == (USER,)


def test_what_changes_the_meaning_or_is_no_text_is_refused() -> None:
    row: Row = {"prompt": "a", "completion": "b", "weight": 2.0}
    assert "`ignore: [weight]`" in refused(row)
    assert read(row, ignore=["weight"])[0].completion == "b"
    assert "found a list" in refused({"conversations": [{}]}, templates={"query": "{conversations}"})
    assert "holds U+D83D at character 1" in refused({"prompt": "a", "completion": "b\ud83d"})
    assert "holds `tool_calls`" in refused({"messages": [USER, GOOD | {"tool_calls": [{"name": "x"}]}]})
    assert "the query is empty" in refused({"prompt": "\u200b\u200b", "completion": "b"})
    assert "('N/A') is empty" in refused({"instruction": "a", "completions": [{"response": "b", "overall_score": "N/A"}]})


def test_alpaca_with_and_without_input() -> None:
    rows = [
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        {"instruction": "Say hi.", "input": "", "output": "hi"},
        {"instruction": "Say ho.", "output": "ho"},
    ]
    assert [example.query for example in read(*rows)] == ["Add.\n2 and 2", "Say hi.", "Say ho."]


def test_what_was_said_of_one_completion() -> None:
    said = [{"rating": 4, "annotator": 7}, {"rank": 2}, {"label": True}]
    examples = [example for more in said for example in read({"prompt": "2+2?", "completion": "4"} | more)]
    assert [(each.rating, each.rank, each.label, each.annotator) for each in examples] == [
        (4, None, None, "7"), (None, 2, None, None), (None, None, True, None),
    ]  # fmt: skip
    columns = {"query": "{q}", "completion": "{response}", "rating": "{helpfulness}"}
    [example] = read({"q": "2+2?", "response": "4", "helpfulness": 3}, templates=columns)
    assert (example.completion, example.rating) == ("4", "3")


def test_a_correction_is_preferred_to_what_it_corrects() -> None:
    [example] = read({"prompt": "2+2?", "completion": "5", "correction": "4"})
    assert example == Example("set-0", query="2+2?", chosen="4", rejected="5")


def test_several_completions_in_one_row() -> None:
    two = (("4", 1), ("5", 2))
    ranked = read({"prompt": "2+2?", "completions": ["4", "5"], "ranks": [1, 2]})
    nectar = read({"prompt": "2+2?", "answers": [{"answer": "4", "rank": 1, "model": "x"}, {"answer": "5", "rank": 2}]})
    assert ranked == nectar == [Example("set-0", query="2+2?", judged=two, scale="ranking")]
    [rated] = read({"prompt": "2+2?", "completions": ["4", "5"], "ratings": [5, 1]})
    [ultra] = read({"instruction": "2+2?", "completions": [{"response": "4", "overall_score": 5}]})
    assert (rated.judged, rated.scale, ultra.judged, ultra.scale) == ((("4", 5), ("5", 1)), "rating", (("4", 5),), "rating")
    assert "lists of the same length" in refused({"prompt": "a", "completions": ["b"], "ranks": []})
    assert "a list of {answer, rank}" in refused({"prompt": "a", "answers": [{"answer": "b"}]})
    assert "the completion 1 is empty" in refused({"prompt": "a", "completions": ["b", " "], "ranks": [1, 2]})


def test_templates_make_any_columns_fit_and_add_to_known_ones() -> None:
    row = {"question": "2+2?", "equation": "2+2", "answer": 4.0, "type": "sum"}
    columns = {
        "query": "{question}",
        "completion": "{equation} = {answer}\n#### {answer}",
        "answer": "{answer}",
        "kind": "{type}",
    }
    assert read(row, templates=columns) == [Example("set-0", "2+2?", "2+2 = 4\n#### 4", "4", "sum")]
    [example] = read({"prompt": "2+2?", "completion": "four", "n": 4}, templates={"answer": "{n}"})
    assert (example.query, example.completion, example.answer) == ("2+2?", "four", "4")
    assert read({"story": "Once."}, templates={"text": "{story}"}) == [Example("set-0", text="Once.")]


def test_templates_insert_text_and_never_evaluate_it() -> None:
    assert fill("{a}", {"a": "{b} {a.__class__} %s {0}"}) == "{b} {a.__class__} %s {0}"
    assert fill("{a.__class__}{a[0]}{}{a!r}", {"a": "x"}) == "{a.__class__}{a[0]}{}{a!r}"
    assert fill("{a} {b} {c}", {"a": 504.0, "b": 4.28, "c": None}) == "504 4.28 "


def test_the_answer_after_a_marker() -> None:
    example = Example("set-3", query="q", answer="1+1 = 2\n#### 2")
    assert answer_after(example, "####", "file.jsonl").answer == "2"
    with pytest.raises(InputError, match=r"file\.jsonl, set-3: the answer has no '==>'"):
        answer_after(example, "==>", "file.jsonl")


def test_no_rows() -> None:
    assert refused() == "file.jsonl holds no rows; a data set needs at least one"


def test_unknown_columns_name_the_nearest() -> None:
    assert "no column `completion`; did you mean `completoin`?" in refused({"prompt": "a", "completoin": "b"})
    assert "the sources file names the columns in `columns`" in refused({"a": 1, "b": 2})


def test_a_column_missing_in_one_row() -> None:
    sentence = refused({"prompt": "a", "completion": "b"}, {"prompt": "a", "compl": "b"})
    assert sentence == "file.jsonl, row 1: no column `completion`; did you mean `compl`?"
    sentence = refused({"question": "a"}, templates={"query": "{qestion}"})
    assert sentence == "file.jsonl, row 0: no column `qestion`; did you mean `question`?"


@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_empty_text_is_refused_or_left_out(field: str) -> None:
    good = {"prompt": "a", "completion": "b"}
    empty = good | {field: " \n"}
    name = {"prompt": "query"}.get(field, field)
    assert refused(good, empty).startswith(f"file.jsonl, row 1: the {name} is empty;")
    assert [example.id for example in read(good, empty, good, drop_empty=True)] == ["set-0", "set-2"]


def test_wrong_types_and_roles() -> None:
    assert refused({"prompt": "a", "completion": 3}) == "file.jsonl, row 0: `completion` must be text, found 3"
    assert "must be a list of {role, content}" in refused({"messages": "hi"})
    user, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}
    assert "unknown role 'asistant'; did you mean `assistant`?" in refused({"messages": [user, answer | {"role": "asistant"}]})
    for turns in ([user], [answer], [user, answer, user]):
        assert "must end with a turn of the user and the assistant's answer" in refused({"messages": turns})
    assert "no column `content`" in refused({"messages": [{"role": "user"}, answer]})


def test_dialogues_that_share_nothing() -> None:
    assert "do not begin with the same dialogue" in refused({"chosen": "Yes", "rejected": "No"})


@pytest.mark.parametrize("column", ["Images", "CONTEXT", "system_message", "tool_calls"])
def test_a_column_that_changes_the_meaning_is_known_in_any_case(column: str) -> None:
    sentence = refused({"prompt": "2+2?", "completion": "4", column: "something"})
    assert f"the column `{column}` changes what the row means" in sentence
    assert read({"prompt": "2+2?", "completion": "4", column: None})[0].completion == "4"


@pytest.mark.parametrize("column", ["conversation", "dialogue", "dialog"])
def test_turns_under_other_names(column: str) -> None:
    assert read({column: [USER, GOOD]})[0].completion == "4"


def test_an_answer_that_is_not_to_be_learnt() -> None:
    assert "a turn with `weight` is not to be learnt from" in refused({"messages": [USER, GOOD | {"weight": 0}]})
    assert read({"messages": [USER, GOOD | {"weight": 1}]})[0].completion == "4"
