"""Differences drawn in the cells of a table: an interval, its middle, one dot per seed, and the line of no difference."""

import math
from collections.abc import Sequence
from typing import Protocol

WIDTH = 200  # in pixels


class Interval(Protocol):
    """A mean, its 95 % interval, and the values by seed."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def by_seed(self) -> Sequence[float]: ...


def scale_of(differences: Sequence[Interval]) -> tuple[float, float]:
    """Differences from left to right end of the drawing: all that is drawn, and zero."""
    ends = [0.0, *(end for each in differences for end in (each.low, each.high, *each.by_seed) if math.isfinite(end))]
    margin = 0.06 * (max(ends) - min(ends)) or 0.05
    return min(ends) - margin, max(ends) + margin


def whisker(each: Interval, scale: tuple[float, float], colour: str) -> str:
    low, high, middle, zero = (place(value, scale) for value in (each.low, each.high, each.mean, 0.0))
    dots = "".join(
        f'<circle cx="{place(value, scale):.1f}" cy="9" r="2.5"/>' for value in each.by_seed if len(each.by_seed) > 1
    )
    return (
        f'<svg class="whisker" viewBox="0 0 {WIDTH} 18" role="img" aria-label="difference and 95 % interval" '
        f'style="color:var(--{colour})"><path class="half" d="M{zero:.1f} 0V18"/><path d="M{low:.1f} 9H{high:.1f}"/>'
        f'{dots}<circle cx="{middle:.1f}" cy="9" r="4"/></svg>'
    )


def axis(scale: tuple[float, float], at: float = 0.0, label: str = "0") -> str:
    """Names the line of no difference, in the head of the column."""
    return (
        f'<svg class="whisker" viewBox="0 0 {WIDTH} 18" aria-hidden="true">'
        f'<text x="{place(at, scale):.1f}" y="14" text-anchor="middle">{label}</text></svg>'
    )


def place(value: float, scale: tuple[float, float]) -> float:
    """Pixels from the left."""
    return WIDTH * (value - scale[0]) / (scale[1] - scale[0])
