"""For more algorithms than one chart can tell apart: a row for each, a small plot for each quantity, and where it ended.

Down a column all plots have the same height scale, unless the column says that each has its own; from left to right is the
whole training of each, however many steps it took.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.report.drawing import FONT, SOFT, moving_average

Points = Sequence[tuple[float, float]]

WIDTH, ROW, HEAD, NAMES = 11.0, 0.4, 0.42, 1.25  # inches: of the whole, a row, the titles, the names
VALUE = 0.34  # share of a cell that the last value takes


@dataclass(frozen=True)
class Column:
    """lines: by row, one for each seed. shown: how the last value is written; share: from at most 90 % up; rooted: a root
    scale, for what may explode."""

    title: str
    lines: Mapping[str, Sequence[Points]]
    shown: Callable[[float], str]
    share: bool = False
    rooted: bool = False
    own_scale: bool = False
    dashed: Mapping[str, Sequence[Points]] | None = None


def small_multiples(title: str, rows: Mapping[str, str], columns: Sequence[Column]) -> Figure | None:
    """rows: names and their colours. None if nothing was recorded."""
    columns = [column for column in columns if any(map(_values, column.lines.values()))]
    if not columns:
        return None
    height = HEAD + ROW * len(rows)
    figure = Figure(figsize=(WIDTH, height))
    figure.text(0.0, 0.1, title, alpha=0.0)  # for those who cannot see it
    cell = (WIDTH - NAMES) / len(columns)
    for index, column in enumerate(columns):
        left = NAMES + index * cell
        figure.text(left / WIDTH, 1 - 0.12 / height, column.title, va="top", fontsize=FONT + 0.5, fontweight="bold")
        found = [value for drawn in (column.lines, column.dashed or {}) for lines in drawn.values() for value in _values(lines)]
        scale = (0.0, 1.1 * max(found) or 1.0) if column.rooted else _scale([*found, 0.9] if column.share else found)
        for place, (name, colour) in enumerate(rows.items()):
            bottom = height - HEAD - ROW * (place + 1)
            box = (left / WIDTH, (bottom + 0.06) / height, (1 - VALUE) * cell / WIDTH, (ROW - 0.1) / height)
            axes = figure.add_axes(box)
            lines, dashed = column.lines.get(name, []), (column.dashed or {}).get(name, [])
            _draw(axes, lines, dashed, colour, column, _scale([*_values(lines)]) if column.own_scale else scale)
    for place, (name, colour) in enumerate(rows.items()):
        middle = height - HEAD - ROW * (place + 0.5)
        figure.text(0.0, middle / height, name, va="center", color=colour, fontsize=FONT + 0.5)
    return figure


def _draw(
    axes: Axes, lines: Sequence[Points], dashed: Sequence[Points], colour: str, column: Column, scale: tuple[float, float]
) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(*scale)
    if column.rooted:
        axes.set_yscale("function", functions=(lambda values: abs(values) ** 0.5, lambda values: values**2))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    ends = []
    for points, dash in [*((each, "-") for each in lines), *((each, (0, (2, 1.2))) for each in dashed)]:
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        along = [(step - steps[0]) / max(1, steps[-1] - steps[0]) for step in steps]
        smooth = moving_average(values)
        if dash == "-":
            axes.plot(along, values, color=colour, alpha=0.25, linewidth=0.7)
            ends.append(smooth[-1])
        axes.plot(along, smooth, color=colour, linestyle=dash, linewidth=1.3)
    if ends:
        last = column.shown(sum(ends) / len(ends)).replace("-", "−")
        axes.text(1.04, 0.5, last, transform=axes.transAxes, va="center", color=SOFT, fontsize=FONT)


def _values(lines: Sequence[Points]) -> list[float]:
    return [value for points in lines for _, value in points]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin
