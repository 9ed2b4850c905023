"""The charts of what is fitted to data: base model and SFT, the reward model, Prompt-OIRL."""

from collections.abc import Iterator, Sequence
from math import log

from matplotlib.figure import Figure

from tasks.core.files import Row
from tasks.core.statistics import wilson
from tasks.report.drawing import (
    FAINT,
    INK,
    PAPER,
    PLOT,
    SERIES,
    SOFT,
    Line,
    chart,
    end_labels,
    moving_average,
    over_steps,
    percent,
    series,
)
from tasks.report.recorded import Recorded

BLUE = SERIES[0]
FINE_DASHES = (0, (2, 2))
BINS = 8


def imitation_charts(recorded: Recorded) -> dict[str, Figure | None]:
    titles = {"base_model": "Base model: nll of a token", "sft": "SFT: nll of a completion token"}
    losses = {name: series(recorded.histories[name], "loss/nll") for name in titles}
    return {f"imitation_{name}": over_steps(titles[name], [Line("", losses[name])], logarithmic=True) for name in titles}


def reward_model_charts(recorded: Recorded) -> dict[str, Figure | None]:
    history, figures = recorded.histories["reward_model"], recorded.reward_model
    loss = over_steps("Bradley-Terry loss, nats", [Line("", series(history, "loss/bradley_terry"))])
    if loss:
        loss.axes[0].axhline(log(2), color=SOFT, linewidth=0.8, linestyle=FINE_DASHES)
        end_labels(loss.axes[0], [(log(2), "ln 2, chance", SOFT)])
    order = series(history, "train/accuracy")
    accuracy = over_steps("Pairs in the right order", [Line("", order)], share=True)
    if accuracy:
        (axes,) = accuracy.axes
        labels = [(moving_average([share for _, share in order])[-1], "training", INK)]
        if "accuracy_low" in figures:
            axes.axhspan(figures["accuracy_low"], figures["accuracy_high"], color=BLUE, alpha=0.18, linewidth=0)
        for key, label, colour in (("accuracy", "held out", BLUE), ("accuracy_ceiling", "ceiling", SOFT)):
            if key in figures:
                axes.axhline(figures[key], color=colour, linewidth=1.0, linestyle=FINE_DASHES)
                labels.append((figures[key], label, colour))
        end_labels(axes, labels)
    return {"reward_model_loss": loss, "reward_model_accuracy": accuracy}


def prompt_charts(recorded: Recorded) -> dict[str, Figure | None]:
    if not recorded.choices:
        return {}
    loss = series(recorded.histories["prompt_oirl"], "loss/cross_entropy")
    return {
        "prompts_success": success_chart(recorded),
        "prompts_calibration": calibration_chart(recorded.choices),
        "prompts_loss": over_steps("Fit: cross-entropy, nats", [Line("", loss)]),
    }


def success_chart(recorded: Recorded) -> Figure:
    """Each way to choose a prompt as one dot; the interval of the gain stands around Prompt-OIRL."""
    figures = recorded.prompt_oirl
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
    figure, axes = chart("Chance of the choice to be right", "predicted, %")
    axes.plot([0, 100], [0, 1], color=SOFT, linewidth=0.8, linestyle=FINE_DASHES)
    for chosen in bins(choices):
        share, low, high = wilson(sum(row["correct"] for row in chosen), len(chosen))
        predicted = 100 * sum(row["probability"] for row in chosen) / len(chosen)
        axes.plot([predicted] * 2, [low, high], color=BLUE, alpha=0.4, linewidth=2)
        axes.plot([predicted], [share], "o", color=BLUE, markeredgecolor=PAPER, markersize=6)
    percent(axes)
    axes.set_ylim(0, 1.03)
    axes.set_xlim(100 * min(row["probability"] for row in choices) - 2, 102)
    end_labels(axes, [(1.0, "calibrated", SOFT)])
    return figure


def bins(choices: Sequence[Row]) -> Iterator[list[Row]]:
    """Equally many choices each, by probability."""
    ordered = sorted(choices, key=lambda row: row["probability"])
    size = -(-len(ordered) // BINS)
    for begin in range(0, len(ordered), size):
        yield ordered[begin : begin + size]
