"""Which pairs a ranking, ratings and thumbs imply, and which they do not."""

import pytest

from tasks.core.errors import InputError
from tasks.feedback.implied import implied_pairs


def judged(kind, *said, id="q", **more):
    question = {"id": id, "prompt": "p", "kind": kind, "annotator": "ann", "split": "train", **more}
    return [question | {"completion": text, "value": value} for text, value in said]


def chosen_and_rejected(rows):
    return [(row["chosen"], row["rejected"]) for row in implied_pairs(rows)]


def test_of_k_ranked_completions_every_two_are_a_pair():
    assert chosen_and_rejected(judged("ranking", ("b", 2.0), ("a", 1.0), ("c", 3.0))) == [("a", "b"), ("b", "c"), ("a", "c")]


def test_the_higher_rating_and_the_thumb_up_are_chosen():
    assert chosen_and_rejected(judged("rating", ("a", 2.0), ("b", 5.0))) == [("b", "a")]
    assert chosen_and_rejected(judged("thumbs", ("a", 1.0), ("b", 0.0))) == [("a", "b")]


def test_ties_and_other_questions_imply_nothing():
    assert chosen_and_rejected(judged("ranking", ("a", 1.0), ("b", 1.0), ("c", 2.0))) == [("a", "c"), ("b", "c")]
    with pytest.raises(InputError, match="implies no pair"):
        implied_pairs([*judged("rating", ("a", 1.0)), *judged("rating", ("b", 5.0), id="other")])


def test_the_columns_of_a_pair():
    rows = judged("rating", ("a", 2.0), ("b", 5.0), split="test")
    assert implied_pairs(rows) == [{"id": "q-0", "prompt": "p", "chosen": "b", "rejected": "a", "split": "test", "gap": None}]
    known = [row | {"utility": utility} for row, utility in zip(rows, (0.7, 0.2), strict=True)]
    assert implied_pairs(known)[0]["gap"] == -0.5
