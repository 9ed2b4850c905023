"""Numbers and sentences of the page."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from tasks.report.recorded import Figures

Style = Literal["percent", "points", "score", "decimal", "tokens", "count", "p"]
MISSING = "–"

FORMATS: Mapping[Style, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "score": lambda value: f"{value:+.2f}",
    "decimal": lambda value: f"{value:.2f}",
    "tokens": lambda value: f"{value:.1f}",
    "count": lambda value: f"{value:,.0f}",
    "p": lambda value: "<0.001" if value < 0.001 else f"{value:.3f}",
}


def text(value: float | None, style: Style) -> str:
    return MISSING if value is None else FORMATS[style](value).replace("-", "−")


def data(value: float | None, style: Style) -> str:
    """The number to read, with the recorded one beside it for machines and on hover."""
    if value is None:
        return f'<span class="missing">{MISSING}</span>'
    return f'<data value="{value}" title="{value}">{escape(text(value, style))}</data>'


def interval(figures: Figures, key: str, style: Style) -> str:
    """`low – high`, or nothing where none is recorded."""
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    return "" if low is None or high is None else f"{data(low, style)} – {data(high, style)}"


def listing(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def share(value: float) -> str:
    return f"{data(value, 'percent')}&nbsp;%"
