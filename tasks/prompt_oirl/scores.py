"""What the report shows of choices on queries the fit has not seen: whether chances can be believed, and each choice.

A query that was asked several times under a prompt has a share of right answers.
"""

import numpy as np

from tasks.core.files import Row
from tasks.core.statistics import ece, wilson
from tasks.prompt_oirl.answers import Answers, Array

BINS = 10


def calibration(chances: Array, test: Answers) -> tuple[dict[str, float], list[Row]]:
    """(ece of all pairs and of the choices, the bins of all pairs)"""
    pairs = bins(chances.ravel(), test.right.ravel(), test.calls.ravel())
    every, choice = np.arange(len(test)), chances.argmax(axis=1)
    chosen = bins(chances[every, choice], test.right[every, choice], test.calls[every, choice])
    return {"ece": ece(pairs), "choice_ece": ece(chosen)}, pairs


def bins(chances: Array, right: Array, calls: Array) -> list[Row]:
    """What was announced and what came, by tenths of the announced chance; right_low, right_high: 95 % Wilson interval."""
    place = np.minimum((chances * BINS).astype(int), BINS - 1)
    rows = []
    for index in np.unique(place):
        inside = place == index
        number = int(calls[inside].sum())
        share, low, high = wilson(float(right[inside].sum()), number)
        predicted = float((chances * calls)[inside].sum() / number)
        rows.append({"predicted": predicted, "right": share, "right_low": low, "right_high": high, "calls": number})
    return rows


def choice_rows(chances: Array, test: Answers, best: int, query_ids: dict[str, str]) -> list[Row]:
    """One row per test query: what was chosen, how sure, and what would have been right.

    right, best_right: shares of right answers under the chosen prompt and under the best single one, 0 or 1 if asked once.
    """
    names = list(test.prompts)
    rows = []
    for query, sure, rates in zip(test.queries, chances, test.rates, strict=True):
        choice = int(sure.argmax())
        rows.append({
            "query_id": query_ids[query],
            "query": query,
            "prompt_id": names[choice],
            "probability": round(float(sure[choice]), 4),
            "correct": bool(rates[choice] >= 0.5),
            "right_prompts": ", ".join(name for name, rate in zip(names, rates, strict=True) if rate >= 0.5),
            "right": float(rates[choice]),
            "best_right": float(rates[best]),
        })  # fmt: skip
    return rows


def prompt_rows(test: Answers, training: Answers) -> list[Row]:
    """One row per prompt: how often it is right on its own."""
    successes = zip(test.prompts.items(), training.success.tolist(), test.success.tolist(), strict=True)
    return [
        {"prompt_id": name, "prompt": text, "train_success": on_train, "test_success": on_test}
        for (name, text), on_train, on_test in successes
    ]
