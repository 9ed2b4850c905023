"""A query's split depends on its words alone."""

from collections import Counter

from tasks.data.splits import TEST_SHARE, VALIDATION_SHARE, normalise, split_of

QUERIES = [f"What is {number} times two?" for number in range(4000)]


def test_shares() -> None:
    counts = Counter(split_of(query) for query in QUERIES)
    assert abs(counts["validation"] / len(QUERIES) - VALIDATION_SHARE) < 0.02
    assert abs(counts["test"] / len(QUERIES) - TEST_SHARE) < 0.02


def test_layout_does_not_move_a_query() -> None:
    assert all(split_of(query) == split_of(f"  {query.upper()}\n") for query in QUERIES[:500])


def test_a_released_split_is_kept_and_train_still_yields_validation() -> None:
    assert {split_of(query, "test") for query in QUERIES} == {"test"}
    given = [split_of(query, "train") for query in QUERIES]
    assert set(given) == {"train", "validation"}
    by_hash = [split_of(query) for query in QUERIES]
    assert all((mine == "validation") == (other == "validation") for mine, other in zip(given, by_hash, strict=True))


def test_normalise() -> None:
    assert normalise("It's 3+4,\n  isn't it?") == "it s 3 + 4 isn t it"
    assert normalise("ﬁve") == "five"
    assert normalise("😀 ?!") == "😀 ?!"


def test_a_larger_share_is_held_out_on_request():
    """Validation stays where it is, and what is test by default stays test."""
    counts = Counter(split_of(query, None, 0.45) for query in QUERIES)
    assert abs(counts["train"] / len(QUERIES) - 0.5) < 0.03
    for query in QUERIES[:500]:
        default, half = split_of(query), split_of(query, None, 0.45)
        assert half == default if default != "train" else half in ("train", "test")
    assert split_of(QUERIES[0], "test", 0.0) == "test"
