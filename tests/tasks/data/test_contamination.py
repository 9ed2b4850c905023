"""Held-out queries are found word for word and nearly, and nothing else is."""

import itertools
import random

from tasks.data.contamination import FLOOR, HeldOut, N, shared_grams
from tasks.data.evidence import measure_preferences, overlap
from tasks.data.splits import words
from tasks.models.text import TaskConfig
from tasks.models.tokenizer import train_tokenizer

QUERY = "Tom has 12 apples in a basket. Ann gives Tom 3 more apples, and then Tom eats 2 of them. How many apples has Tom now?"


def test_the_same_words_are_the_same_whatever_the_layout() -> None:
    held_out = HeldOut(["Something else entirely.", QUERY])
    shouted = "  " + QUERY.upper().replace(",", " ").replace(" ", "\n ")
    assert held_out.same(shouted) == [1]
    assert held_out.near(shouted) == [(1, 1.0)]


def test_a_query_inside_a_longer_text_is_near() -> None:
    assert HeldOut([QUERY]).near(f"Question: {QUERY} 12+3=15. 15-2=13. #### 13") == [(0, 1.0)]
    assert HeldOut([QUERY]).same(f"Question: {QUERY} #### 13") == []


def test_one_more_word_is_near_and_other_numbers_are_not() -> None:
    one_word = QUERY.replace("3 more apples", "3 more red apples")
    [(row, share)] = HeldOut([QUERY]).near(one_word)
    assert row == 0
    assert 0.75 < share < 1
    numbers = QUERY.replace("12", "11").replace("3", "5").replace("2 of", "4 of")
    assert HeldOut([QUERY]).near(numbers) == []


def test_signs_are_words_and_a_short_query_counts_as_a_whole() -> None:
    held_out = HeldOut(["3+4"])
    assert held_out.has("3 + 4")
    assert not held_out.has("3-4")
    assert not held_out.has("3+4=7 and so on and on")
    assert not held_out.has("")


def test_the_index_finds_what_comparing_everything_finds() -> None:
    """The inverted index against the definition: random texts of few words, so that many overlap in part."""
    rng = random.Random(0)
    queries = [" ".join(rng.choices("abc", k=rng.randint(1, 14))) for _ in range(60)]
    texts = [" ".join(rng.choices("abc", k=rng.randint(1, 30))) for _ in range(200)]
    held_out = HeldOut(queries)
    hits = 0
    for text in texts:
        slow = [(row, share(query, text)) for row, query in enumerate(queries)]
        expected = [(row, value) for row, value in slow if value >= FLOOR]
        hits += len(expected)
        assert held_out.near(text) == expected
    assert hits > 100


def test_the_nearest_text_is_named_not_the_last() -> None:
    prompts = [{"id": "q", "split": "test", "query": QUERY}]
    [found] = overlap(prompts, "corpus", [f"Question: {QUERY}", QUERY.replace("3 more apples", "3 more red apples")])
    assert (found["near"], found["near_where"]) == (1.0, "100% in corpus row 0")


PREAMBLE = "You work for a hardware shop. Answer politely and in plain words, and never promise a delivery date to anybody."
ORDERS = [f"Is the {adjective} {thing} number {n} in stock?" for n, (adjective, thing) in enumerate(
    itertools.product(("red", "long", "cheap", "heavy", "round"), ("ladder", "hammer", "saw", "rope", "lamp", "drill"))
)]  # fmt: skip


def test_a_preamble_that_many_queries_share_does_not_count_and_a_repeated_question_does() -> None:
    prompts = [
        {"id": str(n), "split": "train" if n % 3 else "test", "query": f"{PREAMBLE}\n{order}"} for n, order in enumerate(ORDERS)
    ]
    trained = [row["query"] for row in prompts if row["split"] == "train"]
    assert not any(row["near"] for row in overlap(prompts, "prompts", trained))
    [leak] = [row for row in overlap(prompts, "corpus", [*trained, f"{PREAMBLE} {ORDERS[6]} Yes."]) if row["near"]]
    assert (leak["id"], leak["near"], leak["same"]) == ("6", 1.0, False)


def test_a_text_that_few_queries_share_counts() -> None:
    few = [f"{PREAMBLE}\n{order}" for order in ORDERS[:9]]
    assert shared_grams(few) == set()
    assert len(HeldOut(few[:1], shared_grams(few)).near(few[1])) == 1


def test_a_held_out_pair_is_no_training_text() -> None:
    """Prompts and pairs of one file: a held-out question stands in both, and nothing is trained on either."""
    rows = [{"id": str(n), "query": order, "prompt": f"{order}\n", "split": "test"} for n, order in enumerate(ORDERS)]
    pairs = [row | {"chosen": "Yes.", "rejected": "No."} for row in rows]
    tokenizer = train_tokenizer(ORDERS, 280)
    task = TaskConfig(prompt_format="{query}\n", max_prompt_tokens=80, max_new_tokens=20, verifier="exact")
    held_out, trained = (
        measure_preferences(pairs, [], rows, tokenizer, task)[0]
        for pairs in (pairs, [pair | {"split": "train"} for pair in pairs])
    )
    assert not any(row["same"] or row["near"] for row in held_out["overlap_preferences"])
    assert all(row["same"] and row["near"] == 1 for row in trained["overlap_preferences"])


def share(query: str, text: str) -> float:
    """By the definition."""
    wanted, found = grams(query), grams(text)
    return len(wanted & found) / len(wanted) if wanted else 0.0


def grams(text: str) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[begin : begin + N]) for begin in range(len(tokens) - N + 1)}
