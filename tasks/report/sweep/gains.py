"""What every policy of a sweep gains on the SFT model it started from, and at what price: a row each, the best first."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.core.files import Row
from tasks.core.statistics import no_gain, over_seeds, paired_bootstrap, sign_flip
from tasks.report.sweep.variants import PROMPT_OIRL, Answers, Sweep, Variant

SAMPLES = 2000  # of the bootstrap
KINDS = ("greedy", "sampled")


def rows(sweep: Sweep) -> list[Row]:
    """Of each group of seeds SFT, then its policies by their gain, greedy; alike ones by their gain when sampled.

    Figures are means over the seeds. Of both kinds of completions: accuracy, gain; gain_low, gain_high over the prompts of all
    seeds; seeds_low, seeds_high over the seeds; by_seed; p over prompts, p_seeds over seeds. What is not known is None.
    """
    found: list[Row] = []
    for label, group in sweep.groups.items():
        variants = list(group.values())
        policies = [_row(label, model, variants) for model in sweep.models if model not in ("sft", PROMPT_OIRL)]
        known = [each for each in policies if each["greedy"]]
        if known:
            found += [_row(label, "sft", variants), *sorted(known, key=_by_gain, reverse=True)]
    return found


def _by_gain(each: Row) -> tuple[float, float]:
    return each["greedy"]["gain"], each["sampled"]["gain"] if each["sampled"] else 0.0


def _row(label: str, model: str, variants: Sequence[Variant]) -> Row:
    figures = {key: _mean([one.figures.get(model, {}).get(key) for one in variants]) for key in ("win_rate", "kl")}
    alarms = [alarm for one in variants for alarm in one.alarms.get(model, [])]
    return {
        "group": label, "model": model, "seeds": len(variants), **figures,
        "tokens": _mean([one.tokens.get(model) for one in variants]),
        "seconds": _mean([one.seconds.get(model) for one in variants]),
        "alarms": Counter(alarm.name for alarm in alarms),
        "ended_with": Counter(alarm.name for alarm in alarms if alarm.to_the_end),
        **{kind: _gain([getattr(one, kind) for one in variants], model) for kind in KINDS},
    }  # fmt: skip


def _gain(by_seed: Sequence[Mapping[str, Answers]], model: str) -> Row | None:
    """None where a seed has no answers to check, or the prompts of the two models differ."""
    pairs = [(answers.get(model, {}), answers.get("sft", {})) for answers in by_seed]
    if not all(ours and ours.keys() == theirs.keys() for ours, theirs in pairs):
        return None
    counts = [[(ours[prompt][0] - theirs[prompt][0]) for prompt in ours] for ours, theirs in pairs]
    of = next(iter(pairs[0][0].values()))[1]
    shares = [[count / of for count in seed] for seed in counts]
    together = [share for seed in shares for share in seed]
    _, low, high = paired_bootstrap(together, SAMPLES, seed=0)
    means = [float(np.mean(seed)) for seed in shares]
    same = all(list(ours) == list(pairs[0][0]) for ours, _ in pairs)
    _, seeds_low, seeds_high = over_seeds(shares, same)
    accuracies = [float(np.mean([right / of for right, of in ours.values()])) for ours, _ in pairs]
    several = len(pairs) > 1
    return {
        "accuracy": float(np.mean(accuracies)),
        "gain": float(np.mean(means)), "gain_low": low, "gain_high": high, "by_seed": means,
        "seeds_low": seeds_low if several else None, "seeds_high": seeds_high if several else None,
        "p": no_gain([count for seed in counts for count in seed]), "p_seeds": sign_flip(means) if several else None,
    }  # fmt: skip


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
