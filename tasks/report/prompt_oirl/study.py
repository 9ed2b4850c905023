"""The experiments on a whole prompt log, as their stage recorded them: five folds by question, and the curve over K."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from tasks.core.files import Row, read_json, read_table
from tasks.core.stage import Stage
from tasks.report.captions import grid
from tasks.report.drawing import INK, SERIES, SOFT, chart, end_labels, percent
from tasks.report.prompt_oirl.section import FIGURES
from tasks.report.recorded import Figures
from tasks.report.tables import row, table
from tasks.report.template import marked
from tasks.report.wording import Style, data, interval

FOLDS = """<p>Five folds by question; each is scored by a fit on the other four, and compared with the prompt that was best on
those, unseen prompts with the best of them in hindsight. The log's own split plays no part. <b>honest</b> keeps near-repeats of
a question in one fold; <b>by_question</b> goes by the text alone, so near-repeats cross folds, which flatters.</p>"""
SUBSETS = """<p>The published experiment, on the log's own split: fits on every subset of K training prompts. Unseen prompts
have no training calls.</p>"""
GROUPS = {"seen": "seen prompts", "unseen": "unseen prompts"}
LINES = {  # column of the curve: (label, colour)
    "seen": ("seen", SERIES[0]),
    "unseen": ("unseen", SERIES[1]),
    "all": ("all", SERIES[2]),
    "best_prompt": ("best prompt", INK),
    "random": ("random", SOFT),
    "hindsight": ("hindsight", SOFT),
}
PREDICTIONS = ("seen_accuracy", "seen_precision", "unseen_accuracy", "unseen_precision")


@dataclass(frozen=True)
class Study:
    """The experiments on the whole log: figures, and one row per K. Empty where none was asked for."""

    figures: Figures
    curve: list[Row]


def read_study(stage: Stage) -> Study:
    folder = stage.dep("reports/prompt_oirl_study")
    file = folder / "curve.parquet"
    return Study(read_json(folder / "metrics.json"), read_table(file) if file.exists() else [])


def study_section(study: Study) -> str:
    content = _by_fold(study)
    if study.curve:
        published = SUBSETS + grid({"study_curve": curve_chart(study.curve)}, "study_") + _by_k(study)
        content += marked(published) if study.figures.get("contaminated") else published
    return content


def _by_fold(study: Study) -> str:
    """One row per experiment in folds and group of prompts; nothing where none was asked for."""
    found = {
        f"<b>{experiment}</b><small>{title}</small>": figures
        for experiment in ("honest", "by_question")
        for group, title in GROUPS.items()
        if (figures := _figures(study, f"{experiment}.{group}."))
    }
    names = {key: named for key, named in FIGURES.items() if any(key in figures for figures in found.values())}
    rows = [
        row([name, *(_with_interval(figures, key, style) for key, (_, style) in names.items())])
        for name, figures in found.items()
    ]
    head = ["", *(title.replace(" of predictions", "") for title, _ in names.values())]
    return FOLDS + table(head, rows, css="fine") if found else ""


def _with_interval(figures: Figures, key: str, style: Style) -> str:
    return f"{data(figures.get(key), style)}<small>{interval(figures, key, style)}</small>"


def _figures(study: Study, start: str) -> Figures:
    return {key.removeprefix(start): value for key, value in study.figures.items() if key.startswith(start)}


def curve_chart(curve: Sequence[Row]) -> Figure:
    """Success on the test queries over K; a band is one standard deviation over subsets to either side."""
    figure, axes = chart("Success on the test queries", "K, training prompts")
    ends = []
    for name, (label, colour) in LINES.items():
        points = [(each["k"], each[name], each[f"{name}_spread"]) for each in curve if each.get(name) is not None]
        if not points:
            continue
        ks, means, spreads = zip(*points, strict=True)
        axes.plot(ks, means, color=colour, marker="o", markersize=3)
        if name in ("seen", "unseen", "all"):
            below, above = ([y + sign * by for y, by in zip(means, spreads, strict=True)] for sign in (-1, 1))
            axes.fill_between(ks, below, above, color=colour, alpha=0.12, linewidth=0)
        ends.append((means[-1], label, colour))
    axes.set_xticks([each["k"] for each in curve])
    percent(axes)
    end_labels(axes, ends)
    return figure


def _by_k(study: Study) -> str:
    columns = [*LINES, *PREDICTIONS]
    rows = [row([str(each["k"]), *(_with_spread(each, name) for name in columns)]) for each in study.curve]
    head = ["K", *(f"{label}, %" for label, _ in LINES.values())]
    head += ["accuracy seen, %", "precision seen, %", "accuracy unseen, %", "precision unseen, %"]
    single = _figures(study, "single.")
    best = max(single.values(), default=None)
    notes = f"; the best of {len(single)} single prompts in hindsight: {data(best, 'percent')} %"
    if "self_critique" in study.figures:
        notes += f"; the answer the model itself is surest of: {data(study.figures['self_critique'], 'percent')} %"
    return table(head, rows, f"Means over subsets, standard deviations below{notes}", "fine")


def _with_spread(each: Row, name: str) -> str:
    spread = each.get(f"{name}_spread")
    return data(each.get(name), "percent") + (f"<small>{100 * spread:.1f}</small>" if spread else "")
