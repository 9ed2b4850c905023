"""How each variant of a sweep differs from the one it is compared with, in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from flows.engine.sweep.gains import KINDS, figures, size


def difference_table(rows: Sequence[dict[str, Any]]) -> Table:
    """rows: of tasks/report/sweep/difference_table.py. Points of accuracy, with 95 % intervals and p after Holm."""
    several = max(row["seeds"] for row in rows) > 1
    beside = ["over seeds", "p", "of these models"] if several else ["of these models", "p"]
    heads = ["policy", "seeds × prompts"]
    for kind in KINDS:
        heads += [f"{kind} {beside[0]}", *beside[1:]]
    title = f"against {rows[0]['reference']}, the same model in both; p after Holm's correction"
    table = Table(*heads, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for row in rows:
        cells = [cell for kind in KINDS for cell in figures(row[kind], "difference", several)]
        table.add_row(f"{row['model']}, {row['group']}", size(row), *cells)
    return table
