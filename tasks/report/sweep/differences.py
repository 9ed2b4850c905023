"""Is one variant, or one model, more often right than another? Answered with an interval, and in words.

With several seeds each is one repetition of everything: interval and p are over seeds, and speak of the next seed too. The
interval over the prompts of all seeds together stands beside them, and is said to be of these models. With one seed the two
sides answer the same test prompts, and all that can be said is of these models. Words go by p after Holm's correction for
all differences of a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import Any, Literal

from tasks.core.statistics import holm, no_difference, no_mean_over_seeds, over_seeds, paired_bootstrap
from tasks.report.sweep.variants import Answers, Kind, Variant

SAMPLES = 4000  # of the bootstrap
SURE = 0.05
Group = Mapping[Any, Variant]  # by seed
Words = Literal["better", "worse", "cannot tell", "no difference"]


@dataclass(frozen=True)
class Difference:
    """Of the share of right answers, in favour of the first side.

    low, high and p, two-sided, are over seeds, or with one seed over prompts. p_holm: p after Holm's correction. prompts: of
    each seed. of_models: of several seeds the interval over all their prompts together, where both sides have the same ones.
    """

    mean: float
    low: float
    high: float
    p: float
    by_seed: tuple[float, ...]
    prompts: int
    of_models: tuple[float, float] | None = None
    p_holm: float | None = None

    @property
    def words(self) -> Words:
        if self.low == self.high == 0:
            return "no difference"  # on any prompt: most often what varies comes after this model
        if (self.p if self.p_holm is None else self.p_holm) > SURE:
            return "cannot tell"
        return "better" if self.mean > 0 else "worse"


def difference(
    one: Group, other: Group, model: str, other_model: str | None = None, kind: Kind = "greedy"
) -> Difference | None:
    """Of `model` in two groups, or of two models in one; over the seeds that both have. None: nothing can be said."""
    pairs = [(one[seed], other[seed]) for seed in one if seed in other]
    answers = [(a.answers(kind, model), b.answers(kind, other_model or model)) for a, b in pairs]
    if pairs and all(ours and ours.keys() == theirs.keys() for ours, theirs in answers):
        return _paired(answers)
    means = [_of_figures(a, b, model, other_model or model, kind) for a, b in pairs]
    if len(means) < 2 or not all(means):
        return None
    _, low, high = over_seeds(means, same_prompts=False)
    p, by_seed = no_mean_over_seeds(means, same_prompts=False), tuple(each for (each,) in means)
    return Difference(sum(by_seed) / len(by_seed), low, high, p, by_seed, len(answers[0][0]))


def adjusted(found: Sequence[Difference | None]) -> list[Difference | None]:
    """With p after Holm for all of them together; sides that answer every prompt alike are no comparison."""
    places = [place for place, each in enumerate(found) if each and each.words != "no difference"]
    p_values = holm([each.p for place in places if (each := found[place])])
    after = dict(zip(places, p_values, strict=True))
    return [each and replace(each, p_holm=after.get(place)) for place, each in enumerate(found)]


def mean_over_seeds(group: Group, model: str, kind: Kind) -> tuple[float, float, float] | None:
    """Share of right answers and its interval over seeds."""
    found = [variant.answers(kind, model) for variant in group.values()]
    if len(found) < 2 or not all(found):
        return None
    same = all(list(each) == list(found[0]) for each in found)
    mean, low, high = over_seeds([[right / of for right, of in each.values()] for each in found], same)
    return mean, max(0.0, low), min(1.0, high)


def counted(differences: Sequence[Difference]) -> dict[Words, int]:
    order: tuple[Words, ...] = ("better", "worse", "cannot tell", "no difference")
    return {words: sum(each.words == words for each in differences) for words in order}


def _paired(answers: Sequence[tuple[Answers, Answers]]) -> Difference:
    """Prompt by prompt, where both sides answered the same ones in every seed."""
    unit = lcm(*(of for both in answers for side in both for _, of in side.values()))  # of counts that can be subtracted
    counts = [
        [ours[prompt][0] * unit // ours[prompt][1] - theirs[prompt][0] * unit // theirs[prompt][1] for prompt in ours]
        for ours, theirs in answers
    ]
    figures = [[count / unit for count in seed] for seed in counts]
    by_seed, prompts = tuple(sum(seed) / len(seed) for seed in figures), len(figures[0])
    mean, low, high = paired_bootstrap([each for seed in figures for each in seed], SAMPLES, seed=0)
    if len(answers) == 1:
        return Difference(mean, low, high, no_difference(counts[0]), by_seed, prompts)
    same = all(list(ours) == list(answers[0][0]) for ours, _ in answers)
    p = no_mean_over_seeds(figures, same)
    return Difference(*over_seeds(figures, same), p, by_seed, prompts, of_models=(low, high))


def _of_figures(one: Variant, other: Variant, model: str, other_model: str, kind: Kind) -> list[float]:
    """Where the prompts differ, such as after a change of the data: the shares can still be subtracted, seed by seed."""
    key = {"greedy": "accuracy", "sampled": "sampled_accuracy"}[kind]
    ours, theirs = one.figures.get(model, {}).get(key), other.figures.get(other_model, {}).get(key)
    return [] if ours is None or theirs is None else [ours - theirs]
