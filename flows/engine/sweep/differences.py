"""How each variant of a sweep differs from the one it is compared with, in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from flows.engine.sweep.gains import interval


def difference_table(rows: Sequence[dict[str, Any]]) -> Table:
    """rows: of tasks/report/sweep/difference_table.py. Points of accuracy, with 95 % intervals over prompts and over seeds."""
    title = f"against {rows[0]['reference']}, the same model in both"
    table = Table("policy", "greedy", "over seeds", "sampled", "over seeds", title=title, title_justify="left", box=None)
    table.pad_edge = False
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        table.add_row(f"{row['model']}, {row['group']}", *_cells(row["greedy"]), *_cells(row["sampled"]))
    return table


def _cells(found: dict[str, Any] | None) -> list[str]:
    """Difference with its interval over prompts; the interval over seeds."""
    if found is None:
        return ["-", ""]
    shown = f"{100 * found['difference']:+.1f} {interval(found['low'], found['high'])}"
    return [shown.rstrip(), interval(found["seeds_low"], found["seeds_high"])]
