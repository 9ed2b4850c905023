"""The charts of Prompt-OIRL: what choosing is worth, whether its chances can be believed, and how it was fitted."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from tasks.core.files import Row
from tasks.core.statistics import wilson
from tasks.report.drawing import (
    FAINT,
    INK,
    PLOT,
    SOFT,
    Line,
    chart,
    over_steps,
    series,
)
from tasks.report.prompt_oirl.recorded import PromptOirl
from tasks.report.reliability import BLUE, against_the_diagonal, dot, reliability_chart

BINS = 8


def charts(recorded: PromptOirl) -> dict[str, Figure | None]:
    if not recorded.choices:
        return {}
    loss = series(recorded.history, "loss/cross_entropy")
    return {
        "prompts_success": success_chart(recorded),
        "prompts_reliability": reliability_chart("Chance of a pair to be right", recorded.calibration),
        "prompts_calibration": calibration_chart(recorded.choices),
        "prompts_loss": over_steps("Fit: cross-entropy, nats", [Line("", loss)]),
    }


def success_chart(recorded: PromptOirl) -> Figure:
    """Each way to choose a prompt as one dot; the interval of the gain stands around Prompt-OIRL."""
    figures = recorded.figures
    best = figures["best_prompt_success"]
    rows = [
        ("oracle", figures["oracle_success"], SOFT),
        ("Prompt-OIRL", figures["success"], BLUE),
        ("best single", best, INK),
        ("random", figures["random_success"], SOFT),
    ]
    figure, axes = chart("Success on the test queries", "")
    axes.set_position((0.03, PLOT[1], 0.6, PLOT[3]))  # its labels are long
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, 1)
    axes.set_ylim(-1.6, 3.6)
    axes.axvline(best, color=FAINT, linewidth=0.8)
    axes.plot([best + figures["gain_low"], best + figures["gain_high"]], [2, 2], color=BLUE, linewidth=2.5, alpha=0.4)
    for height, (label, value, colour) in zip((3, 2, 1, 0), rows, strict=True):
        axes.plot([value], [height], "o", color=colour, markersize=6)
        axes.text(1.03, height, f"{100 * value:.1f} %  {label}", va="center", color=colour)
    axes.plot([row["test_success"] for row in recorded.prompts], [-1] * len(recorded.prompts), "|", color=SOFT, markersize=9)
    axes.text(1.03, -1, "each prompt", va="center", color=SOFT)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0%", "25%", "50%", "75%", "100%"])
    return figure


def calibration_chart(choices: Sequence[Row]) -> Figure:
    """How many choices were right among those it was about equally sure of; 95 % Wilson intervals."""
    figure, axes = against_the_diagonal("Chance of the choice to be right")
    for chosen in bins(choices):
        right = wilson(sum(row["right"] for row in chosen), len(chosen))
        dot(axes, sum(row["probability"] for row in chosen) / len(chosen), right, 6)
    axes.set_xlim(100 * min(row["probability"] for row in choices) - 2, 102)
    return figure


def bins(choices: Sequence[Row]) -> Iterator[list[Row]]:
    """Equally many choices each, by probability."""
    ordered = sorted(choices, key=lambda row: row["probability"])
    size = -(-len(ordered) // BINS)
    for begin in range(0, len(ordered), size):
        yield ordered[begin : begin + size]
