"""How far a proxy can be optimized before right answers fall: the forms of Gao, Schulman and Hilton 2023, fitted.

With d = √KL, the distance from SFT, the gold reward is that of SFT and

    best of n             d · (α − β · d),       at its highest where  d = α / (2β)
    reinforcement         d · (α − β · ln d),    at its highest where  ln d = α / β − 1

Both are linear in SFT's gold reward, α and β, so least squares fits them: to the table of best-of-n, and to the recorded steps
of a training. Steps of one training depend on each other, so a fit has no interval; other seeds show how far it spreads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, isclose, log, sqrt
from typing import Literal

import numpy as np

from tasks.report.recorded import Figures
from tasks.report.run.recorded import Recorded
from tasks.report.tables import name_of, row, table
from tasks.report.wording import data

GOLD, KL = "rollout/verifier_mean", "rollout/kl_mean"
FEWEST = 4  # points; with three numbers fitted, one that could contradict them
Form = Literal["best of n", "reinforcement"]


@dataclass(frozen=True)
class Fit:
    """alpha and beta, in share of right answers per √nat. peak: the KL, in nats, from which right answers fall; None where the
    form never falls. reached: the largest KL of the points. explained: of the variance of right answers."""

    alpha: float
    beta: float
    peak: float | None
    reached: float
    explained: float


def fit(points: Sequence[tuple[float, float]], form: Form) -> Fit | None:
    """points: (KL, right answers). None where they are too few or all alike."""
    distances = np.array([sqrt(max(kl, 0.0)) for kl, _ in points])
    right = np.array([share for _, share in points])
    if len(set(distances.tolist())) < FEWEST:
        return None
    bends = distances**2 if form == "best of n" else np.array([d * log(d) if d else 0.0 for d in distances])
    columns = np.stack([np.ones_like(distances), distances, -bends], axis=1)
    numbers, *_ = np.linalg.lstsq(columns, right, rcond=None)
    _, alpha, beta = map(float, numbers)
    total = float(((right - right.mean()) ** 2).sum())
    if isclose(total, 0.0, abs_tol=1e-12):
        return None
    explained = 1 - float(((right - columns @ numbers) ** 2).sum()) / total
    return Fit(alpha, beta, _peak(alpha, beta, form), float(distances.max()) ** 2, explained)


def _peak(alpha: float, beta: float, form: Form) -> float | None:
    """In nats."""
    if beta <= 0 or (form == "best of n" and alpha <= 0):
        return None
    return (alpha / (2 * beta)) ** 2 if form == "best of n" else exp(min(2 * (alpha / beta - 1), 700.0))


def budget_table(recorded: Recorded) -> str:
    """The KL from which right answers fall, for best of n and for every policy that has recorded both; nothing without any."""
    rows = []
    best = [(each["kl"], each["sampled_accuracy"]) for each in recorded.best_of_n if "sampled_accuracy" in each]
    if found := fit(best, "best of n"):
        rows.append(row(['<span class="name">best of n</span>', *_cells(found)], "reference"))
    for index, policies in enumerate(recorded.algorithms.values()):
        for policy in policies:
            if found := fit(_points(policy.history), "reinforcement"):
                label = f"{policy.algorithm}, seed {policy.seed}" if len(policies) > 1 else policy.algorithm
                rows.append(row([name_of(label, index), *_cells(found)]))
    if not rows:
        return ""
    heads = ["", "α", "β", "explained, %", "KL reached, nats", "right answers fall from, nats"]
    caption = "The forms of Gao et al. 2023, fitted to right answers over KL: where training should stop"
    note = """<p>With d = √KL, right answers are those of SFT and d·(α − β·d) for best of n, d·(α − β·ln d) for a policy. Steps
of one training depend on each other, so the fits have no intervals. Where little is explained, nothing follows.</p>"""
    return note + table(heads, rows, caption)


def _points(history: Sequence[Figures]) -> list[tuple[float, float]]:
    return [(step[KL], step[GOLD]) for step in history if KL in step and GOLD in step]


def _cells(found: Fit) -> list[str]:
    falls = "not within reach" if found.peak is None or found.peak > found.reached else data(found.peak, "decimal")
    shown = [data(found.alpha, "decimal"), data(found.beta, "decimal"), data(found.explained, "percent")]
    return [*shown, data(found.reached, "decimal"), falls]
