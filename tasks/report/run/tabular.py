"""Imitation where everything can be computed: error against horizon, and what was to be shown beside what was measured."""

from collections.abc import Mapping
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter

from tasks.report import tables
from tasks.report.captions import grid
from tasks.report.drawing import SERIES, chart, end_labels
from tasks.report.recorded import Figures
from tasks.report.run.recorded import Recorded
from tasks.report.wording import Style, data, interval, text

METHODS = {"behavior_cloning": "BC", "dagger": "DAgger", "gail": "GAIL"}
Bound = tuple[Literal["below", "above", "around"], float]
CLAIMS: Mapping[str, tuple[str, Style, Bound | None]] = {  # what it is, how it reads, where the whole interval should be
    "exponent_behavior_cloning": ("error against horizon, exponent: behavior cloning", "decimal", ("above", 1.5)),
    "exponent_dagger": ("the same: DAgger", "decimal", ("below", 1.5)),
    "exponent_gail": ("the same: RL on a learned reward (GAIL), in place of RLHF", "decimal", ("below", 1.5)),
    "error_rate": ("errors of behavior cloning on the expert's own states, %", "percent", None),
    "irl_regret": ("maximum-entropy IRL, exact: regret, % of the expert's return", "percent", ("below", 0.01)),
    "sampled_irl_regret": ("the same from importance-sampled gradients", "percent", ("below", 0.01)),
    "untrained_regret": ("for comparison, acting by chance", "percent", None),
    "irl_gap": ("returns judged otherwise than by the true reward, % of their spread", "percent", None),
    "gradient_coverage": ("sampled gradient within 1.96 standard errors of the exact one, %", "percent", ("around", 0.95)),
    "gradient_z2": ("its squared distance in standard errors, mean", "decimal", ("around", 1.0)),
    "gradient_bias_bound": ("its bias, at most, in standard errors", "decimal", ("below", 0.1)),
    "gail_total_variation": ("GAIL: total variation from the expert's occupancy", "decimal", ("below", 0.05)),
    "apprenticeship_gap": ("apprenticeship: distance from the demonstrated features", "decimal", ("below", 0.02)),
    "apprenticeship_true_gap": ("the same, from the expert's own", "decimal", None),
    "apprenticeship_rounds": ("policies in its mixture", "count", None),
}


def charts(recorded: Recorded) -> dict[str, Figure | None]:
    figure, axes = chart("Errors per episode", "steps of an episode")
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = []
    for (method, label), colour in zip(METHODS.items(), SERIES, strict=False):
        rows = [row for row in recorded.horizons if row["method"] == method]
        xs, ys = [row["horizon"] for row in rows], [row["error"] for row in rows]
        axes.plot(xs, ys, "o-", color=colour, markersize=3)
        axes.vlines(xs, [row["error_low"] for row in rows], [row["error_high"] for row in rows], color=colour, alpha=0.6)
        labels.append((ys[-1], f"{label} {recorded.imitation[f'exponent_{method}']:.1f}", colour))
    horizons = sorted({row["horizon"] for row in recorded.horizons})
    axes.xaxis.set_major_locator(FixedLocator(horizons))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    end_labels(axes, labels)
    return {"tabular_horizon": figure}


def section(recorded: Recorded, charts: dict[str, Figure]) -> str:
    figures = recorded.imitation
    rows = [
        tables.row(
            [
                title,
                data(figures[key], style),
                interval(figures, key, style),
                _expected(bound, style),
                _verdict(figures, key, bound),
            ]
        )
        for key, (title, style, bound) in CLAIMS.items()
    ]
    head = ["", "measured", "95 % interval", "expected", "shown"]
    caption = "What theory says of imitation, and what was measured. Shown: the whole interval is where it should be."
    return f"""<p>Behavior cloning is SFT; a reward learned from demonstrations, then optimized with known dynamics, is RLHF. On
a road where an error leads to states that no demonstration has, all learn from equally many of the expert's labels. The other
figures are of a walk whose every trajectory can be weighed. No language model and no data of the run enters here.</p>
{grid(charts, "tabular_")}{tables.table(head, rows, caption)}"""


def _expected(bound: Bound | None, style: Style) -> str:
    return f"{bound[0]} {text(bound[1], style)}" if bound else ""


def _verdict(figures: Figures, key: str, bound: Bound | None) -> str:
    """Yes or no by the whole interval."""
    if bound is None:
        return ""
    side, value = bound
    low, high = figures[f"{key}_low"], figures[f"{key}_high"]
    held = {"below": high < value, "above": low > value, "around": low <= value <= high}[side]
    return "yes" if held else "no"
