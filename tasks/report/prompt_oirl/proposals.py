"""Prompts that a policy wrote: what r̂ promised for each and what the real model kept, and what the guards stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.figure import Figure

from tasks.core.files import Row, read_json, read_table
from tasks.core.stage import Stage
from tasks.report import tables
from tasks.report.captions import grid
from tasks.report.drawing import INK, PAPER
from tasks.report.recorded import Figures
from tasks.report.reliability import BLUE, against_the_diagonal
from tasks.report.tables import row, table
from tasks.report.wording import Style, data

FIGURES: dict[str, tuple[str, Style]] = {
    "success": ("best proposed prompt, %", "percent"),
    "known_success": ("best known prompt, %", "percent"),
    "gain": ("gain, points", "points"),
    "candidates": ("texts that passed the guards", "count"),
    "too_far": ("stopped: too far from known prompts", "count"),
    "too_disputed": ("stopped: the ensemble disagrees", "count"),
}
TESTED = "<small>tested</small>"
WORDS = """<p>A language model wrote prompts and was optimized for what an ensemble of r̂ promises. Guards stop a text that is
too far from the known prompts, or on which the ensemble disagrees; of those that pass, the real model is asked with the ones
that promise most. The best of these on validation queries, and the best known prompt there, are tested on other queries.</p>"""


@dataclass(frozen=True)
class Proposals:
    """Figures, and one row per prompt the real model was asked with. Empty where the stage was left out."""

    figures: Figures
    candidates: list[Row]

    @property
    def tested(self) -> list[Row]:
        """The best known and the best proposed prompt on validation queries; none if no proposed text passed the guards."""
        groups = [[each for each in self.candidates if each["known"] == known] for known in (True, False)]
        return [max(group, key=lambda each: each["validation_success"]) for group in groups] if all(groups) else []


def read_proposals(stage: Stage) -> Proposals:
    folder = stage.dep("reports/propose_prompts")
    file = folder / "candidates.parquet"
    return Proposals(read_json(folder / "metrics.json"), read_table(file) if file.exists() else [])


def section(proposals: Proposals, charts: dict[str, Figure]) -> str:
    names = {key: style for key, style in FIGURES.items() if key in proposals.figures}
    return WORDS + tables.key_figures(proposals.figures, names) + grid(charts, "proposals_") + _candidates(proposals)


def charts(proposals: Proposals) -> dict[str, Figure | None]:
    return {"proposals_kept": kept_chart(proposals.candidates) if proposals.candidates else None}


def kept_chart(candidates: Sequence[Row]) -> Figure:
    """Below the diagonal r̂ promised too much."""
    figure, axes = against_the_diagonal("Right on validation queries")
    for each in candidates:
        colour, size = (INK, 5) if each["known"] else (BLUE, 7)
        place = [100 * each["reward"]], [each["validation_success"]]
        axes.plot(*place, "o", color=colour, markeredgecolor=PAPER, markersize=size)
    axes.set_xlim(-2, 102)
    return figure


def _candidates(proposals: Proposals) -> str:
    ordered = sorted(proposals.candidates, key=lambda each: (each["known"], -each["reward"]))
    rows = [
        row(
            [
                f'<q class="data">{escape(each["prompt"])}</q>{TESTED if each in proposals.tested else ""}',
                "known" if each["known"] else "proposed",
                data(each["reward"], "percent"),
                data(each["validation_success"], "percent"),
                data(each["disagreement"], "percent"),
                data(each["distance"], "decimal"),
            ]
        )
        for each in ordered
    ]
    head = ["prompt", "", "promised, %", "kept, %", "disagreement, points", "distance"]
    return table(head, rows, "What r̂ promised for each prompt, and what the real model kept on validation queries")
