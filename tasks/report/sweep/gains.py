"""What every policy of a sweep gains on the SFT model it started from, and at what price: a row each, the best first."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tasks.core.files import Row
from tasks.report.sweep.differences import Difference, Group, adjusted, difference
from tasks.report.sweep.variants import KINDS, PROMPT_OIRL, Kind, Sweep


def rows(sweep: Sweep) -> list[Row]:
    """Of each group of seeds SFT, then its policies by their gain, sampled; alike ones by their gain when greedy.

    Figures are means over the seeds. Of both kinds of completions: accuracy; gain, with its figures as `recorded` names them.
    What is not known is None.
    """
    gained = gains(sweep)
    found: list[Row] = []
    for label, group in sweep.groups.items():
        policies = [_row(label, model, group, gained) for model in policies_of(sweep)]
        known = [each for each in policies if each["sampled"] or each["greedy"]]
        if known:
            found += [_row(label, "sft", group, gained), *sorted(known, key=_by_gain, reverse=True)]
    return found


def policies_of(sweep: Sweep) -> list[str]:
    return [model for model in sweep.models if model not in ("sft", PROMPT_OIRL)]


def gains(sweep: Sweep) -> dict[tuple[Kind, str, str], Difference | None]:
    """By kind of completions, group and policy; Holm's correction is for all of one kind."""
    found: dict[tuple[Kind, str, str], Difference | None] = {}
    for kind in KINDS:
        keys = [(kind, label, model) for label in sweep.groups for model in policies_of(sweep)]
        each = [difference(sweep.groups[label], sweep.groups[label], model, "sft", kind) for _, label, model in keys]
        found |= dict(zip(keys, adjusted(each), strict=True))
    return found


def recorded(each: Difference) -> dict[str, Any]:
    """low, high, p, p_holm: over seeds, or of one seed over prompts. models_low, models_high: of several seeds, over the
    prompts of all together; they are of these models."""
    low, high = each.of_models or (None, None)
    return {"low": each.low, "high": each.high, "p": each.p, "p_holm": each.p_holm, "words": each.words} | {
        "models_low": low, "models_high": high, "by_seed": each.by_seed, "prompts": each.prompts,
    }  # fmt: skip


def _by_gain(each: Row) -> tuple[float, float]:
    sampled, greedy = ((each[kind] or {}).get("gain", 0.0) for kind in KINDS)
    return sampled, greedy


def _row(label: str, model: str, group: Group, gained: dict[tuple[Kind, str, str], Difference | None]) -> Row:
    variants = list(group.values())
    figures = {key: _mean([one.figures.get(model, {}).get(key) for one in variants]) for key in ("win_rate", "kl")}
    alarms = [alarm for one in variants for alarm in one.alarms.get(model, [])]
    return {
        "group": label, "model": model, "seeds": len(variants), **figures,
        "tokens": _mean([one.tokens.get(model) for one in variants]),
        "seconds": _mean([one.seconds.get(model) for one in variants]),
        "alarms": Counter(alarm.name for alarm in alarms),
        "ended_with": Counter(alarm.name for alarm in alarms if alarm.to_the_end),
        **{kind: _of_kind(kind, group, model, gained.get((kind, label, model))) for kind in KINDS},
    }  # fmt: skip


def _of_kind(kind: Kind, group: Group, model: str, gain: Difference | None) -> Row | None:
    """Accuracy and, of a policy, its gain. None where a seed has no answers to check, or the prompts of the two differ."""
    key = {"greedy": "accuracy", "sampled": "sampled_accuracy"}[kind]
    by_seed = []
    for one in group.values():
        answers = one.answers(kind, model)
        shares = [right / of for right, of in answers.values()]
        by_seed.append(sum(shares) / len(shares) if shares else one.figures.get(model, {}).get(key))
    if None in by_seed or (model != "sft" and gain is None):
        return None
    return {"accuracy": _mean(by_seed)} | ({"gain": gain.mean, **recorded(gain)} if gain else {})


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
