"""How every chart of the page looks: one size, one palette for light and dark, and SVG that is part of the page.

The same inputs give the same bytes: fonts are those matplotlib ships, ids are salted by the chart's name, no date is written.
Text stays text, so the page's own font applies; colours become CSS variables, so the page's theme does.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, PercentFormatter

from tasks.core.files import Row

LIGHT = {
    "paper": "#fcfbf9", "ink": "#24272c", "soft": "#6d727a", "faint": "#dedcd7", "warn": "#a8321f",
    "series-0": "#2f6db5", "series-1": "#c96a16", "series-2": "#17876a", "series-3": "#a8508c",
    "series-4": "#94801a", "series-5": "#5b58b8", "series-6": "#b3423d", "series-7": "#3c8fa3",
}  # fmt: skip
DARK = {
    "paper": "#17191c", "ink": "#e3e2de", "soft": "#999da4", "faint": "#3a3d42", "warn": "#ef8d78",
    "series-0": "#6fa5e6", "series-1": "#e59a51", "series-2": "#4fbf9d", "series-3": "#d68abc",
    "series-4": "#c8b54e", "series-5": "#9a97ec", "series-6": "#e58580", "series-7": "#72bfd1",
}  # fmt: skip
INK, SOFT, FAINT, PAPER = LIGHT["ink"], LIGHT["soft"], LIGHT["faint"], LIGHT["paper"]
SERIES = [colour for name, colour in LIGHT.items() if name.startswith("series")]
DASHES = ["-", (0, (4, 1.5)), (0, (1, 1))]  # for more algorithms than colours
WIDTH, HEIGHT = 3.5, 2.35  # inches
PLOT = (0.115, 0.19, 0.67, 0.65)  # left, bottom, width, height as shares; the rest on the right is for labels
FONT = 8.5
STYLE: Any = {
    "svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": FONT, "text.parse_math": False,
    "text.color": INK, "figure.facecolor": PAPER, "axes.facecolor": "none", "axes.edgecolor": FAINT, "axes.labelcolor": SOFT,
    "axes.labelsize": FONT, "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.grid.axis": "y", "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.6, "xtick.color": FAINT,
    "ytick.color": FAINT, "xtick.labelcolor": SOFT, "ytick.labelcolor": SOFT, "xtick.major.size": 2.5, "ytick.major.size": 0,
    "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
}  # fmt: skip


@contextmanager
def house_style() -> Iterator[None]:
    """Our settings and nothing of the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Line:
    """A curve with its name at its end; several of one label (seeds) share one name. points: (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str = INK
    dash: Any = "-"


def look(index: int) -> dict[str, Any]:
    """Colour and dash of the algorithm at this place in params.yaml: the same in every chart and table."""
    return {"colour": SERIES[index % len(SERIES)], "dash": DASHES[index // len(SERIES) % len(DASHES)]}


def variable(index: int) -> str:
    """The CSS variable of that colour."""
    return f"series-{index % len(SERIES)}"


def chart(title: str, x_label: str = "step") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes(PLOT)
    figure.text(0.005, 0.985, title, va="top", fontsize=FONT + 0.5, fontweight="bold")
    axes.set_xlabel(x_label, loc="right")
    axes.locator_params(nbins=5, steps=[1, 2, 5, 10])
    return figure, axes


def series(history: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(row["step"], row[key]) for row in history if key in row]


def over_steps(title: str, lines: Sequence[Line], share: bool = False, logarithmic: bool = False) -> Figure | None:
    """Curves over the steps of a training, or over the share of its own steps where trainings differ in length.

    None if nothing was recorded.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return None
    last_steps = {line.points[-1][0] for line in lines}
    if len(last_steps) > 1:
        lines = [
            replace(line, points=[(100 * step / max(1, line.points[-1][0]), y) for step, y in line.points]) for line in lines
        ]
    figure, axes = chart(title, "step" if len(last_steps) == 1 else "% of its own steps")
    if logarithmic and min(y for line in lines for _, y in line.points) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(FixedLocator([]))
    for line in lines:
        xs, ys = zip(*line.points, strict=True)
        axes.plot(xs, ys, color=line.colour, alpha=0.25, linewidth=0.8)
    if share:
        percent(axes)
    curves(axes, lines)
    return figure


def percent(axes: Axes) -> None:
    """Shares as percentages, from at most 90 % up, and never above 100 %."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.9), min(high, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def curves(axes: Axes, lines: Sequence[Line], share: int = 12) -> None:
    """The moving average of each line, and at its end the name, once for all seeds."""
    ends: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        xs, ys = ([*moving_average(values, share)] for values in zip(*line.points, strict=True))
        axes.plot(xs, ys, color=line.colour, linestyle=line.dash)
        ends.setdefault((line.label, line.colour), []).append(ys[-1])
    end_labels(axes, [(sum(ys) / len(ys), label, colour) for (label, colour), ys in ends.items() if label])


def end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """(y, label, colour) right of the plot, pushed apart so that none covers another."""
    axes.get_ylim()  # settles the limits, which matplotlib leaves open until somebody asks
    gap, limit = 1.15 * FONT / (72 * HEIGHT * PLOT[3]), 1.02
    to_axes = axes.transData + axes.transAxes.inverted()
    found = sorted((float(to_axes.transform((1, y))[1]), label, colour) for y, label, colour in labels)
    places = [place for place, *_ in found]
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    for i in reversed(range(len(places))):  # what was pushed out of the plot comes down again
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    for place, (_, label, colour) in zip(places, found, strict=True):
        axes.text(1.025, place, label, transform=axes.transAxes, color=colour, va="center", fontsize=FONT)


def moving_average(values: Sequence[float], share: int = 12) -> list[float]:
    """Centred, over a twelfth of the curve; at both ends over what there is of it."""
    reach = len(values) // share // 2
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def mark_contaminated(figure: Figure) -> None:
    """For those who see the chart without its page."""
    figure.text(0.005, 0.02, "contaminated", color=LIGHT["warn"], fontsize=FONT)


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The chart as an element of the page: no prolog, no namespaces, ids of its own, themed."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', svg)
    head = f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{escape(description)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r'\bid="', f'id="{name}-', svg).replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    svg = svg.replace("'DejaVu Sans'", "var(--sans)")
    for variable, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", svg).strip()
