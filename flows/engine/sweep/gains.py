"""What the policies of a sweep gain on SFT, in the terminal: the table that its page has too."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text


def gain_table(rows: Sequence[dict[str, Any]]) -> Table:
    """rows: of tasks/report/sweep/gains.py. Accuracies in %; gains in points, with 95 % intervals over prompts."""
    several = max(row["seeds"] for row in rows) > 1
    groups = len({row["group"] for row in rows}) > 1
    heads = ["policy", "greedy", "gain", "p", "sampled", "gain", "p", "win", "KL", "tokens", "s", "alarms"]
    if several:
        heads.insert(3, "over seeds")
    table = Table(*heads, title="gain on SFT", title_justify="left", box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    for column in table.columns[1:-1]:
        column.no_wrap, column.justify = True, "right"
    for row in rows:
        policy = row["model"] != "sft"
        name = f"{row['model']}, {row['group']}" if groups else row["model"]
        greedy, sampled = (_cells(row[kind], policy) for kind in ("greedy", "sampled"))
        if several:
            found = row["greedy"] or {}
            greedy.insert(2, interval(found.get("seeds_low"), found.get("seeds_high")) if policy else "")
        price = [_number(row["win_rate"], ".3f"), _number(row["kl"], ".2f"), _number(row["tokens"]), _number(row["seconds"])]
        table.add_row(name, *greedy, *sampled, *(price if policy else [""] * 4), Text(_alarms(row), "yellow"))
    return table


def flat(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as a table of single values, for MLflow."""
    kinds = ("accuracy", "gain", "gain_low", "gain_high", "p", "seeds_low", "seeds_high", "p_seeds")
    plain = ("group", "model", "seeds", "win_rate", "kl", "tokens", "seconds")
    return [
        {key: row[key] for key in plain}
        | {f"{kind}_{key}": (row[kind] or {}).get(key) for kind in ("greedy", "sampled") for key in kinds}
        | {"alarms": _alarms(row)}
        for row in rows
    ]


def _alarms(row: dict[str, Any]) -> str:
    """Each with how many of the seeds it was raised in."""
    return ", ".join(f"{name} {count}/{row['seeds']}" for name, count in row["alarms"].items())


def _cells(found: dict[str, Any] | None, policy: bool) -> list[str]:
    """Accuracy, gain, p."""
    if found is None:
        return ["-", "", ""]
    if not policy:
        return [f"{100 * found['accuracy']:.1f}", "", ""]
    gain = f"{100 * found['gain']:+.1f} {interval(found['gain_low'], found['gain_high'])}"
    return [f"{100 * found['accuracy']:.1f}", gain, f"{found['p']:.3f}" if found["p"] >= 0.001 else "<.001"]


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"\\[{100 * low:+.1f}, {100 * high:+.1f}]"


def _number(value: float | None, style: str = ",.0f") -> str:
    return "-" if value is None else f"{value:{style}}"
