"""The rows of tasks/report/sweep/gains.py on the page of a sweep."""

from collections.abc import Sequence
from html import escape
from string import Template

from tasks.core.files import Row
from tasks.report.sweep.cells import between, colour, named, over_seeds_note, small
from tasks.report.sweep.differences import Difference, Words
from tasks.report.sweep.variants import Sweep
from tasks.report.tables import row, table
from tasks.report.whiskers import axis, scale_of, whisker
from tasks.report.wording import MISSING, data

NOTES = Template("""<p>Every policy against the SFT model of its own seed, on the same test prompts. Intervals are 95 %, each
taken by itself. The interval and the p beneath a gain are over the prompts of all seeds together, so they speak of these
trained models: p is how often differences with signs by chance would gain as much (sign-flip test, one-sided). $seeds</p>
<p>Tokens were sampled to train on; seconds are those of the training, on the machine that did it; both per seed. An alarm in
colour held to the end of a training.</p>""")


def gain_table(found: Sequence[Row], sweep: Sweep) -> str:
    """found: the rows; nothing where there are none."""
    if not found:
        return ""
    several = max(each["seeds"] for each in found)
    scale = scale_of([_difference(each["greedy"]) for each in found if each["greedy"] and each["model"] != "sft"])
    seeds = ["over seeds"] if several > 1 else []
    heads = ["", "right, %", "gain, points", axis(scale), *seeds, "sampled, %", "gain, points", *seeds]
    heads += ["win rate, %", "KL, nats", "tokens", "seconds", "alarms"]
    body = []
    for each in found:
        policy = each["model"] != "sft"
        greedy, sampled = (_cells(each[kind], policy, several > 1) for kind in ("greedy", "sampled"))
        drawn = whisker(_difference(each["greedy"]), scale, colour(each["model"], sweep)) if policy and each["greedy"] else ""
        last = [data(each["win_rate"], "percent"), data(each["kl"], "decimal")]
        last += [data(each["tokens"], "count"), data(each["seconds"], "count")]
        cells = [*greedy[:2], drawn, *greedy[2:], *sampled, *(last if policy else [""] * 4), _alarms(each)]
        body.append(row([named(each["model"], each["group"], sweep), *cells], "" if policy else "reference"))
    caption = "SFT and every policy, the best first" + ("; figures are means over seeds, one dot per seed" if seeds else "")
    notes = NOTES.substitute(seeds=over_seeds_note(several))
    return f"<h2>SFT against each policy</h2>{notes}{table(heads, body, caption, 'sweep gains')}"


def _cells(each: Row | None, policy: bool, several: bool) -> list[str]:
    """Accuracy, gain, and what the seeds say of it."""
    count = 3 if several else 2
    if each is None:
        return [MISSING] + [""] * (count - 1)
    accuracy = data(each["accuracy"], "percent")
    if not policy:
        return [accuracy] + [""] * (count - 1)
    gain = data(each["gain"], "points") + small(between(each["gain_low"], each["gain_high"], "points"))
    cells = [accuracy, gain + small(f"p {data(each['p'], 'p')}")]
    if several and each["p_seeds"] is not None:
        words = _words(each)
        over_seeds = small(between(each["seeds_low"], each["seeds_high"], "points")) + small(f"p {data(each['p_seeds'], 'p')}")
        cells.append(f'<span class="{words}">{words}</span>{over_seeds}')
    return cells + [""] * (count - len(cells))


def _words(each: Row) -> Words:
    return Difference(each["gain"], each["seeds_low"], each["seeds_high"], tuple(each["by_seed"]), None, True).words


def _difference(each: Row) -> Difference:
    return Difference(each["gain"], each["gain_low"], each["gain_high"], tuple(each["by_seed"]), each["p"], True)


def _alarms(each: Row) -> str:
    said = []
    for name, count in each["alarms"].items():
        of = f" in {count} of {each['seeds']} seeds" if each["seeds"] > 1 else ""
        css = ' class="wrong"' if each["ended_with"].get(name) else ""
        said.append(f"<small{css}>{escape(name)}{of}</small>")
    return "".join(said)
