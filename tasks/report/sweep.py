"""The page of a sweep: its variants, and what the differences between them allow to say.

    python -m tasks.report.sweep .scratch/compare/<name>

From recorded files only, self-contained, without a script; the same files give the same bytes. Made by flows/compare.py as
a child process when the last variant has ended; a figure that was not recorded is a dash.
"""

import math
import sys
from html import escape
from pathlib import Path
from string import Template

from tasks.core.errors import InputError
from tasks.report.differences import Difference, counted, difference, mean_over_seeds
from tasks.report.drawing import variable
from tasks.report.sweep_template import BANNER, PAGE, STYLE
from tasks.report.tables import row, table
from tasks.report.template import LEAK
from tasks.report.variants import PROMPT_OIRL, Sweep, Variant, read_sweep
from tasks.report.whiskers import axis, scale_of, whisker
from tasks.report.wording import MISSING, Style, data, interval, listing

OVER_SEEDS = """<p>A seed is one repetition of everything that depends on it. Intervals are 95 %, Student's t over seeds, so
they speak of the next seed too; where all seeds answer the same prompts, the luck of the prompts is added. p is the sign-flip
permutation test: how often differences without a preferred sign would lie as far from zero. $floor</p>"""
OVER_PROMPTS = """<p>Both sides answer the same test prompts, and the interval is over prompts (paired bootstrap, 95 %): it
speaks of the two trained models, not of how another training run would end. For that, add <code>--seeds</code>.</p>"""
MANY = "Each interval is taken by itself: of twenty differences that are none, one would seem to be."


def page(sweep: Sweep) -> str:
    found = {"pairs": pairs(sweep), "seeds": seeds(sweep), "variants": variants(sweep)}
    contaminated = any(variant.contaminated for variant in sweep.variants)
    sections = "".join(f'<section id="{key}">{content}</section>\n' for key, content in found.items() if content)
    if contaminated:
        sections = sections.replace("<caption>", f"<caption>{LEAK}")
    ended = sum(variant.state == "saved" for variant in sweep.variants)
    return PAGE.substitute(
        title=escape(sweep.title),
        style=STYLE,
        banner=BANNER if contaminated else "",
        verdict=escape(verdict(sweep)),
        summary=f"{ended} of {len(sweep.variants)} variants ended well. Figures are shares of right answers to the test "
        "prompts, in %, unless a column says otherwise.",
        sections=sections,
    )


def verdict(sweep: Sweep) -> str:
    """What is better and what is worse, in one sentence."""
    several = max((len(group) for group in sweep.groups.values()), default=0)
    found = {f"{model} with {label}": each for label, model, each in _pairs(sweep) if each}
    than = f"with {sweep.reference}"
    if len(sweep.groups) < 2:
        found, than = {model: each for _, model, each in _gains(sweep) if each}, "SFT"
    if not found:
        return "Nothing was recorded that can be compared."
    found = {name: each for name, each in found.items() if each.words != "no difference"}
    if not found:
        return f"No model answers any prompt differently than {than}."
    over = f", over {several} seeds" if several > 1 else ""
    if all(each.words == "cannot tell" for each in found.values()):
        return f"Nothing can be told apart from {'what it is ' if than != 'SFT' else ''}{than}{over}."
    clauses = []
    for words in ("better", "worse"):
        names = [name for name, each in found.items() if each.words == words]
        if names:
            shown = listing(names) if len(names) <= 3 else f"{len(names)} of {len(found)}"
            clauses.append(f"{shown} {'is' if len(names) == 1 else 'are'} {words} than {than}")
    if unclear := counted(list(found.values()))["cannot tell"]:
        clauses.append(f"{unclear} of {len(found)} cannot be told apart")
    return f"{'; '.join(clauses)}{over}."


def variants(sweep: Sweep) -> str:
    """One row each, with the value of every key that varies."""
    heads = [*(f"<code>{escape(key)}</code>" for key in sweep.keys), *map(escape, sweep.models)]
    heads += ["reward model"] if any(one.reward_model for one in sweep.variants) else []
    rows = []
    for one in sweep.variants:
        name = f'<span class="name">{escape(one.name)}</span>'
        if not one.figures:
            why = escape(one.why) or "nothing of an evaluation is recorded"
            rows.append(
                f'<tr><th scope="row">{name}</th><td class="lost" colspan="{len(heads)}">{escape(one.state)}: {why}</td></tr>'
            )
            continue
        cells = [escape(str(one.params[key])) for key in sweep.keys]
        cells += [_share(one, model) for model in sweep.models]
        if any(other.reward_model for other in sweep.variants):
            accuracy = one.reward_model
            cells.append(data(accuracy.get("accuracy"), "percent") + _small(interval(accuracy, "accuracy", "percent")))
        experiment = f"<small><code>dvc exp apply {escape(one.experiment)}</code></small>" if one.experiment else ""
        rows.append(row([name + experiment, *cells]))
    caption = (
        "Every variant; beneath an accuracy its 95 % interval over prompts, then the win rate against SFT of the same variant, "
        "or the gain on the best single prompt. Of the reward model: held-out pairs in the annotator's order"
    )
    return f"<h2>Variants</h2>{table(['', *heads], rows, caption, 'sweep')}"


def _share(one: Variant, model: str) -> str:
    """Accuracy and its interval, then what the model gains: the win rate against SFT, or on the best single prompt."""
    figures = one.figures.get(model, {})
    beneath = [interval(figures, "accuracy", "percent")]
    if "win_rate" in figures:
        beneath.append(f"wins {data(figures['win_rate'], 'percent')}")
    if "gain" in figures:
        beneath += [f"gain {data(figures['gain'], 'points')}", interval(figures, "gain", "points")]
    return data(figures.get("accuracy"), "percent") + "".join(map(_small, beneath))


def seeds(sweep: Sweep) -> str:
    """Each model over the seeds of its group, and what it gains on SFT."""
    several = max((len(group) for group in sweep.groups.values()), default=0)
    if several < 2:
        return ""
    gains = {(label, model): each for label, model, each in _gains(sweep)}
    scale = scale_of([each for each in gains.values() if each])
    rows = []
    for label, group in sweep.groups.items():
        for model in sweep.models:
            share = mean_over_seeds(group, model)
            shown = (data(share[0], "percent") + _small(_between(share[1], share[2], "percent"))) if share else MISSING
            cells = [str(len(group)), shown, *_cells(gains.get((label, model)), scale, _colour(model, sweep))]
            rows.append(row([_named(model, label, sweep), *cells], "next" if model == sweep.models[-1] else ""))
    floor = 2 / 2**several
    said = f"With {several} seeds p cannot be below {floor:.3g}" + ("; 6 seeds are needed for 0.05." if floor > 0.05 else ".")
    heads = ["", "seeds", "right, %", "gain on SFT, points", axis(scale), "p", "against SFT"]
    caption = "Each model over seeds: mean and 95 % interval; one dot per seed"
    return f"<h2>Over seeds</h2>{Template(OVER_SEEDS).substitute(floor=said)}{table(heads, rows, caption, 'sweep')}"


def pairs(sweep: Sweep) -> str:
    """Each group against the reference, model by model."""
    found = _pairs(sweep)
    known = [each for _, _, each in found if each]
    if not known:
        return ""
    scale = scale_of(known)
    over_seeds = any(len(each.by_seed) > 1 for each in known)
    heads = ["", "difference, points", axis(scale), *(["p"] if over_seeds else []), "in words"]
    rows = []
    for label, model, each in found:
        cells = _cells(each, scale, _colour(model, sweep))
        if not over_seeds:
            del cells[2]
        rows.append(row([_named(model, label, sweep), *cells], "next" if model == sweep.models[-1] else ""))
    counts = ", ".join(f"{words}: {count}" for words, count in counted(known).items())
    notes = f"<p>{MANY} Here {counts}.</p>" + ("" if over_seeds else OVER_PROMPTS)
    if len(known) < len(found):
        notes += "<p>A dash: the two were asked different test prompts with one seed each, or nothing was recorded.</p>"
    caption = f"Each variant against <b>{escape(sweep.reference)}</b>, the same model in both"
    return f"<h2>Differences between variants</h2>{notes}{table(heads, rows, caption, 'sweep')}"


def _pairs(sweep: Sweep) -> list[tuple[str, str, Difference | None]]:
    reference = sweep.groups.get(sweep.reference, {})
    others = {label: group for label, group in sweep.groups.items() if label != sweep.reference}
    return [(label, model, difference(group, reference, model)) for label, group in others.items() for model in sweep.models]


def _gains(sweep: Sweep) -> list[tuple[str, str, Difference | None]]:
    """Of every policy on SFT, in each group of several seeds."""
    models = [model for model in sweep.models if model not in ("sft", PROMPT_OIRL)]
    groups = {label: group for label, group in sweep.groups.items() if len(group) > 1}
    return [(label, model, difference(group, group, model, "sft")) for label, group in groups.items() for model in models]


def _cells(each: Difference | None, scale: tuple[float, float], colour: str) -> list[str]:
    """Difference, drawing, p and words."""
    if each is None:
        return [MISSING, "", "", ""]
    shown = data(each.mean, "points") + _small(_between(each.low, each.high, "points"))
    p = "" if each.p is None else f'<data value="{each.p}">{each.p:.3f}</data>'
    return [shown, whisker(each, scale, colour), p, f'<span class="{each.words}">{each.words}</span>']


def _between(low: float, high: float, style: Style) -> str:
    return f"{data(low, style)} – {data(high, style)}" if math.isfinite(low + high) else ""


def _small(html: str) -> str:
    return f"<small>{html}</small>" if html else ""


def _named(model: str, label: str, sweep: Sweep) -> str:
    return f'<span class="name" style="color:var(--{_colour(model, sweep)})">{escape(model)}</span>' + _small(escape(label))


def _colour(model: str, sweep: Sweep) -> str:
    """The CSS variable: a policy has the colour that the report of a run gives it."""
    return "ink" if model in ("sft", PROMPT_OIRL) else variable([each for each in sweep.models if each != "sft"].index(model))


def main(folder: Path) -> None:
    (folder / "index.html").write_text(page(read_sweep(folder)), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
