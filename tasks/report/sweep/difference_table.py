"""Each variant of a sweep against the one it is compared with: a row per model, on the page and for whoever prints it."""

from html import escape
from typing import Any

from tasks.core.files import Row
from tasks.report.sweep.cells import between, colour, named, over_seeds_note, small
from tasks.report.sweep.differences import Difference, counted, difference
from tasks.report.sweep.variants import Kind, Sweep
from tasks.report.tables import row, table
from tasks.report.whiskers import axis, scale_of, whisker
from tasks.report.wording import MISSING, data

OVER_PROMPTS = """<p>Both sides answer the same test prompts, and the interval is over prompts (paired bootstrap, 95 %): it
speaks of the two trained models, not of how another training run would end. For that, add <code>--seeds</code>.</p>"""
TOGETHER = """What is said over prompts is of the prompts of all seeds together, and speaks of these trained models alone."""
MANY = "Each interval is taken by itself: of twenty differences that are none, one would seem to be."


def against_reference(sweep: Sweep, kind: Kind = "greedy") -> list[tuple[str, str, Difference | None]]:
    """(group, model, difference): the same model in both."""
    reference = sweep.groups.get(sweep.reference, {})
    others = {label: group for label, group in sweep.groups.items() if label != sweep.reference}
    return [
        (label, model, difference(group, reference, model, kind=kind))
        for label, group in others.items()
        for model in sweep.models
    ]


def rows(sweep: Sweep) -> list[Row]:
    """Of the models whose greedy completions differ at all: what varies often comes after SFT, which is then the same."""
    pairs = zip(against_reference(sweep), against_reference(sweep, "sampled"), strict=True)
    return [
        {"group": group, "model": model, "reference": sweep.reference, "greedy": _figures(greedy), "sampled": _figures(sampled)}
        for (group, model, greedy), (_, _, sampled) in pairs
        if greedy and greedy.words != "no difference"
    ]


def _figures(each: Difference | None) -> dict[str, Any] | None:
    """The mean, its interval over the prompts of all seeds and, of several seeds, over these."""
    if each is None:
        return None
    several = len(each.by_seed) > 1
    low, high = (each.over_prompts or (None, None)) if several else (each.low, each.high)
    over_seeds = {"seeds_low": each.low, "seeds_high": each.high} if several else {"seeds_low": None, "seeds_high": None}
    return {"difference": each.mean, "low": low, "high": high, **over_seeds}


def section(sweep: Sweep) -> str:
    """Each group against the reference, model by model."""
    found = against_reference(sweep)
    known = [each for _, _, each in found if each]
    if not known:
        return ""
    scale = scale_of(known)
    over_seeds = any(len(each.by_seed) > 1 for each in known)
    beside = ["p", "over prompts"] if over_seeds else []
    heads = ["", "difference, points", axis(scale), *beside, "in words", "sampled, points", *beside[1:]]
    body = []
    for (label, model, each), (_, _, sampled) in zip(found, against_reference(sweep, "sampled"), strict=True):
        cells = _cells(each, scale, colour(model, sweep), over_seeds) + _sampled(sampled, over_seeds)
        body.append(row([named(model, label, sweep), *cells], "next" if model == sweep.models[-1] else ""))
    counts = ", ".join(f"{words}: {count}" for words, count in counted(known).items())
    notes = f"<p>{MANY} Here {counts}.</p>" + (
        f"<p>{over_seeds_note(sweep.most_seeds)} {TOGETHER}</p>" if over_seeds else OVER_PROMPTS
    )
    if len(known) < len(found):
        notes += "<p>A dash: the two were asked different test prompts with one seed each, or nothing was recorded.</p>"
    caption = (
        f"Each variant against <b>{escape(sweep.reference)}</b>, the same model in both: greedy completions, and those sampled "
        "at temperature 1"
    )
    return f"<h2>Differences between variants</h2>{notes}{table(heads, body, caption, 'sweep')}"


def _cells(each: Difference | None, scale: tuple[float, float], colour: str, over_seeds: bool) -> list[str]:
    """Difference, drawing, with several seeds p and the interval over prompts, and words."""
    if each is None:
        return [MISSING, "", *([""] * 2 if over_seeds else []), ""]
    shown = data(each.mean, "points") + small(between(each.low, each.high, "points"))
    p = "" if each.p is None else f'<data value="{each.p}">{each.p:.3f}</data>'
    words = f'<span class="{each.words}">{each.words}</span>'
    return [shown, whisker(each, scale, colour), *([p, _over_prompts(each)] if over_seeds else []), words]


def _sampled(each: Difference | None, over_seeds: bool) -> list[str]:
    """Difference, and with several seeds the interval over prompts."""
    if each is None:
        return [MISSING, *([""] if over_seeds else [])]
    shown = data(each.mean, "points") + small(between(each.low, each.high, "points"))
    return [shown, *([_over_prompts(each)] if over_seeds else [])]


def _over_prompts(each: Difference) -> str:
    return between(*each.over_prompts, "points") if each.over_prompts else ""
