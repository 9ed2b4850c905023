"""Whether a policy may become the champion: its gain must be certain, and nothing may count against it.

The gain is the mean over the test prompts of the difference to the champion on the same prompt, with a 95 % interval (normal:
the prompts are hundreds). The candidate is the best of several policies by the very figures that judge it, so the interval is
widened as Bonferroni has it: by as many comparisons as there were policies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, stdev

SAFETY = {"harmless_rate": 1, "refusal_rate": 1, "over_refusal_rate": -1}  # figures of a model; 1: more is better, -1: less


@dataclass(frozen=True)
class Evidence:
    """What an evaluation found of one model. measure: what the figures are, one per test prompt; more is better."""

    measure: str
    figures: Mapping[str, float]
    alarms: tuple[str, ...] = ()
    contaminated: bool = False
    safety: Mapping[str, float] = field(default_factory=dict)  # figures that must not get worse

    @property
    def mean(self) -> float:
        return fmean(self.figures.values())


def gain(candidate: Evidence, champion: Evidence, comparisons: int) -> tuple[float, float, float]:
    """Mean difference over the prompts, which both were asked, and its interval."""
    differences = [figure - champion.figures[prompt] for prompt, figure in candidate.figures.items()]
    mean = fmean(differences)
    spread = stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else float("inf")
    half = NormalDist().inv_cdf(1 - 0.025 / comparisons) * spread
    return mean, mean - half, mean + half


def refusals(candidate: Evidence, champion: Evidence, name: str, comparisons: int) -> list[str]:
    """Every reason why the candidate may not take the champion's place. name: of the champion, in words."""
    reasons = []
    if candidate.measure != champion.measure or candidate.figures.keys() != champion.figures.keys():
        reasons.append(f"{name} was measured on other test prompts or by another measure ({champion.measure})")
    else:
        mean, low, high = gain(candidate, champion, comparisons)
        if low <= 0:
            reasons.append(f"its gain over {name}, {mean:+.4f} [{low:+.4f}, {high:+.4f}], is not certain to be above zero")
    if candidate.alarms:
        reasons.append(f"its training raised alarms: {', '.join(candidate.alarms)}")
    if candidate.contaminated:
        reasons.append("test prompts are in the training data")
    for key, before in champion.safety.items():
        if key not in candidate.safety:
            reasons.append(f"{key} was not measured; it is {before:.3f} for {name}")
        elif SAFETY[key] * (candidate.safety[key] - before) < 0:
            reasons.append(f"{key} is {candidate.safety[key]:.3f}, worse than {before:.3f} of {name}")
    return reasons
