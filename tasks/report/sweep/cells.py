"""What the tables of a sweep put into their cells."""

import math
from html import escape

from tasks.report.drawing import variable
from tasks.report.sweep.variants import PROMPT_OIRL, Sweep
from tasks.report.wording import Style, data


def between(low: float | None, high: float | None, style: Style) -> str:
    """Nothing where one of the two is not known, or infinite."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    return f"{data(low, style)} – {data(high, style)}"


def over_seeds_note(several: int) -> str:
    """How to read what is said over so many seeds; nothing of one."""
    if several < 2:
        return ""
    floor = 2 / 2**several
    return (
        "What is said over seeds speaks of the next seed too: the interval is Student's t on the seeds; where all of them "
        "answer the same prompts, the luck of the prompts is added. p over seeds is the sign-flip test, two-sided: with "
        f"{several} seeds it cannot be below {floor:.3g}{'; 6 seeds are needed for 0.05' if floor > 0.05 else ''}."
    )


def small(html: str) -> str:
    return f"<small>{html}</small>" if html else ""


def named(model: str, label: str, sweep: Sweep) -> str:
    """A model in its colour; beneath it the group, where there are several."""
    name = f'<span class="name" style="color:var(--{colour(model, sweep)})">{escape(model)}</span>'
    return name + (small(escape(label)) if len(sweep.groups) > 1 else "")


def colour(model: str, sweep: Sweep) -> str:
    """The CSS variable: a policy has the colour that the report of a run gives it."""
    return "ink" if model in ("sft", PROMPT_OIRL) else variable([each for each in sweep.models if each != "sft"].index(model))
