"""The rows of tasks/report/sweep/gains.py on the page of a sweep."""

from collections.abc import Sequence
from html import escape

from tasks.core.files import Row
from tasks.report.sweep.cells import colour, figures, how_to_read, named, size
from tasks.report.sweep.differences import Difference
from tasks.report.sweep.gains import gains
from tasks.report.sweep.variants import KINDS, Sweep
from tasks.report.tables import row, table
from tasks.report.whiskers import axis, scale_of, whisker
from tasks.report.wording import data

PRICE = """Tokens were sampled to train on; seconds are those of the training, on the machine that did it; both per seed. An
alarm in colour held to the end of a training."""


def gain_table(found: Sequence[Row], sweep: Sweep) -> str:
    """found: the rows; nothing where there are none."""
    if not found:
        return ""
    several = sweep.most_seeds > 1
    gained = gains(sweep)
    scale = scale_of([each for (kind, _, _), each in gained.items() if each and kind == sweep.leading])
    heads = ["", "seeds × prompts"]
    for kind in KINDS:
        heads += [f"{kind}, %", "gain, points", "in words", *(["of these models"] if several else [])]
    heads.insert(4, axis(scale))
    heads += ["win rate, %", "KL, nats", "tokens", "seconds", "alarms"]
    body = []
    for each in found:
        policy = each["model"] != "sft"
        differences = [gained.get((kind, each["group"], each["model"])) for kind in KINDS]
        cells = [size(each["seeds"], next((one.prompts for one in differences if one), None)) if policy else ""]
        for kind, one in zip(KINDS, differences, strict=True):
            gain = figures(one, several) if policy else [""] * (3 if several else 2)
            cells += [data((each[kind] or {}).get("accuracy"), "percent"), *gain]
        leading = differences[KINDS.index(sweep.leading)]
        cells.insert(3, _drawn(leading, scale, colour(each["model"], sweep)))
        last = [data(each["win_rate"], "percent"), data(each["kl"], "decimal")]
        last += [data(each["tokens"], "count"), data(each["seconds"], "count")]
        cells += [*(last if policy else [""] * 4), _alarms(each)]
        body.append(row([named(each["model"], each["group"], sweep), *cells], "" if policy else "reference"))
    caption = "SFT and every policy, the best first" + ("; figures are means over seeds, one dot per seed" if several else "")
    notes = f"<p>Every policy against the SFT model of its own seed. {how_to_read(sweep.most_seeds)}</p><p>{PRICE}</p>"
    return f"<h2>SFT against each policy</h2>{notes}{table(heads, body, caption, 'sweep gains')}"


def _drawn(each: Difference | None, scale: tuple[float, float], colour: str) -> str:
    return whisker(each, scale, colour) if each else ""


def _alarms(each: Row) -> str:
    said = []
    for name, count in each["alarms"].items():
        of = f" in {count} of {each['seeds']} seeds" if each["seeds"] > 1 else ""
        css = ' class="wrong"' if each["ended_with"].get(name) else ""
        said.append(f"<small{css}>{escape(name)}{of}</small>")
    return "".join(said)
