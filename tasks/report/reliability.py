"""What was announced against what came: the chart of every calibration, with 95 % Wilson intervals."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.core.files import Row
from tasks.report.drawing import PAPER, SERIES, SOFT, chart, end_labels, percent

BLUE = SERIES[0]
FINE_DASHES = (0, (2, 2))


def reliability_chart(title: str, calibration: Sequence[Row], lowest: float = 0.0) -> Figure | None:
    """The bins of which the ECE is the mean distance, a larger dot for more calls; lowest: chance that can be announced."""
    if not calibration:
        return None
    figure, axes = against_the_diagonal(title)
    most = max(row["calls"] for row in calibration)
    for row in calibration:
        dot(axes, row["predicted"], (row["right"], row["right_low"], row["right_high"]), 3 + 5 * (row["calls"] / most) ** 0.5)
    axes.set_xlim(100 * lowest - 2, 102)
    return figure


def against_the_diagonal(title: str) -> tuple[Figure, Axes]:
    figure, axes = chart(title, "predicted, %")
    axes.plot([0, 100], [0, 1], color=SOFT, linewidth=0.8, linestyle=FINE_DASHES)
    percent(axes)
    axes.set_ylim(0, 1.03)
    end_labels(axes, [(1.0, "calibrated", SOFT)])
    return figure, axes


def dot(axes: Axes, predicted: float, right: tuple[float, float, float], size: float) -> None:
    share, low, high = right
    axes.plot([100 * predicted] * 2, [low, high], color=BLUE, alpha=0.4, linewidth=2)
    axes.plot([100 * predicted], [share], "o", color=BLUE, markeredgecolor=PAPER, markersize=size)
