"""Overlap of texts, against counts by hand; nothing is imported that nobody asked for."""

import ast
from collections.abc import Callable
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.files import read_table, write_table
from tasks.evaluation.text_metrics import self_bleu, text_figures
from tests.rules.code import imports, tree
from tests.tasks.evaluation.test_evaluate import SFT

ANSWERS = replace(
    SFT,
    greedy=["the cat sat down here", "a dog", "nobody knows", "the sun rose"],
    sampled=[["one two", "one two"], ["one two", "six ten"], ["a b c d e", "a b c d x"], ["", ""]],
)
REFERENCES = ["the cat sat down", "a dog", None, "the moon rose"]


def test_figures_by_hand() -> None:
    figures = text_figures(["bleu", "rouge_1", "rouge_2", "rouge_l", "chrf"], ANSWERS, REFERENCES, 200, seed=0)
    # 10 words written, 9 known: no penalty of brevity. Right are of the 1-grams 8 of 10, then 4 of 7, 2 of 4, 1 of 2
    assert figures["bleu"] == pytest.approx((8 / 10 * 4 / 7 * 2 / 4 * 1 / 2) ** 0.25, abs=1e-6)
    assert figures["rouge_1"] == pytest.approx((2 / (5 / 4 + 1) + 1 + 2 / 3) / 3)  # F1 of 4 of 5 and of 4 of 4; all; 2 of 3
    assert figures["rouge_2"] == pytest.approx((2 / (4 / 3 + 1) + 1 + 0) / 3)
    assert figures["rouge_l"] == pytest.approx(figures["rouge_1"])
    assert 0.5 < figures["chrf"] < 1
    for metric in ("bleu", "rouge_1", "chrf"):
        assert figures[f"{metric}_low"] < figures[metric] < figures[f"{metric}_high"]


def test_too_short_a_text_is_worth_less() -> None:
    """BLEU's penalty of brevity: 4 words for 6."""
    answers = replace(ANSWERS, greedy=["a b c d"])
    assert text_figures(["bleu"], answers, ["a b c d e f"], 50, seed=0)["bleu"] == pytest.approx(exp(1 - 6 / 4), abs=1e-6)


def test_self_bleu_by_hand() -> None:
    """Alike, nothing in common, 4-gram and all below but the last word, empty."""
    alike, apart, close, empty = self_bleu(ANSWERS.sampled)
    assert alike == pytest.approx(1)
    assert close == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert apart == empty == 0


def test_identical_texts_are_whole() -> None:
    known = ["the quick brown fox jumps", "over the lazy dog again"]
    figures = text_figures(["bleu", "chrf", "rouge_1", "rouge_2", "rouge_l"], replace(ANSWERS, greedy=known), known, 50, seed=0)
    assert {round(value, 6) for value in figures.values()} == {1.0}


def test_what_the_stage_writes(evaluated: Callable[..., dict[str, Any]]) -> None:
    """Its models know the solutions by heart."""
    metrics = evaluated(text_metrics=["rouge_1", "self_bleu"])
    for figures in (metrics["sft"], metrics["policy"]["ppo"]["0"]):
        assert (figures["rouge_1"], figures["rouge_1_low"], figures["rouge_1_high"]) == (1, 1, 1)
        assert 0 <= figures["self_bleu_low"] <= figures["self_bleu"] <= figures["self_bleu_high"] <= 1
    assert "rouge_1" not in evaluated()["sft"]


def test_without_solutions_only_samples_can_be_compared(evaluated: Callable[..., dict[str, Any]]) -> None:
    path = Path("data/prepared/prompts.parquet")
    rows = read_table(path)
    write_table(path, [row | {"solution": None} for row in rows])
    try:
        assert "self_bleu" in evaluated(text_metrics=["self_bleu"])["sft"]
        with pytest.raises(
            InputError, match="no test prompt has a `solution` to compare with; take bleu, rouge_l out of `eval"
        ):
            evaluated(text_metrics=["bleu", "self_bleu", "rouge_l"])
    finally:
        write_table(path, rows)


@pytest.mark.parametrize(("change", "why"), [
    ({"text_metrics": ["meteor"]}, "is 'meteor'; it should be 'bleu', 'chrf', "),
    ({"text_metrics": ["self_bleu"], "samples_per_prompt": 1}, "self_bleu compares the samples of a prompt, and "
     "samples_per_prompt is 1; raise it"),
])  # fmt: skip
def test_params_that_cannot_be_measured(evaluated: Callable[..., dict[str, Any]], change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=r"^params\.yaml: `evaluate[^\n]+$") as refused:
        evaluated(**change)
    assert why in str(refused.value)


def test_nothing_is_imported_that_nobody_asked_for() -> None:
    everywhere = {imported.of.split(".")[0] for imported in imports("tasks.evaluation.text_metrics")}
    assert everywhere >= {"sacrebleu", "rouge_score"}
    at_once = [node for node in tree("tasks.evaluation.text_metrics").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "sacrebleu" not in (written := " ".join(map(ast.unparse, at_once)))
    assert "rouge_score" not in written
