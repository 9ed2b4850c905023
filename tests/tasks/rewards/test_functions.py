"""Rewards that are functions of the text, by hand."""

import statistics

import pytest
from pydantic import ValidationError

from tasks.rewards.functions import (
    FUNCTIONS,
    FunctionsConfig,
    LengthBand,
    RewardConfig,
    Sentiment,
    chance,
    length_band,
    sentiment,
)

CONFIG = FunctionsConfig(
    length_band=LengthBand(shortest=4, longest=5),
    sentiment=Sentiment(positive=["glad", "kind", "fun"], negative=["sad", "mad"]),
)


@pytest.mark.parametrize(("words", "value"), [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (5, 1.0), (6, 5 / 6), (10, 0.5)])
def test_length_band(words, value):
    assert length_band(" so" * words, CONFIG) == pytest.approx(value)


def test_a_band_of_one_length():
    config = CONFIG.model_copy(update={"length_band": LengthBand(shortest=3, longest=3)})
    assert [length_band("so " * words, config) for words in (2, 3, 6)] == pytest.approx([2 / 3, 1.0, 0.5])


@pytest.mark.parametrize(("text", "value"), [
    ("", 0.5),
    ("A dog.", 0.5),
    ("Glad!", 0.5 + 1 / 4),
    ("glad, glad, glad", 0.5 + 1 / 4),  # repeating gains nothing
    ("glad and kind", 0.5 + 2 / 6),
    ("glad, kind, fun", 0.5 + 3 / 8),
    ("'glad,' he said", 0.5 + 1 / 4),
    ("glad's", 0.5),
    ("sad", 0.5 - 1 / 4),
    ("glad but sad", 0.5),
    ("glad, kind but sad", 0.5 + 1 / 8),
    ("gladly unkind madness", 0.5),  # whole words
])  # fmt: skip
def test_sentiment(text, value):
    assert sentiment(text, CONFIG) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "\n\n", "1 2 3", "glad " * 500, "sad " * 500, "�", "<s>"])
def test_every_function_stays_between_0_and_1(text):
    assert all(0 <= function(text, CONFIG) <= 1 for function in FUNCTIONS.values())


def test_chance_is_uniform_and_knows_nothing_of_the_text():
    """Kolmogorov-Smirnov: the largest gap to the line is below 1.63 / √n at 1 %."""
    texts = ["glad " * (number % 7) + str(number) for number in range(2000)]
    values = [chance(text, CONFIG) for text in texts]
    assert values == [chance(text, CONFIG) for text in texts]
    assert max(abs(value - (rank + 0.5) / 2000) for rank, value in enumerate(sorted(values))) < 1.63 / 2000**0.5
    lengths = [len(text) for text in texts]
    assert abs(statistics.correlation(values, lengths)) < 3 / 2000**0.5


@pytest.mark.parametrize(("part", "values", "says"), [
    (LengthBand, {"shortest": 5, "longest": 4}, r"shortest \(5\) is more than longest \(4\)"),
    (LengthBand, {"shortest": 0, "longest": 4}, "greater than 0"),
    (Sentiment, {"positive": ["Glad"], "negative": []}, "'Glad' would never be found"),
    (Sentiment, {"positive": [], "negative": ["very sad"]}, "'very sad' would never be found"),
    (Sentiment, {"positive": ["glad'"], "negative": []}, "would never be found"),
    (Sentiment, {"positive": ["so", "mad"], "negative": ["mad"]}, "'mad' is listed as positive and as negative"),
])  # fmt: skip
def test_numbers_that_make_no_sense(part, values, says):
    with pytest.raises(ValidationError, match=says):
        part(**values)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_finite(weight):
    with pytest.raises(ValidationError, match="finite"):
        RewardConfig(weights={"sentiment": weight}, functions=CONFIG)
