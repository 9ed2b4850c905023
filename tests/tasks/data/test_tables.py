"""From examples to tables: every row on its side, capped in proportion, refused by name when too long."""

from collections import Counter
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.data.formats import Example
from tasks.data.lengths import fit
from tasks.data.sources import DataSet, InstructionsConfig, LoadedSet
from tasks.data.splits import split_of
from tasks.data.tables import COLUMNS, add_prompts, at_most, collected, doubled, training_text, whole_rankings
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import train_tokenizer

EXAMPLES = [
    Example(f"set-{n}", f"What is {n} plus one?", f"It is {n + 1}.", str(n + 1), chosen="a", rejected="b") for n in range(300)
]
INSTRUCTIONS = InstructionsConfig(default="short", texts={"short": "Be brief.", "long": "Be long."})
TABLES: Any = ["corpus", "demonstrations", "prompts", "preferences"]


def load(**options: Any) -> LoadedSet:
    return LoadedSet(DataSet(**({"tables": TABLES, "file": "x"} | options)), EXAMPLES, 0)


def test_what_is_held_out_is_only_among_prompts_and_held_out_pairs() -> None:
    tables = collected([load()], "short", None)
    splits = {example.id: split_of(example.query) for example in EXAMPLES}
    assert len(set(splits.values())) == 3
    trained = [id for id, split in splits.items() if split == "train"]
    assert [row["id"] for row in tables["demonstrations"]] == trained
    assert len(tables["corpus"]) == len(trained)
    assert {row["id"]: row["split"] for row in tables["prompts"]} == splits
    assert {row["id"] for row in tables["preferences"] if row["split"] == "train"} == set(trained)
    assert {row["split"] for row in tables["preferences"]} == {"train", "test"}


def test_a_test_file_trains_nothing() -> None:
    tables = collected([load(split="test")], "short", None)
    assert (len(tables["corpus"]), len(tables["demonstrations"]), len(tables["prompts"])) == (0, 0, 300)


def test_prompts_are_written_with_their_instruction() -> None:
    tables = collected([load()], "long", None)
    add_prompts(tables, INSTRUCTIONS, "{query}\n{instruction}\n", None, False)
    assert tables["demonstrations"][0]["prompt"].endswith("?\nBe long.\n")
    assert tables["prompts"][0]["prompt"].endswith("?\nBe brief.\n")
    assert all(set(COLUMNS[table]) <= set(rows[0]) for table, rows in tables.items() if rows)
    held_out = [row["prompt"] for row in tables["prompts"] if row["split"] != "train"]
    assert not set(held_out) & set(training_text(tables))


def test_tools_are_never_dropped_in_silence() -> None:
    """Without a chat template nothing writes them into the prompt."""
    examples = [Example(f"set-{n}", f"What is {n}?", "It is.", tools="[{}]", where="rows.jsonl: row 1") for n in range(30)]
    tables = collected([LoadedSet(DataSet(tables=["demonstrations"], file="x"), examples, 0)], "short", None)
    with pytest.raises(InputError, match=r"rows\.jsonl: row 1: only a chat template writes `tools`; .* `ignore: \[tools\]`"):
        add_prompts(tables, INSTRUCTIONS, "{query}\n", None, False)


def test_max_rows_keeps_the_proportion_of_splits() -> None:
    assert at_most({"train": 4000, "test": 600}, None) == {"train": 4000, "test": 600}
    assert at_most({"train": 4000, "validation": 300, "test": 600}, 49) == {"train": 40, "validation": 3, "test": 6}
    tables = collected([load()], "short", 60)
    assert all(len(rows) <= 60 for rows in tables.values())
    assert set(Counter(row["split"] for row in tables["prompts"])) == {"train", "validation", "test"}


def test_max_rows_keeps_the_proportion_of_sets() -> None:
    """Three quarters of the rows are of the first set, whatever the split leaves in the table."""
    sets = [
        LoadedSet(
            DataSet(tables=["demonstrations"], file="x", split="train"),
            [Example(f"{name}-{n}", f"{name} {n}", str(n)) for n in range(size)], 0,
        )
        for name, size in {"many": 300, "few": 100}.items()
    ]  # fmt: skip
    many, few = ([row["id"] for row in collected([one], "short", None)["demonstrations"]] for one in sets)
    room = 40 * len(many) // (len(many) + len(few)), 40 * len(few) // (len(many) + len(few))
    assert 28 <= room[0] <= 32
    rows = collected(sets, "short", 40)["demonstrations"]
    assert [row["id"] for row in rows] == many[: room[0]] + few[: room[1]]
    assert [row["id"] for row in collected(sets, "short", None)["demonstrations"]] == many + few


def feedback(*examples: Example) -> list[Any]:
    loaded = LoadedSet(DataSet(tables=["feedback"], file="x", split="train"), list(examples), 0)
    return collected([loaded], "short", None)["feedback"]


def test_completions_of_one_query_and_one_annotator_were_judged_together() -> None:
    said = [("q", "a", "ann", 1), ("q", "b", "ann", 2), ("q", "a", "bob", 1), ("r", "c", "ann", 1)]
    rows = feedback(*(Example(f"s-{n}", q, text, rank=rank, annotator=who) for n, (q, text, who, rank) in enumerate(said)))
    assert [row["id"] for row in rows] == ["s-0", "s-0", "s-2", "s-3"]
    listed = feedback(*(Example(f"s-{n}", "q", judged=(("a", "1"), ("b", 2)), scale="ranking") for n in range(2)))
    assert [(row["id"], row["value"]) for row in listed] == [("s-0", 1.0), ("s-0", 2.0), ("s-1", 1.0), ("s-1", 2.0)]
    assert {row["annotator"] for row in listed} == {"unnamed"}


def test_thumbs_are_true_or_false_and_values_are_numbers() -> None:
    rows = feedback(*(Example(f"s-{n}", "q", "a", label=label) for n, label in enumerate([True, "False", 1, "0"])))
    assert [(row["kind"], row["value"]) for row in rows] == [("thumbs", 1.0), ("thumbs", 0.0), ("thumbs", 1.0), ("thumbs", 0.0)]
    with pytest.raises(InputError, match="s-0: rating 'good' is not a number"):
        feedback(Example("s-0", "q", "a", rating="good"))
    with pytest.raises(InputError, match="s-0: table feedback needs a rank, a rating or a label"):
        feedback(Example("s-0", "q", "a"))


def test_a_ranking_that_lost_a_completion_is_left_out() -> None:
    rows = [{"id": id, "kind": kind} for id, kind in (("a", "ranking"), ("a", "ranking"), ("b", "rating"), ("b", "rating"))]
    assert whole_rankings(rows[1:3], rows) == [rows[2]]
    assert whole_rankings(rows[:3], rows) == rows[:3]


def test_running_text_feeds_the_corpus_and_nothing_else() -> None:
    texts = [Example(f"set-{n}", text=f"Once upon {n} times.") for n in range(200)]
    corpus = collected([LoadedSet(DataSet(tables=["corpus"], file="x"), texts, 0)], "short", None)["corpus"]
    assert len(corpus) == len(texts)
    with pytest.raises(InputError, match="table prompts needs a query"):
        collected([LoadedSet(DataSet(tables=["prompts"], file="x"), texts, 0)], "short", None)


def test_a_table_that_needs_what_an_example_lacks() -> None:
    bare = LoadedSet(DataSet(tables=["preferences"], file="x"), [Example("set-7", query="q")], 0)
    with pytest.raises(InputError, match="set-7: table preferences needs a chosen; name its column in `columns`"):
        collected([bare], "short", None)


def test_too_long() -> None:
    tokenizer = train_tokenizer(["one two"], 260)
    task = TaskConfig(prompt_format="{query}", max_prompt_tokens=10, max_new_tokens=5, verifier="number")
    rows = [
        {"id": "a", "prompt": "x" * 9, "solution": "y" * 4, "mistake": None},  # with bos, with eos: both just fit
        {"id": "b", "prompt": "x" * 10, "solution": "y", "mistake": "y"},
        {"id": "c", "prompt": "x", "solution": "y" * 5, "mistake": "y"},
    ]
    with pytest.raises(
        InputError, match=r"^prompts, row 1 \(b\): `prompt` is 11 tokens, `task.max_prompt_tokens` is 10; raise it"
    ):
        fit("prompts", rows, tokenizer, task, "fail")
    kept = fit("prompts", rows, tokenizer, task, "drop")
    assert [(row["id"], row["solution"]) for row in kept] == [("a", "yyyy"), ("c", None)]
    pairs = [{"id": "a", "prompt": "x", "chosen": "y", "rejected": "y" * 5}]
    assert fit("preferences", pairs, tokenizer, task, "drop") == []


def test_rows_that_stand_there_twice_are_counted_whatever_their_id() -> None:
    rows = [dict.fromkeys(COLUMNS["prompts"], "x") | {"id": str(n), "query": str(n // 2)} for n in range(5)]
    assert doubled("prompts", rows) == 2


def test_a_rating_without_end_is_no_number() -> None:
    rated = [Example("set-0", "What?", "This.", rating=float("inf"), where="file.jsonl, row 0")]
    data_set = LoadedSet(DataSet(tables=["feedback"], file="x"), rated, 0)
    with pytest.raises(InputError, match=r"file\.jsonl, row 0: rating inf is not a number"):
        collected([data_set], "short", None)
