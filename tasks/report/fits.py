"""The charts of what is fitted to data: base model and SFT, the reward model."""

from math import log

from matplotlib.figure import Figure

from tasks.report.drawing import (
    INK,
    SERIES,
    SOFT,
    Line,
    end_labels,
    moving_average,
    over_steps,
    series,
)
from tasks.report.recorded import Recorded

BLUE = SERIES[0]
FINE_DASHES = (0, (2, 2))


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
