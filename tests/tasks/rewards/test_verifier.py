"""The verifier on answers as models and data sets really write them. Text is compared, never run."""

import pytest

from tasks.rewards.verifier import final_number, is_correct
from tests.tasks.rewards.strings import STRINGS


@pytest.mark.parametrize(("text", "number"), STRINGS)
def test_final_number(text, number):
    assert final_number(text) == (number if number is None else pytest.approx(number, nan_ok=True))


def test_the_table_is_large():
    assert len(dict(STRINGS)) >= 100


@pytest.mark.parametrize(("completion", "answer", "right"), [
    ("A: 18", "18", True),
    ("A: 18", "A: 17 + 1 #### 18", True),
    ("A: 1,018", "1018", True),
    ("A: 18.0", "18", True),
    ("A: 18", "-18", False),
    ("A: 8", "18", False),
    ("A: 180", "18", False),
    ("A: 3/4", "0.75", True),
    ("A: 1/0", "1/0", False),
    ("none", "18", False),
    ("none", "none", False),  # no number on either side is not a match
])  # fmt: skip
def test_number(completion, answer, right):
    assert is_correct(completion, answer, "number") is right


@pytest.mark.parametrize(("completion", "answer", "right"), [
    ("  Paris \n", "paris", True),
    ("New\n  York", "new york", True),
    ("Paris!", "Paris", False),
    ("", "Paris", False),
])  # fmt: skip
def test_exact(completion, answer, right):
    assert is_correct(completion, answer, "exact") is right


def test_without_an_answer_there_is_no_verdict():
    assert is_correct("18", None, "number") is None
    assert is_correct("18", None, "exact") is None


def test_unknown_verifier_says_what_is_known():
    with pytest.raises(ValueError, match="number, exact"):
        is_correct("18", "18", "numbr")


def test_text_that_looks_like_code_is_not_run(tmp_path):
    code = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch() or 9*2"
    assert is_correct(code, "18", "number") is False
    assert is_correct(f"<<{code}>>18", "18", "number") is True
    assert not (tmp_path / "ran").exists()


def test_a_hostile_completion_costs_no_time():
    """Patterns that backtrack would take minutes on this."""
    assert is_correct("#### " * 20_000 + "1," * 50_000 + "x", "1", "number") is not None
