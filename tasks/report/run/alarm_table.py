"""The alarms of a run's trainings: a table of when each held, and a sentence on those that held to the end."""

from collections.abc import Sequence
from html import escape

from tasks.report.alarms import MEANINGS, raised
from tasks.report.run.recorded import Policy, Recorded
from tasks.report.tables import name_of, row, table
from tasks.report.wording import MISSING, listing


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
