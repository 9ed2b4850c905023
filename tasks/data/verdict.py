"""What the gate found, as a verdict for machines, a table for the terminal, and one sentence for whoever has to act."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.core.files import Row

ROWS_NAMED = 10  # of each failing expectation, in the verdict
ROWS_SAID = 3  # of those, in the sentence


@dataclass
class Finding:
    """What one expectation found on one table.

    checked, failed: rows, or 1 for the table as a whole. rows: the first failing ones as {index, id, reason, found}.
    """

    table: str
    expectation: str
    arguments: dict[str, Any]
    success: bool
    checked: int
    failed: int
    rows: list[Row] = field(default_factory=list)

    @property
    def is_contamination(self) -> bool:
        return self.table.startswith("overlap_")

    @property
    def subject(self) -> str:
        return f"{self.table}.{self.arguments['column']}" if "column" in self.arguments else self.table

    @property
    def reason(self) -> str:
        return str(self.arguments.get("notes", self.expectation))

    @property
    def first_rows(self) -> str:
        said = [f"row {row['index']}: {row['found']}" if "index" in row else row["found"] for row in self.rows[:ROWS_SAID]]
        return "; ".join(said) + ("; …" if self.failed > ROWS_SAID else "")


def sentence(stopping: Sequence[Finding], expectations: str) -> str:
    """The first failure, how many more there are, and the way out."""
    first = stopping[0]
    rows = f"{first.failed} of {first.checked} rows" if "column" in first.arguments else "the table"
    more = f", and {len(stopping) - 1} more expectations fail" if len(stopping) > 1 else ""
    if first.table == "overlap_prompt_log":
        way_out = "set `prompt_log.split: question`, or `validate_data.allow_contamination: true` to go on, marked as such"
    elif first.is_contamination:
        way_out = "leave those rows out of training, or set `validate_data.allow_contamination: true` to go on, marked as such"
    else:
        way_out = f"correct the data, or change {expectations}"
    return f"{first.subject}: {rows} fail {first.expectation}: {first.reason} ({first.first_rows}){more}; {way_out}"


def show(stage: str, findings: Sequence[Finding]) -> None:
    """One line, and a table of what failed."""
    from rich.console import Console
    from rich.table import Table

    failures = [finding for finding in findings if not finding.success]
    console = Console()
    console.print(f"{stage}: {len(findings) - len(failures)} of {len(findings)} expectations hold", highlight=False)
    if failures:
        table = Table("failed", "rows", "of", "reason")
        for finding in failures:
            table.add_row(finding.subject, str(finding.failed), str(finding.checked), finding.reason)
        console.print(table, markup=False)
