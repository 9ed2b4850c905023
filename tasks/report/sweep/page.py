"""The page of a sweep: its variants, and what the differences between them allow to say.

    python -m tasks.report.sweep.page .scratch/compare/<name>

From recorded files only, self-contained, without a script; the same files give the same bytes. Made by flows/compare.py as
a child process when the last variant has ended; a figure that was not recorded is a dash.
"""

import sys
from dataclasses import asdict
from html import escape
from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.files import write_json
from tasks.report.sweep import difference_table, gains, takeaways
from tasks.report.sweep.cells import between, named, small
from tasks.report.sweep.differences import counted, mean_over_seeds
from tasks.report.sweep.gain_table import gain_table
from tasks.report.sweep.takeaway_table import takeaway_table
from tasks.report.sweep.template import BANNER, PAGE, STYLE
from tasks.report.sweep.variants import KINDS, Sweep, Variant, read_sweep
from tasks.report.tables import row, table
from tasks.report.template import LEAK
from tasks.report.wording import MISSING, data, interval, listing

MANY_MODELS = 8  # more of them stand below each other


def page(sweep: Sweep) -> str:
    gained = gains.rows(sweep)
    found = {
        "takeaways": takeaway_table(takeaways.findings(sweep)),
        "gains": gain_table(gained, sweep),
        "pairs": difference_table.section(sweep),
        "seeds": seeds(sweep),
        "variants": variants(sweep),
    }
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
        f"prompts, in %, unless a column says otherwise. {_gaining(sweep)}",
        sections=sections,
    )


def _gaining(sweep: Sweep) -> str:
    """How many policies gain on SFT, and of what that speaks."""
    found = gains.gains(sweep)
    known = {kind: [each for (of, _, _), each in found.items() if of == kind and each] for kind in KINDS}
    counts = {kind: sum(each.words == "better" for each in known[kind]) for kind in KINDS if known[kind]}
    if not counts:
        return ""
    policies = known[sweep.leading]
    seeds, prompts = sweep.most_seeds, policies[0].prompts
    over = f"Over {seeds} seeds of {prompts} prompts" if seeds > 1 else f"Of these models (one seed, {prompts} prompts)"
    said = f"{counts[sweep.leading]} of {len(policies)} policies in {sweep.leading} completions"
    if sweep.leading == "sampled" and "greedy" in counts:
        said += f" and {counts['greedy']} in greedy ones"
    return f"{over}, {said} are right more often than SFT, after Holm's correction."


def verdict(sweep: Sweep) -> str:
    """What is better and what is worse, in one sentence."""
    several = sweep.most_seeds
    against = difference_table.against_reference(sweep, sweep.leading)
    found = {f"{model} with {label}": each for label, model, each in against if each}
    than = f"with {sweep.reference}"
    if len(sweep.groups) < 2:
        gained = gains.gains(sweep)
        found = {model: each for (kind, _, model), each in gained.items() if each and kind == sweep.leading}
        than = "SFT"
    if not found:
        return "Nothing was recorded that can be compared."
    found = {name: each for name, each in found.items() if each.words != "no difference"}
    if not found:
        return f"No model answers any prompt differently than {than}."
    over = f", over {several} seeds" if several > 1 else " (of these models: one seed)"
    if all(each.words == "cannot tell" for each in found.values()):
        what = f"what it is {than}" if than != "SFT" else than
        return f"In {sweep.leading} completions nothing can be told apart from {what}{over}."
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
    """One row each, with the value of every key that varies; one column each, where there are many models."""
    heads = [*(f"<code>{escape(key)}</code>" for key in sweep.keys), *map(escape, sweep.models)]
    heads += ["reward model"] if any(one.proxies.get("reward_model") for one in sweep.variants) else []
    names, columns = [], []
    for one in sweep.variants:
        experiment = f"<small><code>dvc exp apply {escape(one.experiment)}</code></small>" if one.experiment else ""
        name = f'<span class="name">{escape(one.name)}</span>'
        if not one.figures:
            why = escape(one.why) or "nothing of an evaluation is recorded"
            name += f'<small class="lost">{escape(one.state)}: {why}</small>'
        cells = [escape(str(one.params[key])) for key in sweep.keys]
        cells += [_share(one, model) if one.figures else MISSING for model in sweep.models]
        if "reward model" in heads:
            accuracy = one.proxies.get("reward_model", {})
            cells.append(data(accuracy.get("accuracy"), "percent") + small(interval(accuracy, "accuracy", "percent")))
        names.append(name + experiment)
        columns.append(cells)
    caption = (
        "Every variant; beneath an accuracy its 95 % interval over prompts, then the win rate against SFT of the same variant, "
        "or the gain on the best single prompt. Of the reward model: held-out pairs in the annotator's order"
    )
    if len(sweep.models) > MANY_MODELS:
        rows = [row([head, *cells]) for head, *cells in zip(heads, *columns, strict=True)]
        return f"<h2>Variants</h2>{table(['', *names], rows, caption, 'sweep')}"
    rows = [row([name, *cells]) for name, cells in zip(names, columns, strict=True)]
    return f"<h2>Variants</h2>{table(['', *heads], rows, caption, 'sweep')}"


def _share(one: Variant, model: str) -> str:
    """Accuracy and its interval, then what the model gains: the win rate against SFT, or on the best single prompt."""
    figures = one.figures.get(model, {})
    beneath = [interval(figures, "accuracy", "percent")]
    if "win_rate" in figures:
        beneath.append(f"wins {data(figures['win_rate'], 'percent')}")
    if "gain" in figures:
        beneath += [f"gain {data(figures['gain'], 'points')}", interval(figures, "gain", "points")]
    beneath += [
        f'<span class="wrong">alarm {escape(alarm.name)}</span>' for alarm in one.alarms.get(model, []) if alarm.to_the_end
    ]
    return data(figures.get("accuracy"), "percent") + "".join(map(small, beneath))


def seeds(sweep: Sweep) -> str:
    """Each model over the seeds of its group."""
    several = sweep.most_seeds
    if several < 2:
        return ""
    rows = []
    for label, group in sweep.groups.items():
        for model in sweep.models:
            share = mean_over_seeds(group, model, sweep.leading)
            shown = (data(share[0], "percent") + small(between(share[1], share[2], "percent"))) if share else MISSING
            key = {"greedy": "accuracy", "sampled": "sampled_accuracy"}[sweep.leading]
            by_seed = [data(one.figures.get(model, {}).get(key), "percent") for one in group.values()]
            cells = [str(len(group)), shown, ", ".join(by_seed)]
            rows.append(row([named(model, label, sweep), *cells], "next" if model == sweep.models[-1] else ""))
    caption = "Each model over seeds: mean and 95 % interval by Student's t, then every seed"
    heads = ["", "seeds", f"{sweep.leading}, right, %", "by seed"]
    said = "<p>A seed is one repetition of everything that depends on it.</p>"
    return f"<h2>Over seeds</h2>{said}{table(heads, rows, caption, 'sweep')}"


def main(folder: Path) -> None:
    """The page, and its gains, differences and takeaways for whoever prints them."""
    sweep = read_sweep(folder)
    (folder / "index.html").write_text(page(sweep), encoding="utf-8")
    write_json(folder / "gains.json", gains.rows(sweep))
    write_json(folder / "differences.json", difference_table.rows(sweep))
    write_json(folder / "takeaways.json", [asdict(each) for each in takeaways.findings(sweep)])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except InputError as error:
        sys.exit(str(error))
