"""Is one variant, or one model, more often right than another? Answered with an interval, and in words.

With one seed the two sides answer the same test prompts, and the interval is over prompts: it speaks of these two models, not
of another training run. With several seeds each is one repetition of everything, and the interval is over seeds; the
one over the prompts of all seeds together stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.core.statistics import over_seeds, paired_bootstrap, sign_flip
from tasks.report.sweep.variants import Kind, Right, Variant

SAMPLES = 4000  # of the bootstrap
Group = Mapping[Any, Variant]  # by seed
Words = Literal["better", "worse", "cannot tell", "no difference"]


@dataclass(frozen=True)
class Difference:
    """Of the share of right answers, in favour of the first side. p: sign-flip p-value over seeds. paired: whether both sides
    answered the same prompts. over_prompts: of several seeds the interval over all their prompts together."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]
    p: float | None
    paired: bool
    over_prompts: tuple[float, float] | None = None

    @property
    def words(self) -> Words:
        if self.low == self.high == 0:
            return "no difference"  # on any prompt: most often what varies comes after this model
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "cannot tell"


def difference(
    one: Group, other: Group, model: str, other_model: str | None = None, kind: Kind = "greedy"
) -> Difference | None:
    """Of `model` in two groups, or of two models in one; over the seeds that both have. None: nothing can be said."""
    pairs = [(one[seed], other[seed]) for seed in one if seed in other]
    by_prompt = [_by_prompt(a.shares(kind, model), b.shares(kind, other_model or model)) for a, b in pairs]
    paired = bool(pairs) and all(by_prompt)
    if not paired:
        if len(pairs) < 2:
            return None
        by_prompt = [_of_shares(a, b, model, other_model or model, kind) for a, b in pairs]
        if not all(by_prompt):
            return None
    figures = [list(found.values()) for found in by_prompt]
    means = tuple(sum(values) / len(values) for values in figures)
    if len(pairs) == 1:
        return Difference(*paired_bootstrap(figures[0], SAMPLES, seed=0), means, None, paired)
    same = paired and all(list(found) == list(by_prompt[0]) for found in by_prompt)
    _, low, high = paired_bootstrap([value for values in figures for value in values], SAMPLES, seed=0)
    over_prompts = (low, high) if paired else None
    return Difference(*over_seeds(figures, same), means, sign_flip(means), paired, over_prompts)


def mean_over_seeds(group: Group, model: str) -> tuple[float, float, float] | None:
    """Share of right answers and its interval over seeds."""
    right = [variant.right.get(model, {}) for variant in group.values()]
    if len(right) < 2 or not all(right):
        return None
    same = all(list(found) == list(right[0]) for found in right)
    mean, low, high = over_seeds([list(found.values()) for found in right], same)
    return mean, max(0.0, low), min(1.0, high)


def counted(differences: Sequence[Difference]) -> dict[Words, int]:
    order: tuple[Words, ...] = ("better", "worse", "cannot tell", "no difference")
    return {words: sum(each.words == words for each in differences) for words in order}


def _by_prompt(right: Right, other: Right) -> dict[Any, float]:
    """Prompt by prompt, where both sides answered the same ones; else nothing."""
    return {prompt: right[prompt] - other[prompt] for prompt in right} if right.keys() == other.keys() else {}


def _of_shares(one: Variant, other: Variant, model: str, other_model: str, kind: Kind) -> dict[Any, float]:
    """Where the prompts differ, such as after a change of the data: the shares can still be subtracted, seed by seed."""
    key = {"greedy": "accuracy", "sampled": "sampled_accuracy"}[kind]
    ours, theirs = one.figures.get(model, {}).get(key), other.figures.get(other_model, {}).get(key)
    return {} if ours is None or theirs is None else {"all": ours - theirs}
