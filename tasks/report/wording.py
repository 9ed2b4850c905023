"""Numbers and sentences of the page."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Literal

from tasks.report.recorded_prompts import Figures, PromptOirl

Style = Literal["percent", "points", "score", "decimal", "tokens", "count", "p"]
MISSING = "–"

FORMATS: Mapping[Style, Callable[[float], str]] = {
    "percent": lambda value: f"{100 * value:.1f}",
    "points": lambda value: f"{100 * value:+.1f}",
    "score": lambda value: f"{value:+.2f}",
    "decimal": lambda value: f"{value:.2f}",
    "tokens": lambda value: f"{value:.1f}",
    "count": lambda value: f"{value:,.0f}",
    "p": lambda value: "<0.001" if value < 0.001 else f"{value:.3f}",
}


def text(value: float | None, style: Style) -> str:
    return MISSING if value is None else FORMATS[style](value).replace("-", "−")


def data(value: float | None, style: Style) -> str:
    """The number to read, with the recorded one beside it for machines and on hover."""
    if value is None:
        return f'<span class="missing">{MISSING}</span>'
    return f'<data value="{value}" title="{value}">{escape(text(value, style))}</data>'


def interval(figures: Figures, key: str, style: Style) -> str:
    """`low – high`, or nothing where none is recorded."""
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    return "" if low is None or high is None else f"{data(low, style)} – {data(high, style)}"


def listing(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def prompt_verdict(recorded: PromptOirl) -> str:
    """Whether choosing per query beats the best single prompt, by the 95 % interval of the gain."""
    figures = recorded.figures
    if "gain" not in figures:
        return "Prompt-OIRL has nothing to learn from."
    if figures["gain_low"] > 0:
        return "A prompt chosen for each query beats the best single prompt with 95 % confidence."
    if figures["gain_high"] < 0:
        return "A prompt chosen for each query is worse than the best single prompt."
    return "A prompt chosen for each query is not shown to beat the best single prompt."


def prompt_summary(recorded: PromptOirl) -> str:
    """What choosing the prompt is worth; HTML, nothing where nothing was learned."""
    figures = recorded.figures
    if "success" not in figures:
        return ""
    leak = " Its test queries are among its training queries, which flatters both." if recorded.contaminated else ""
    return (
        f"With a prompt chosen for each query by Prompt-OIRL the model answers {share(figures['success'])} "
        f"correctly, with the best single prompt {share(figures['best_prompt_success'])} (gain "
        f"{data(figures['gain'], 'points')} points, 95 % interval {data(figures['gain_low'], 'points')} to "
        f"{data(figures['gain_high'], 'points')}).{leak}"
    )


def share(value: float) -> str:
    return f"{data(value, 'percent')}&nbsp;%"
