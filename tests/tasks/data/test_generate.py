"""The tables of the embedded default: deterministic, of equal kinds, and clean of what is held out."""

from collections import Counter

import pytest

from tasks.core.errors import InputError
from tasks.core.files import Row
from tasks.data.contamination import HeldOut
from tasks.data.generate import Generator
from tasks.data.splits import normalise

INSTRUCTIONS = ["direct", "equation", "steps", "check", "facts", "child"]
COUNTS = {"train": 400, "validation": 40, "test": 120}


def tables(seed: int = 0) -> tuple[list[Row], list[Row], list[Row]]:
    generator = Generator(INSTRUCTIONS, "steps", seed)
    return generator.prompts(COUNTS), generator.demonstrations(600), generator.corpus(600)


def test_the_same_seed_gives_the_same_rows_and_another_does_not() -> None:
    assert tables(0) == tables(0)
    assert all(mine != other for mine, other in zip(tables(0), tables(1), strict=True))


def test_more_of_one_table_does_not_change_another() -> None:
    generator = Generator(INSTRUCTIONS, "steps", 0)
    generator.prompts(COUNTS)
    generator.demonstrations(5)
    assert generator.corpus(600) == tables(0)[2]


def test_prompts_are_distinct_of_equal_kinds_with_right_solutions_and_wrong_mistakes() -> None:
    prompts, _, _ = tables()
    assert Counter(row["split"] for row in prompts) == COUNTS
    assert len({normalise(row["query"]) for row in prompts}) == len({row["id"] for row in prompts}) == len(prompts)
    kinds = Counter(row["kind"] for row in prompts if row["split"] == "test")
    assert set(kinds.values()) == {COUNTS["test"] // 4}
    for row in prompts:
        assert row["solution"].endswith(f"#### {row['answer']}")
        assert row["mistake"] is None or not row["mistake"].endswith(f"#### {row['answer']}")
    assert sum(row["mistake"] is None for row in prompts) < len(prompts) / 50


def test_nothing_held_out_is_in_training_text() -> None:
    prompts, demonstrations, corpus = tables()
    held_out = HeldOut([row["query"] for row in prompts if row["split"] != "train"])
    trained = [row["query"] for row in prompts if row["split"] == "train"]
    texts = trained + [row["query"] for row in demonstrations] + [row["text"] for row in corpus]
    assert len(texts) == 400 + 600 + 600
    assert not any(held_out.has(text) for text in texts)


def test_about_three_quarters_of_the_demonstrations_are_right() -> None:
    _, demonstrations, _ = tables()
    assert 0.68 < sum(row["right"] for row in demonstrations) / len(demonstrations) < 0.84
    assert set(Counter(row["instruction_id"] for row in demonstrations)) == set(INSTRUCTIONS)


def test_an_instruction_without_a_crowd_is_refused() -> None:
    with pytest.raises(InputError, match=r"instruction `sing` has no crowd; add `arithmetic\.crowds\.sing`"):
        Generator(["sing"], "sing", 0)
