"""Numbers and sentences of the page. A figure is `better` or `worse` only if its whole interval is."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from tasks.report.recorded import Figures, Policy, Recorded

Style = Literal["percent", "points", "score", "decimal", "tokens", "count"]
Standing = Literal["better", "worse", "unclear"]
MISSING = "–"

FORMATS: Mapping[Style, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "score": lambda value: f"{value:+.2f}",
    "decimal": lambda value: f"{value:.2f}",
    "tokens": lambda value: f"{value:.1f}",
    "count": lambda value: f"{value:,.0f}",
}


def text(value: float | None, style: Style) -> str:
    return MISSING if value is None else FORMATS[style](value).replace("-", "−")


def data(value: float | None, style: Style) -> str:
    """The number to read, with the recorded one beside it for machines and on hover."""
    if value is None:
        return f'<span class="missing">{MISSING}</span>'
    return f'<data value="{value}" title="{value}">{text(value, style)}</data>'


def interval(figures: Figures, key: str, style: Style) -> str:
    """`low – high`, or nothing where none is recorded."""
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    return "" if low is None or high is None else f"{data(low, style)} – {data(high, style)}"


def listing(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def standing(figures: Figures) -> Standing:
    """Against SFT, by the 95 % interval of the win rate."""
    if figures["win_rate_low"] > 0.5:
        return "better"
    return "worse" if figures["win_rate_high"] < 0.5 else "unclear"


def verdict(algorithms: Mapping[str, Sequence[Policy]]) -> str:
    """Which algorithms beat SFT, in one sentence; with several seeds, in every one of them."""
    standings = {name: [standing(policy.figures) for policy in policies] for name, policies in algorithms.items()}
    better = [name for name, found in standings.items() if set(found) == {"better"}]
    worse = [name for name, found in standings.items() if set(found) == {"worse"}]
    others = [name for name in standings if name not in better + worse]
    partly = {name: standings[name].count("better") for name in others if "better" in standings[name]}
    never = [name for name in others if name not in partly]
    everywhere = " in every seed" if any(len(found) > 1 for found in standings.values()) else ""
    if better:
        clauses = [f"{listing(better)} {'beats' if len(better) == 1 else 'beat'} SFT with 95 % confidence{everywhere}"]
        if never:
            clauses.append(f"{listing(never)} {'does' if len(never) == 1 else 'do'} not")
    else:
        clauses = [f"No policy beats SFT with 95 % confidence{everywhere}"]
    clauses += [f"{name} does in {count} of {len(standings[name])} seeds" for name, count in partly.items()]
    if worse:
        clauses.append(f"{listing(worse)} {'is' if len(worse) == 1 else 'are'} worse than SFT")
    return "; ".join(clauses) + "."


def mean(policies: Sequence[Policy], key: str) -> float | None:
    values = [policy.figures[key] for policy in policies if key in policy.figures]
    return sum(values) / len(values) if values else None


def summary(recorded: Recorded) -> str:
    """What the verdict amounts to, in figures; HTML."""
    sentences = []
    means = {name: mean(policies, "accuracy") for name, policies in recorded.algorithms.items()}
    known = {name: value for name, value in means.items() if value is not None}
    if known and "accuracy" in recorded.sft:
        best = max(known, key=lambda name: known[name])
        distance = data(mean(recorded.algorithms[best], "kl"), "decimal")
        sentences.append(
            f"Of {recorded.num_prompts} test prompts the SFT model answers {_share(recorded.sft['accuracy'])} correctly, "
            f"{escape(best)}, the most accurate policy, {_share(known[best])} at a KL divergence of {distance} nats from SFT."
        )
    oirl = recorded.prompt_oirl
    if "success" in oirl:
        sentences.append(
            f"With an instruction chosen for each query by Prompt-OIRL the SFT model answers {_share(oirl['success'])} "
            f"correctly, with the best single instruction {_share(oirl['best_prompt_success'])} (gain "
            f"{data(oirl['gain'], 'points')} points, 95 % interval {data(oirl['gain_low'], 'points')} to "
            f"{data(oirl['gain_high'], 'points')})."
        )
    return " ".join(sentences)


def _share(value: float) -> str:
    return f"{data(value, 'percent')}&nbsp;%"
