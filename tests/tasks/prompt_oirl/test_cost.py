"""Calls and tokens of each way to find a prompt, by hand."""

import numpy as np

from tasks.prompt_oirl.answers import Answers
from tasks.prompt_oirl.cost import cost_rows

TEST = Answers(["a b", "a b c d"], {"go": "Go", "think": "Think first"}, np.ones((2, 2)), np.ones((2, 2)))


def count(texts):
    return [len(text.split()) for text in texts]


def test_calls_and_tokens_by_hand():
    """Queries of 2 and 4 words; prompts of 1 and 2; the first query gets `think`, the second `go`, which is always best."""
    calls = [
        {"query": query, "prompt_id": prompt_id, "completion": completion}
        for query, prompt_id, completion in [
            ("a b", "go", "1"), ("a b", "think", "so 1"), ("a b c d", "go", "1"), ("a b c d", "go", "1 2 3"),
            ("a b c d", "think", "so 1 2"), ("another", "go", "1"), ("a b", "other", "1"),
        ]
    ]  # fmt: skip
    best, chosen, every = cost_rows(calls, TEST, np.array([1, 0]), 0, count)
    assert (best["way"], chosen["way"], every["way"]) == ("best single prompt", "Prompt-OIRL", "every prompt")
    assert (best["calls"], chosen["calls"], every["calls"]) == (1.0, 1.0, 2.0)
    assert (best["tokens_read"], chosen["tokens_read"], every["tokens_read"]) == (4.0, 4.5, 9.0)
    assert (best["tokens_written"], chosen["tokens_written"], every["tokens_written"]) == (1.5, 2.0, 4.0)


def test_a_log_without_completions_says_nothing_of_what_is_written():
    calls = [{"query": "a b", "prompt_id": "go", "completion": None}]
    assert [row["tokens_written"] for row in cost_rows(calls, TEST, np.array([0, 0]), 0, count)] == [None] * 3
    assert [row["tokens_read"] for row in cost_rows([], TEST, np.array([0, 0]), 0, count)] == [4.0, 4.0, 9.0]
