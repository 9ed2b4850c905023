"""How far a reward model agrees with held-out pairs, how much its margins can be believed, and what length alone would do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.files import Row
from tasks.core.statistics import ece, wilson
from tasks.rewards.verifier import is_correct

Array = NDArray[np.float64]
BINS = 10
KINDS = {2: "both right", 1: "right against wrong", 0: "both wrong"}  # by the number of right completions


def agreement_figures(scores: Array, lengths: Array) -> dict[str, float]:
    """scores, lengths (tokens): of the chosen and of the rejected completion, (pairs, 2)."""
    margins = scores[:, 0] - scores[:, 1]
    accuracy, low, high = wilson(int((margins > 0).sum()), len(margins))
    longer = float(np.mean(np.sign(lengths[:, 0] - lengths[:, 1]) / 2 + 0.5))
    figures = {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "held_out_pairs": float(len(margins)),
        "ece": ece(calibration(margins)),
        "longer_wins": longer,
    }
    if scores.std() > 0 and lengths.std() > 0:
        figures["length_correlation"] = float(np.corrcoef(scores.ravel(), lengths.ravel())[0, 1])
    return figures


def ensemble_figures(fresh: Tensor, pairs: Tensor, stds: Tensor) -> dict[str, float]:
    """fresh: scores of each member on the same samples, (members, batch); pairs: (members, pairs, 2); stds: (members,).

    disagreement_auc ranks pairs by the std of their margins over their mean size: the std alone grows with the margin, and so
    points at the pairs that are surely right. It is left out where all pairs, or none, are in the wrong order.
    """
    from sklearn.metrics import roc_auc_score

    standardised = (fresh - fresh.mean(1, keepdim=True)) / stds[:, None]
    margins = (pairs[..., 0] - pairs[..., 1]) / stds[:, None]
    wrong = margins.mean(0) <= 0
    figures = {
        "disagreement": standardised.std(0, correction=0).mean().item(),
        "ensemble_accuracy": 1 - wrong.double().mean().item(),
    }
    if 0 < wrong.sum() < len(wrong):
        relative = margins.std(0, correction=0) / margins.mean(0).abs().clamp(min=1e-12)
        figures["disagreement_auc"] = float(roc_auc_score(wrong.cpu(), relative.cpu()))
    return figures


def calibration(margins: Array) -> list[Row]:
    """σ(|margin|), the announced chance that the completion with the higher score is preferred, against how often it was.

    By bins of BINS equal widths from ½ to 1; right_low, right_high: 95 % Wilson interval. An equal score is right half of the
    time. Whichever completion is put first, a pair is the same, so nothing is lost by asking about the higher one.
    """
    chances = 1 / (1 + np.exp(-np.abs(margins)))
    right = np.sign(margins) / 2 + 0.5
    place = np.minimum(((chances - 0.5) * 2 * BINS).astype(int), BINS - 1)
    rows = []
    for index in np.unique(place):
        inside = place == index
        share, low, high = wilson(float(right[inside].sum()), int(inside.sum()))
        predicted = float(chances[inside].mean())
        rows.append({"predicted": predicted, "right": share, "right_low": low, "right_high": high, "calls": int(inside.sum())})
    return rows


def agreement_by_group(pairs: Sequence[Row], margins: Array, answers: dict[str, str | None], verifier: str) -> list[Row]:
    """Accuracy by kind of pair, by the size of the margin, and by the annotator's gap where it is known; sizes in thirds."""
    groups = {"kind": kinds_of(pairs, answers, verifier), "margin": thirds(np.abs(margins))}
    if all(row["gap"] is not None for row in pairs):
        groups["gap"] = thirds(np.abs(np.array([row["gap"] for row in pairs])))
    rows = []
    for by, names in groups.items():
        for name in sorted(set(names)):
            inside = np.array([each == name for each in names])
            accuracy, low, high = wilson(int((margins[inside] > 0).sum()), int(inside.sum()))
            rows.append({
                "by": by, "group": name, "pairs": int(inside.sum()), "accuracy": accuracy, "accuracy_low": low,
                "accuracy_high": high,
            })  # fmt: skip
    return rows


def kinds_of(pairs: Sequence[Row], answers: dict[str, str | None], verifier: str) -> list[str]:
    """By what the verifier says of both, where the prompt has an answer; else the row's own `kind`, else "pair"."""
    kinds = []
    for row in pairs:
        verdicts = [is_correct(row[side], answers.get(row["prompt"]), verifier) for side in ("chosen", "rejected")]
        kinds.append(row.get("kind") or "pair" if None in verdicts else KINDS[sum(map(bool, verdicts))])
    return kinds


def thirds(sizes: Array) -> list[str]:
    """ "0.12 to 0.53" for each, of three groups with about equally many."""
    edges = np.unique(np.quantile(sizes, [0, 1 / 3, 2 / 3, 1]))
    if len(edges) == 1:
        return [f"{edges[0]:.2f}"] * len(sizes)
    place = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, len(edges) - 2)
    return [f"{edges[i]:.2f} to {edges[i + 1]:.2f}" for i in place]
