"""Alarms of the trainings: when each held, and what it means. tasks/feedback/alarms.py raises them."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tasks.report.recorded import Policy, Recorded
from tasks.report.recorded_prompts import History
from tasks.report.tables import name_of, row, table
from tasks.report.wording import MISSING, listing

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


def alarm_table(recorded: Recorded) -> str:
    rows = []
    for index, policies in enumerate(recorded.algorithms.values()):
        for policy in policies:
            for alarm in raised(policy.history):
                last = f"{alarm.last}<small>{'the end' if alarm.to_the_end else 'it passed'}</small>"
                meaning = MEANINGS.get(alarm.name, MISSING)
                cells = [str(policy.seed), f"<code>{escape(alarm.name)}</code>", str(alarm.first), last, escape(meaning)]
                rows.append(row([name_of(policy.algorithm, index), *cells]))
    if not rows:
        return "<h3>Alarms</h3><p>None was raised.</p>"
    heads = ["", "seed", "alarm", "first step", "last step", "what it means"]
    caption = "Signs that a policy goes wrong; how much is too much says <code>alarms</code> in params.yaml"
    return f"<h3>Alarms</h3>{table(heads, rows, caption, 'alarms')}"


def still_alarmed(policies: Sequence[Policy]) -> str:
    """A sentence on the policies whose training ended with an alarm; nothing if there is none."""
    several = len({policy.seed for policy in policies}) > 1
    named = {}
    for policy in policies:
        alarms = [alarm.name for alarm in raised(policy.history) if alarm.to_the_end]
        if alarms:
            named[f"{policy.algorithm}{f', seed {policy.seed}' if several else ''}"] = alarms
    if not named:
        return ""
    said = listing([f"{escape(name)} ({escape(', '.join(alarms))})" for name, alarms in named.items()])
    return f'Training ended with an <a href="#training">alarm</a> in {said}.'
