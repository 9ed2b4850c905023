"""What the tables of a sweep put into their cells."""

import math
from html import escape

from tasks.report.drawing import variable
from tasks.report.sweep.differences import Difference
from tasks.report.sweep.variants import PROMPT_OIRL, Sweep
from tasks.report.wording import MISSING, Style, data


def between(low: float | None, high: float | None, style: Style) -> str:
    """Nothing where one of the two is not known, or infinite."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f"{data(low, style)} – {data(high, style)}"


def how_to_read(several: int) -> str:
    """What intervals, p and words speak of, with so many seeds."""
    words = (
        "Words go by p, two-sided, after Holm's correction for all rows of the column: with a chance of 95 % none of them "
        "is wrong."
    )
    if several < 2:
        return (
            "Both sides answer the same test prompts with one seed: interval (paired bootstrap, 95 %) and p (sign-flip test) "
            "are over prompts and speak <b>of these models</b>, not of how another training run would end. For that, add "
            f"<code>--seeds</code>. {words}"
        )
    return (
        "Interval (95 %) and p are over seeds and speak of the next seed too: Student's t on the seeds; where all of them "
        "answer the same prompts, the luck of the prompts is added. The interval <b>of these models</b> is over the prompts "
        f"of all seeds together and says nothing of another training run. {words}"
    )


def figures(each: Difference | None, several: bool) -> list[str]:
    """Difference with its interval, the decision with its p, and of several seeds the interval of these models."""
    if each is None:
        return [MISSING, "", *([""] if several else [])]
    p = small(f"p {data(each.p_holm, 'p')}") if each.p_holm is not None else ""
    cells = [
        data(each.mean, "points") + small(between(each.low, each.high, "points")),
        f'<span class="{each.words}">{each.words}</span>{p}',
    ]
    low, high = each.of_models or (None, None)
    return cells + ([between(low, high, "points")] if several else [])


def size(seeds: int, prompts: int | None) -> str:
    """Seeds × prompts of each."""
    return f"{seeds} × {prompts if prompts else MISSING}"


def small(html: str) -> str:
    return f"<small>{html}</small>" if html else ""


def named(model: str, label: str, sweep: Sweep) -> str:
    """A model in its colour; beneath it the group, where there are several."""
    name = f'<span class="name" style="color:var(--{colour(model, sweep)})">{escape(model)}</span>'
    return name + (small(escape(label)) if len(sweep.groups) > 1 else "")


def colour(model: str, sweep: Sweep) -> str:
    """The CSS variable: a policy has the colour that the report of a run gives it."""
    return "ink" if model in ("sft", PROMPT_OIRL) else variable([each for each in sweep.models if each != "sft"].index(model))
