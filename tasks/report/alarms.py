"""Alarms of a training: what each means, and when it held. tasks/training/alarms.py raises them."""

from dataclasses import dataclass

from tasks.report.recorded import History

MEANINGS = {
    "length_drift": "completions have become much longer or shorter than at the start",
    "repetition": "completions repeat themselves",
    "eos_rate": "too few completions end by themselves",
    "entropy": "the policy has nearly stopped exploring",
    "kl_budget": "the policy is further from the reference than the budget allows",
    "proxy_gap": "right answers have fallen while the score has not: the reward is being exploited",
    "dominance": "one reward component makes nearly all of the spread of the scores",
}


@dataclass(frozen=True)
class Alarm:
    """first, last: steps at which it held. to_the_end: whether the last of the watched steps is among them."""

    name: str
    first: int
    last: int
    to_the_end: bool


def raised(history: History) -> list[Alarm]:
    """In the order in which they were raised."""
    watched = [each["step"] for each in history if "rollout/score_mean" in each]
    steps: dict[str, list[int]] = {}
    for each in history:
        for key in each:
            if key.startswith("alarm/"):
                steps.setdefault(key.removeprefix("alarm/"), []).append(each["step"])
    return [Alarm(name, held[0], held[-1], held[-1] == watched[-1]) for name, held in steps.items()]
