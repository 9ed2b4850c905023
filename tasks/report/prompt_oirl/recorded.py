"""What Prompt-OIRL left on disk: all that its section of the page, and its own page, show."""

from dataclasses import dataclass
from typing import Any

from tasks.core.files import Row, read_json, read_table
from tasks.core.stage import Stage
from tasks.report.recorded import Figures, History, read_history


@dataclass(frozen=True)
class PromptOirl:
    """All of Prompt-OIRL: figures, one row per prompt, per test query, per bin of chances, per way to find a prompt.

    Empty where the queries have no answers.
    """

    figures: Figures
    history: History
    prompts: list[Row]
    choices: list[Row]
    calibration: list[Row]
    cost: list[Row]
    verdict: dict[str, Any]

    @property
    def contaminated(self) -> bool:
        """Its test queries were found among its training queries."""
        return bool(self.figures.get("contaminated")) or bool(self.verdict.get("contaminated"))

    @property
    def best(self) -> Row:
        """The prompt that did best on the training queries."""
        return max(self.prompts, key=lambda each: each["train_success"])


def read_prompt_oirl(stage: Stage) -> PromptOirl:
    folder = stage.dep("reports/prompt_oirl")
    tables = {
        name: read_table(file) if (file := folder / f"{name}.parquet").exists() else []
        for name in ("prompts", "choices", "calibration", "cost")
    }
    return PromptOirl(
        figures=read_json(folder / "metrics.json"),
        history=read_history(folder),
        verdict=read_json(stage.dep("reports/validate_prompt_log") / "verdict.json"),
        **tables,
    )
