"""The tables of an evaluation: every completion, right answers by kind of problem, and each model against each."""

from collections.abc import Mapping
from itertools import combinations

from tasks.core.files import Row
from tasks.core.statistics import holm, no_difference, paired_bootstrap, wilson
from tasks.evaluation.answers import Answers, Judge, num_right, outcomes, wins
from tasks.models.text import MARK
from tasks.rewards.verifier import is_correct
from tasks.training.prompts import Prompt


def completion_rows(written: Mapping[str, Answers], prompts: list[Prompt], verifier: str) -> list[Row]:
    """One row per prompt and model: the greedy completion, and how many samples are right."""
    right = {name: num_right(answers.sampled, prompts, verifier) for name, answers in written.items()}
    rows = []
    for index, prompt in enumerate(prompts):
        for name, answers in written.items():
            text, counts = answers.greedy[index], right[name]
            rows.append({
                "model": name,
                "id": prompt.id,
                "prompt": prompt.text.replace(MARK, ""),
                "completion": text,
                "answer": prompt.answer,
                "correct": is_correct(text, prompt.answer, verifier),
                "score": round(answers.greedy_scores[index], 4),
                "samples": len(answers.sampled[index]),
                "samples_right": counts[index] if counts else None,
            })  # fmt: skip
    return rows


def kind_rows(
    written: Mapping[str, Answers], prompts: list[Prompt], verifier: str, bootstrap_samples: int, seed: int
) -> list[Row]:
    """Right answers of each model by kind of problem, sampled and greedy; none where prompts have no kind or no answer."""
    kinds = dict.fromkeys(prompt.kind for prompt in prompts)
    rows: list[Row] = []
    if None in kinds or any(prompt.answer is None for prompt in prompts):
        return rows
    for name, answers in written.items():
        for kind in kinds:
            places = [index for index, prompt in enumerate(prompts) if prompt.kind == kind]
            asked = [prompts[index] for index in places]
            samples = [answers.sampled[index] for index in places]
            shares = [right / len(samples[0]) for right in num_right(samples, asked, verifier)]
            sampled, low, high = paired_bootstrap(shares, bootstrap_samples, seed)
            right = sum(num_right([[answers.greedy[index]] for index in places], asked, verifier))
            greedy, greedy_low, greedy_high = wilson(right, len(places))
            rows.append({
                "model": name, "kind": kind, "prompts": len(places),
                "sampled_accuracy": sampled, "sampled_accuracy_low": low, "sampled_accuracy_high": high,
                "accuracy": greedy, "accuracy_low": greedy_low, "accuracy_high": greedy_high,
            })  # fmt: skip
    return rows


def matrix_rows(
    written: Mapping[str, Answers], prompts: list[Prompt], judge: Judge, verifier: str, bootstrap_samples: int, seed: int
) -> list[Row]:
    """Every two models on the same prompts: how often the first is better, with p two-sided and p after Holm over all pairs."""
    rows: list[Row] = []
    for (model, one), (against, other) in combinations(written.items(), 2):
        found = outcomes(one, other, prompts, judge, verifier)
        win_rate, low, high = paired_bootstrap(wins(found, len(one.sampled[0])), bootstrap_samples, seed)
        rows.append({
            "model": model, "against": against, "prompts": len(prompts),
            "win_rate": win_rate, "win_rate_low": low, "win_rate_high": high, "p": no_difference(found),
        })  # fmt: skip
    return [row | {"p_holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]
