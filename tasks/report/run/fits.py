"""The charts of what is fitted to data: base model and SFT, the reward model."""

from math import log

from matplotlib.figure import Figure

from tasks.report.drawing import (
    INK,
    SOFT,
    Line,
    end_labels,
    moving_average,
    over_steps,
    series,
)
from tasks.report.reliability import BLUE, FINE_DASHES, reliability_chart
from tasks.report.run.recorded import Recorded

LOSSES = {
    "loss/bradley_terry": "Bradley-Terry loss, nats",
    "loss/all_pairs": "Loss of all pairs, nats",
    "loss/plackett_luce": "Plackett-Luce loss, nats",
    "loss/regression": "Squared error of ratings",
    "loss/binary": "Cross-entropy of thumbs, nats",
}
HELD_OUT = [("accuracy", "held out", BLUE), ("accuracy_ceiling", "ceiling", SOFT), ("baseline_accuracy", "words alone", SOFT)]


def imitation_charts(recorded: Recorded) -> dict[str, Figure | None]:
    titles = {"base_model": "Base model: nll of a token", "sft": "SFT: nll of a completion token"}
    losses = {name: series(recorded.histories[name], "loss/nll") for name in titles}
    return {f"imitation_{name}": over_steps(titles[name], [Line("", losses[name])], logarithmic=True) for name in titles}


def reward_model_charts(recorded: Recorded) -> dict[str, Figure | None]:
    history, figures = recorded.histories["reward_model"], recorded.reward_model
    trained_on = next((key for key in LOSSES if any(key in row for row in history)), "loss/bradley_terry")
    loss = over_steps(LOSSES[trained_on], [Line("", series(history, trained_on))])
    if loss and trained_on == "loss/bradley_terry":
        loss.axes[0].axhline(log(2), color=SOFT, linewidth=0.8, linestyle=FINE_DASHES)
        end_labels(loss.axes[0], [(log(2), "ln 2, chance", SOFT)])
    order = series(history, "train/accuracy")
    accuracy = over_steps("Pairs in the right order", [Line("", order)], share=True)
    if accuracy:
        (axes,) = accuracy.axes
        labels = [(moving_average([share for _, share in order])[-1], "training", INK)]
        if "accuracy_low" in figures:
            axes.axhspan(figures["accuracy_low"], figures["accuracy_high"], color=BLUE, alpha=0.18, linewidth=0)
        for key, label, colour in HELD_OUT:
            if key in figures:
                axes.axhline(figures[key], color=colour, linewidth=1.0, linestyle=FINE_DASHES)
                labels.append((figures[key], label, colour))
        end_labels(axes, labels)
    return {
        "reward_model_loss": loss,
        "reward_model_accuracy": accuracy,
        "reward_model_reliability": reliability_chart("Chance of the higher score", recorded.reward_calibration, 0.5),
    }
