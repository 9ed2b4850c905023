"""SFT against each policy: the table the experiment is made for."""

from collections.abc import Sequence
from html import escape

from tasks.report.drawing import variable
from tasks.report.recorded import Figures
from tasks.report.run.recorded import Policy, Recorded
from tasks.report.run.verdicts import mean, standing
from tasks.report.tables import name_of, row, table
from tasks.report.whiskers import WIDTH, axis, place
from tasks.report.wording import Style, data, interval, text

COLUMNS: dict[str, tuple[str, Style, str]] = {
    "sampled_accuracy": (
        "sampled, %",
        "percent",
        "share of completions, sampled at temperature 1, whose answer is right; beneath, its 95 % interval, and the one-sided "
        "p-value of “no improvement over SFT” (paired sign-flip test over prompts)",
    ),
    "win_rate": (
        "win rate, %",
        "percent",
        "mean over sampled completions of 1 where the policy's is better than SFT's, ½ where they are alike, 0 where it is "
        "worse; evaluate.judge in params.yaml sets who judges. Drawn with its 95 % interval; the upright stroke is 50 %",
    ),
    "accuracy": ("greedy, %", "percent", "the same for greedy completions"),
    "kl": (
        "KL, nats",
        "decimal",
        "distance of a sampled completion from the SFT model, KL(π‖π_sft); beneath, its 95 % interval",
    ),
    "entropy": (
        "entropy, nats",
        "decimal",
        "of the model at the tokens it samples: sampled accuracy rises as it falls, whatever was learned",
    ),
    "score": ("score", "score", "mean standardised score of the reward model: the proxy that was optimized, not the goal"),
    "perplexity": (
        "perplexity",
        "decimal",
        "of a sampled completion under the base model: text unlike any of its corpus has a high one",
    ),
    "length": ("tokens", "tokens", "mean length of a sampled completion"),
    "eos_rate": ("ended, %", "percent", "share of sampled completions that ended by themselves"),
    "distinct_bigrams": ("distinct, %", "percent", "different word pairs over all word pairs; low means repetition"),
}
STANDINGS = {"better": "beats SFT", "worse": "worse than SFT", "unclear": "not shown to differ"}


def comparison(recorded: Recorded) -> str:
    """SFT first, also cooler (what is gained without learning), then each policy and, of several seeds, their mean."""
    scale = _scale([policy.figures for policy in recorded.policies])
    rows = [row(['<span class="name">sft</span><small>the reference</small>', *_cells(recorded.sft)], "reference")]
    if recorded.cool_sft:
        label = '<span class="name">cooler sft</span><small>a lower temperature</small>'
        rows.append(row([label, *_cells(recorded.cool_sft)], "reference"))
    for index, (algorithm, policies) in enumerate(recorded.algorithms.items()):
        several = len(policies) > 1
        for policy in policies:
            label = name_of(f"{algorithm}, seed {policy.seed}" if several else algorithm, index)
            drawn = _whisker([policy.figures], scale, index)
            standing_of = STANDINGS[standing(policy.figures)]
            rows.append(
                row([f"{label}<small>{standing_of}</small>", *_cells(policy.figures, drawn)], "seed" if several else "")
            )
        if several:
            drawn = _whisker([policy.figures for policy in policies], scale, index)
            label = f"{name_of(f'{algorithm}, mean', index)}<small>least – most of the seeds</small>"
            rows.append(row([label, *_mean_cells(policies, drawn)], "mean"))
    heads = [f'<span title="{escape(note)}">{title}</span>' for title, _, note in COLUMNS.values()]
    heads.insert(2, axis(scale, at=0.5, label="50"))
    caption = f"The SFT model and each policy on the same {recorded.num_prompts} test prompts"
    notes = "".join(f"<div><dt>{title}</dt><dd>{escape(note)}.</dd></div>" for title, _, note in COLUMNS.values())
    return table(["", *heads], rows, caption, "comparison") + f'<dl class="notes">{notes}</dl>'


def _cells(figures: Figures, whisker: str = "") -> list[str]:
    cells = []
    for key, (_, style, _) in COLUMNS.items():
        p = f"p {data(figures[f'{key}_p'], 'p')}" if f"{key}_p" in figures else ""
        beneath = filter(None, [interval(figures, key, style), p])
        cells.append(data(figures.get(key), style) + "".join(f"<small>{each}</small>" for each in beneath))
    cells.insert(2, whisker)
    return cells


def _mean_cells(policies: Sequence[Policy], whisker: str) -> list[str]:
    cells = []
    for key, (_, style, _) in COLUMNS.items():
        values = [policy.figures[key] for policy in policies if key in policy.figures]
        spread = f"<small>{text(min(values), style)} – {text(max(values), style)}</small>" if values else ""
        cells.append(data(mean(policies, key), style) + spread)
    cells.insert(2, whisker)
    return cells


def _scale(figures: Sequence[Figures]) -> tuple[float, float]:
    """Win rates from left to right end of the drawing: all intervals and 50 %."""
    low = min([0.5, *(each["win_rate_low"] for each in figures)])
    high = max([0.5, *(each["win_rate_high"] for each in figures)])
    margin = 0.08 * (high - low) or 0.05
    return low - margin, high + margin


def _whisker(figures: Sequence[Figures], scale: tuple[float, float], index: int) -> str:
    """The interval of one policy, or one dot per seed."""
    at = {key: [place(each[key], scale) for each in figures] for key in ("win_rate", "win_rate_low", "win_rate_high")}
    dots = "".join(f'<circle cx="{x:.1f}" cy="9" r="4"/>' for x in at["win_rate"])
    line = f'<path d="M{at["win_rate_low"][0]:.1f} 9H{at["win_rate_high"][0]:.1f}"/>' if len(figures) == 1 else ""
    middle = place(0.5, scale)
    return (
        f'<svg class="whisker" viewBox="0 0 {WIDTH} 18" role="img" aria-label="win rate and 95 % interval" '
        f'style="color:var(--{variable(index)})"><path class="half" d="M{middle:.1f} 0V18"/>{line}{dots}</svg>'
    )


def changed_answers(recorded: Recorded) -> str:
    """Where the win rate comes from: prompts won and lost against SFT, by the verifier."""
    right = {(each["model"], each["id"]): each["correct"] for each in recorded.completions}
    if None in right.values():
        return '<p class="note">The test prompts have no answers to check, so accuracies are absent (–).</p>'
    ids = [each["id"] for each in recorded.completions if each["model"] == "sft"]
    rows = []
    for index, policies in enumerate(recorded.algorithms.values()):
        for policy in policies:
            pairs = [(right["sft", id], right[policy.model, id]) for id in ids]
            label = f"{policy.algorithm}, seed {policy.seed}" if len(policies) > 1 else policy.algorithm
            counts = [pairs.count(pair) for pair in ((False, True), (True, False), (True, True), (False, False))]
            rows.append(row([name_of(label, index), *map(str, counts)]))
    caption = "Prompts by who is right: what a policy gains on SFT, and what it breaks"
    return table(["", "only the policy", "only SFT", "both", "neither"], rows, caption)
