"""The charts of the policies, and of everything: each is made from recorded histories and figures, and goes to MLflow too."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter

from tasks.report.drawing import FONT, INK, PAPER, SERIES, Line, chart, curves, look, over_steps, percent, series
from tasks.report.multiples import Column, Points, small_multiples
from tasks.report.prompt_oirl import charts as prompt_charts
from tasks.report.prompt_oirl import proposals
from tasks.report.recorded import Figures
from tasks.report.run import fits, tabular
from tasks.report.run.recorded import Policy, Recorded
from tasks.report.wording import FORMATS, Style

ROLLOUT_CHARTS = {
    "rollout/score_mean": "Score that is optimized",
    "rollout/verifier_mean": "Right answers, share of rollouts",
    "rollout/kl_mean": "KL to the reference, nats",
    "rollout/completion_length": "Completion length, tokens",
    "rollout/entropy": "Entropy of the policy, nats",
    "rollout/eos_rate": "Completions that end by themselves",
}
SHARES = {"rollout/verifier_mean", "rollout/eos_rate"}
BRIEF: dict[str, tuple[str, Style]] = {  # the same as columns of small plots
    "rollout/score_mean": ("Score", "score"),
    "rollout/verifier_mean": ("Right answers, %", "percent"),
    "rollout/kl_mean": ("KL, nats", "decimal"),
    "rollout/completion_length": ("Tokens", "tokens"),
    "rollout/entropy": ("Entropy, nats", "decimal"),
    "rollout/eos_rate": ("Ended, %", "percent"),
}
PROXY, GOLD, KL = "rollout/reward_model_mean", "rollout/verifier_mean", "rollout/kl_mean"
AXES = {PROXY: "reward-model score", GOLD: "right answers", KL: "KL, nats (root scale)"}
ON_TEST = {PROXY: "score", GOLD: "sampled_accuracy", KL: "kl"}  # the same quantity, measured on the test prompts
KL_TICKS = [0, 0.05, 0.2, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256]


def draw(recorded: Recorded) -> dict[str, Figure]:
    """Every chart by name; absent where nothing was recorded for it. A chart's name begins with its section."""
    charts: dict[str, Figure | None] = {
        **(training_in_rows(recorded) if too_many(recorded) else training_charts(recorded)),
        **fits.reward_model_charts(recorded),
        **prompt_charts.charts(recorded.prompt_oirl),
        **proposals.charts(recorded.proposals),
        **fits.imitation_charts(recorded),
        **tabular.charts(recorded),
    }
    return {name: figure for name, figure in charts.items() if figure}


def on_policy(policy: Policy) -> bool:
    """Whether it trains on completions that it samples; the others sample a few now and then, to be watched."""
    return any("rollout/tokens" in row for row in policy.history)


def too_many(recorded: Recorded) -> bool:
    """For one chart: there are more algorithms than colours."""
    return len(recorded.algorithms) > len(SERIES)


def training_charts(recorded: Recorded) -> dict[str, Figure | None]:
    places = {name: index for index, name in enumerate(recorded.algorithms)}
    offline = [policy for policy in recorded.policies if not on_policy(policy)]
    return {
        **rollout_charts(recorded.policies, places),
        **preference_charts(offline, places),
        **optimization_charts(recorded, places),
    }


def training_in_rows(recorded: Recorded) -> dict[str, Figure | None]:
    """The same quantities, an algorithm in each row."""
    colours = {name: look(place)["colour"] for place, name in enumerate(recorded.algorithms)}
    offline = {name: policies for name, policies in recorded.algorithms.items() if not any(map(on_policy, policies))}

    def lines(key: str) -> dict[str, list[Points]]:
        return {name: [series(one.history, key) for one in policies] for name, policies in recorded.algorithms.items()}

    def loss(policy: Policy) -> Points:
        """All its terms together."""
        rows = [(row["step"], [row[key] for key in row if key.startswith("loss/")]) for row in policy.history]
        return [(step, sum(terms)) for step, terms in rows if terms]

    def moved(side: str) -> dict[str, list[Points]]:
        return {name: found for name, found in lines(f"train/{side}_logratio").items() if name in offline}

    decimal, share = FORMATS["decimal"], FORMATS["percent"]
    rollouts = [
        Column(title, lines(key), FORMATS[style], share=key in SHARES, rooted=key == KL)
        for key, (title, style) in BRIEF.items()
    ]
    losses = {name: [loss(policy) for policy in policies] for name, policies in offline.items()}
    preferences = [
        Column("Loss, each on its own scale", losses, decimal, own_scale=True),
        Column("Pairs in the right order, %", {name: lines("train/accuracy")[name] for name in offline}, share),
        Column("log π/π_ref, nats; dashed: rejected", moved("chosen"), decimal, dashed=moved("rejected")),
    ]
    return {
        "rollouts_rows": small_multiples("Completions over the training", colours, rollouts),
        "preference_rows": small_multiples("Training on recorded data", {name: colours[name] for name in offline}, preferences),
    }


def rollout_charts(policies: Sequence[Policy], places: dict[str, int]) -> dict[str, Figure | None]:
    """What all algorithms report of completions under the same names (tasks/training/monitor.py)."""
    return {
        f"rollouts_{key.split('/')[1]}": over_steps(title, _lines(policies, places, key), share=key in SHARES)
        for key, title in ROLLOUT_CHARTS.items()
    }


def preference_charts(policies: Sequence[Policy], places: dict[str, int]) -> dict[str, Figure | None]:
    """Of the policies that sample nothing while they train: loss, order of the pairs, and how far each side has moved."""
    losses = sorted({key for policy in policies for row in policy.history for key in row if key.startswith("loss/")})
    moved = [
        Line(f"{policy.algorithm} {side}", series(policy.history, f"train/{side}_logratio"), **(look(place) | dashed))
        for policy in policies
        for side, dashed in {"chosen": {}, "rejected": {"dash": (0, (2, 1.2))}}.items()
        for place in [places[policy.algorithm]]
    ]
    return {
        **{f"preference_{key.split('/')[1]}": over_steps(f"Loss: {key[5:]}", _lines(policies, places, key)) for key in losses},
        "preference_accuracy": over_steps("Pairs in the right order", _lines(policies, places, "train/accuracy"), share=True),
        "preference_logratio": over_steps("log π/π_ref of a completion, nats", moved),
    }


def _lines(policies: Sequence[Policy], places: dict[str, int], key: str) -> list[Line]:
    return [Line(policy.algorithm, series(policy.history, key), **look(places[policy.algorithm])) for policy in policies]


def optimization_charts(recorded: Recorded, places: dict[str, int]) -> dict[str, Figure | None]:
    """Over-optimization after Gao et al. 2022: the proxy rises with the distance from the reference; does the goal follow?"""
    if not any(steps_with(policy, PROXY, GOLD) for policy in recorded.policies):
        return {}
    return {
        "optimization_proxy": paths("Proxy over KL", recorded, places, KL, PROXY),
        "optimization_gold": paths("Right answers over KL", recorded, places, KL, GOLD),
        "optimization_both": paths("Right answers over proxy", recorded, places, PROXY, GOLD),
    }


def steps_with(policy: Policy, *keys: str) -> list[Figures]:
    return [row for row in policy.history if all(key in row for key in keys)]


def paths(title: str, recorded: Recorded, places: dict[str, int], x: str, y: str) -> Figure:
    """One dot per step, darker towards the end, with its moving average; a diamond for the test prompts."""
    figure, axes = chart(title, AXES[x])
    lines = []
    for policy in recorded.policies:
        colour = look(places[policy.algorithm])["colour"]
        rows = steps_with(policy, x, y)
        points = [(max(row[x], 0.0) if x == KL else row[x], row[y]) for row in rows]
        if points:
            shades = [to_rgba(colour, 0.1 + 0.4 * step / len(points)) for step in range(len(points))]
            xs, ys = zip(*points, strict=True)
            axes.scatter(xs, ys, s=7, c=shades, linewidths=0)
        tested = _diamond(axes, policy.figures, x, y, colour)
        if points or tested:
            lines.append(Line(policy.algorithm, points or tested, colour))
    _diamond(axes, {"kl": 0.0, **recorded.sft}, x, y, INK)
    if best := [(row[ON_TEST[x]], row[ON_TEST[y]]) for row in recorded.best_of_n if {ON_TEST[x], ON_TEST[y]} <= row.keys()]:
        axes.plot(*zip(*best, strict=True), "o:", color=INK, markersize=3, linewidth=1.2)
        axes.annotate(f"best of {len(best)}", best[-1], (4, -9), textcoords="offset points", color=INK, fontsize=FONT)
    if x == KL:
        axes.set_xscale("function", functions=(lambda values: abs(values) ** 0.5, lambda values: values**2))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in KL_TICKS if tick <= axes.get_xlim()[1]]))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    if y == GOLD:
        percent(axes)
    curves(axes, lines, share=5)
    return figure


def _diamond(axes: Axes, figures: Figures, x: str, y: str, colour: str) -> list[tuple[float, float]]:
    """Draws the model's place on the test prompts and returns it; nothing where they have no answers."""
    if ON_TEST[x] not in figures or ON_TEST[y] not in figures:
        return []
    place = figures[ON_TEST[x]], figures[ON_TEST[y]]
    axes.plot(*place, "D", color=colour, markeredgecolor=PAPER, markersize=6, zorder=3, clip_on=False)
    return [place]
