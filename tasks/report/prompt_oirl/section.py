"""Prompt-OIRL on the page: what choosing a prompt per query is worth, which prompts were chosen, where that won and lost."""

from collections.abc import Iterable, Sequence
from html import escape

from matplotlib.figure import Figure

from tasks.core.files import Row
from tasks.report import tables
from tasks.report.captions import grid
from tasks.report.prompt_oirl.recorded import PromptOirl
from tasks.report.tables import row, table
from tasks.report.wording import Style, data, text

SHOWN = 3  # of each kind, in the table of what was won and lost
LISTED = 200  # of all choices, in the folded list
FIGURES: dict[str, tuple[str, Style]] = {
    "success": ("Prompt-OIRL, %", "percent"),
    "best_prompt_success": ("best single prompt, %", "percent"),
    "gain": ("gain, points", "points"),
    "random_success": ("random prompt, %", "percent"),
    "oracle_success": ("oracle, %", "percent"),
    "accuracy": ("accuracy of predictions, %", "percent"),
    "precision": ("precision, %", "percent"),
    "auc": ("AUC of predictions", "decimal"),
    "log_loss": ("log loss, nats", "decimal"),
    "ece": ("calibration error, points", "percent"),
    "choice_ece": ("of the choices, points", "percent"),
    "real_share": ("real share of the differences between prompts, %", "percent"),
    "ceiling_success": ("ceiling, every chance known, %", "percent"),
    "explained_share": ("explained of what is real, %", "percent"),
    "slope": ("slope of true on predicted differences", "decimal"),
}
NOTHING = "<p>Nothing is recorded: the queries have no answers to check.</p>"
WORDS = """<p>A prompt is an instruction put around a query. From a log of every query under every prompt, Prompt-OIRL
learns to predict which prompt gets a query right; then the model is asked once, with the chosen prompt. Figures are shares of
test queries that are answered correctly. The calibration error is the mean distance of predicted chances from
the shares that came.</p>"""


def section(recorded: PromptOirl, charts: dict[str, Figure]) -> str:
    if not recorded.choices:
        return NOTHING
    return "".join(
        [
            WORDS,
            tables.key_figures(recorded.figures, {key: style for key, style in FIGURES.items() if key in recorded.figures}),
            grid(charts, "prompts_"),
            _candidates(recorded),
            _cost(recorded),
            _won_and_lost(recorded),
            _every_choice(recorded.choices),
        ]
    )


def _candidates(recorded: PromptOirl) -> str:
    """Each prompt on its own, and where it was chosen, beside the best single prompt on the same queries."""
    chosen: dict[str, list[Row]] = {each["prompt_id"]: [] for each in recorded.prompts}
    for each in recorded.choices:
        chosen.setdefault(each["prompt_id"], []).append(each)
    rows = [
        row(
            [
                f"<b>{escape(each['prompt_id'])}</b>" + ("<small>best single</small>" if each is recorded.best else ""),
                f'<q class="data">{escape(each["prompt"])}</q>',
                data(round(each["train_success"], 6), "percent"),
                data(round(each["test_success"], 6), "percent"),
                data(_mean(chosen[each["prompt_id"]], "right"), "percent"),
                data(_mean(chosen[each["prompt_id"]], "best_right"), "percent"),
                data(len(chosen[each["prompt_id"]]), "count"),
            ]
        )
        for each in recorded.prompts
    ]
    head = ["", "prompt", "right on training queries, %", "right on test queries, %"]
    head += ["right where chosen, %", "best single there, %", "chosen, times"]
    caption = f"The candidate prompts, and how often each was chosen for {len(recorded.choices)} test queries"
    return table(head, rows, caption, "prompts")


def _cost(recorded: PromptOirl) -> str:
    """What a query costs by each way to find its prompt, beside what that brings."""
    brings = [recorded.figures[name] for name in ("best_prompt_success", "success", "oracle_success")]
    styles: dict[str, Style] = {"calls": "count", "tokens_read": "tokens", "tokens_written": "tokens"}
    rows = [
        row([each["way"], *(data(each[key], style) for key, style in styles.items()), data(right, "percent")])
        for each, right in zip(recorded.cost, brings, strict=True)
    ]
    head = ["", "calls", "tokens read", "tokens written", "right, %"]
    caption = "Cost of a test query. Every prompt: if a judge who is never wrong then picks a right answer"
    return table(head, rows, caption)


def _won_and_lost(recorded: PromptOirl) -> str:
    """Queries where the choice beats the best single prompt, and where it loses to it."""
    won = [each for each in recorded.choices if each["right"] > each["best_right"]]
    lost = [each for each in recorded.choices if each["right"] < each["best_right"]]
    total = len(recorded.choices)
    rows = [
        *_group(f"Chosen prompt right, best single prompt wrong: {len(won)} of {total} queries", won),
        *_group(f"Chosen prompt wrong, best single prompt right: {len(lost)} of {total} queries", lost),
    ]
    best = f"<b>{escape(recorded.best['prompt_id'])}</b>"
    caption = f"Choices won and lost against the best single prompt, {best}; the surest ones"
    return table(["query", "chosen", "predicted chance, %", "prompts that are right"], rows, caption, "choices")


def _group(heading: str, found: Iterable[Row]) -> list[str]:
    surest = sorted(found, key=lambda each: -each["probability"])[:SHOWN]
    return [f'<tr class="group"><th colspan="4" scope="rowgroup">{heading}</th></tr>', *map(_choice, surest)]


def _every_choice(choices: Sequence[Row]) -> str:
    rows = [_choice(each) for each in choices[:LISTED]]
    caption = f"{len(rows)} of {len(choices)} choices; all are in <code>reports/prompt_oirl/choices.parquet</code>"
    listed = table(["query", "chosen", "predicted chance, %", "prompts that are right"], rows, caption, "choices fine")
    return f"<details><summary>Every choice</summary>{listed}</details>"


def _choice(each: Row) -> str:
    query = f'<span class="data">{escape(each["query"])}</span>'
    right = escape(each["right_prompts"]) or "none"
    return row([query, f"<b>{escape(each['prompt_id'])}</b>", text(each["probability"], "percent"), right])


def _mean(choices: Sequence[Row], key: str) -> float | None:
    return round(sum(each[key] for each in choices) / len(choices), 6) if choices else None
