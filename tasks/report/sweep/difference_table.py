"""Each variant of a sweep against the one it is compared with: a row per model, on the page and for whoever prints it."""

from html import escape

from tasks.core.files import Row
from tasks.report.sweep.cells import colour, figures, how_to_read, named, size
from tasks.report.sweep.differences import Difference, adjusted, counted, difference
from tasks.report.sweep.gains import recorded
from tasks.report.sweep.variants import KINDS, Kind, Sweep
from tasks.report.tables import row, table
from tasks.report.whiskers import axis, scale_of, whisker

Found = list[tuple[str, str, Difference | None]]


def against_reference(sweep: Sweep, kind: Kind) -> Found:
    """(group, model, difference): the same model in both. Holm's correction is for all of them."""
    reference = sweep.groups.get(sweep.reference, {})
    others = {label: group for label, group in sweep.groups.items() if label != sweep.reference}
    keys = [(label, model) for label in others for model in sweep.models]
    found = [difference(others[label], reference, model, kind=kind) for label, model in keys]
    return [(*key, each) for key, each in zip(keys, adjusted(found), strict=True)]


def rows(sweep: Sweep) -> list[Row]:
    """Of the models whose completions differ at all: what varies often comes after SFT, which is then the same."""
    pairs = zip(*(against_reference(sweep, kind) for kind in KINDS), strict=True)
    return [
        {"group": group, "model": model, "reference": sweep.reference, "seeds": _seeds(sampled, greedy)}
        | {kind: {"difference": each.mean, **recorded(each)} if each else None for kind, each in zip(KINDS, found, strict=True)}
        for (group, model, sampled), (_, _, greedy) in pairs
        for found in [(sampled, greedy)]
        if any(each and each.words != "no difference" for each in found)
    ]


def section(sweep: Sweep) -> str:
    """Each group against the reference, model by model."""
    found = {kind: against_reference(sweep, kind) for kind in KINDS}
    known = [each for _, _, each in found[sweep.leading] if each]
    if not known:
        return ""
    scale = scale_of(known)
    several = any(len(each.by_seed) > 1 for each in known)
    heads = ["", "seeds × prompts"]
    for kind in KINDS:
        heads += [f"{kind}, points", "in words", *(["of these models"] if several else [])]
    heads.insert(3, axis(scale))
    body = []
    for (label, model, sampled), (_, _, greedy) in zip(*found.values(), strict=True):
        leading = sampled if sweep.leading == "sampled" else greedy
        prompts = leading.prompts if leading else None
        cells = [size(_seeds(sampled, greedy), prompts), *figures(sampled, several), *figures(greedy, several)]
        cells.insert(2, whisker(leading, scale, colour(model, sweep)) if leading else "")
        body.append(row([named(model, label, sweep), *cells], "next" if model == sweep.models[-1] else ""))
    counts = ", ".join(f"{words}: {count}" for words, count in counted(known).items())
    notes = f"<p>{how_to_read(sweep.most_seeds)} In {sweep.leading} completions {counts}.</p>"
    if len(known) < len(body):
        notes += "<p>A dash: the two were asked different test prompts with one seed each, or nothing was recorded.</p>"
    caption = (
        f"Each variant against <b>{escape(sweep.reference)}</b>, the same model in both: completions sampled at temperature 1, "
        f"and greedy ones; drawn are the {sweep.leading} ones"
    )
    return f"<h2>Differences between variants</h2>{notes}{table(heads, body, caption, 'sweep')}"


def _seeds(*found: Difference | None) -> int:
    return max((len(each.by_seed) for each in found if each), default=0)
