"""From examples to tables: every row on its side, capped in proportion, refused by name when too long."""

from collections import Counter
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.data.formats import Example
from tasks.data.lengths import fit
from tasks.data.sources import DataSet, InstructionsConfig, LoadedSet
from tasks.data.splits import split_of
from tasks.data.tables import COLUMNS, add_prompts, at_most, collected, training_text
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
    add_prompts(tables, INSTRUCTIONS, "{query}\n{instruction}\n")
    assert tables["demonstrations"][0]["prompt"].endswith("?\nBe long.\n")
    assert tables["prompts"][0]["prompt"].endswith("?\nBe brief.\n")
    assert all(set(COLUMNS[table]) <= set(rows[0]) for table, rows in tables.items())
    held_out = [row["prompt"] for row in tables["prompts"] if row["split"] != "train"]
    assert not set(held_out) & set(training_text(tables))


def test_max_rows_keeps_the_proportion_of_splits() -> None:
    assert at_most({"train": 4000, "test": 600}, None) == {"train": 4000, "test": 600}
    assert at_most({"train": 4000, "validation": 300, "test": 600}, 49) == {"train": 40, "validation": 3, "test": 6}
    tables = collected([load()], "short", 60)
    assert all(len(rows) <= 60 for rows in tables.values())
    assert set(Counter(row["split"] for row in tables["prompts"])) == {"train", "validation", "test"}


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
