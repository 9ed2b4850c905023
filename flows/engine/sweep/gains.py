"""What the policies of a sweep gain on SFT, in the terminal: the table that its page has too."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

KINDS = ("sampled", "greedy")


def gain_table(rows: Sequence[dict[str, Any]]) -> Table:
    """rows: of tasks/report/sweep/gains.py. Accuracies in %; gains in points, with 95 % intervals and p after Holm."""
    several = max(row["seeds"] for row in rows) > 1
    groups = len({row["group"] for row in rows}) > 1
    beside = ["gain over seeds", "p", "of these models"] if several else ["gain of these models", "p"]
    heads = ["policy", "seeds × prompts", *(head for kind in KINDS for head in (kind, *beside))]
    heads += ["win", "KL", "tokens", "s", "alarms"]
    table = Table(*heads, title="gain on SFT; p after Holm's correction", title_justify="left", box=None, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for column in table.columns[1:-1]:
        column.justify = "right"
    for row in rows:
        policy = row["model"] != "sft"
        name = f"{row['model']}, {row['group']}" if groups else row["model"]
        figures = [cell for kind in KINDS for cell in _cells(row[kind], policy, several)]
        price = [_number(row["win_rate"], ".3f"), _number(row["kl"], ".2f"), _number(row["tokens"]), _number(row["seconds"])]
        alarms = Text(_alarms(row), "yellow")
        table.add_row(name, size(row) if policy else "", *figures, *(price if policy else [""] * 4), alarms)
    return table


def flat(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as a table of single values, for MLflow."""
    keys = ("accuracy", "gain", "low", "high", "p", "p_holm", "words", "models_low", "models_high", "prompts")
    plain = ("group", "model", "seeds", "win_rate", "kl", "tokens", "seconds")
    return [
        {key: row[key] for key in plain}
        | {f"{kind}_{key}": (row[kind] or {}).get(key) for kind in KINDS for key in keys}
        | {"alarms": _alarms(row)}
        for row in rows
    ]


def size(row: dict[str, Any]) -> str:
    """Seeds × prompts of each."""
    prompts = next((row[kind]["prompts"] for kind in KINDS if row[kind]), "-")
    return f"{row['seeds']} × {prompts}"


def figures(found: dict[str, Any] | None, key: str, several: bool) -> list[str]:
    """The figure with its interval, p after Holm, and of several seeds the interval of these models."""
    if found is None or found.get(key) is None:
        return ["-", "", *([""] if several else [])]
    shown = f"{100 * found[key]:+.1f} {interval(found['low'], found['high'])}".rstrip()
    p = found["p_holm"]
    decided = "" if p is None else f"{p:.3f}" if p >= 0.001 else "<.001"
    return [shown, decided, *([interval(found["models_low"], found["models_high"])] if several else [])]


def interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"\\[{100 * low:+.1f}, {100 * high:+.1f}]"


def _alarms(row: dict[str, Any]) -> str:
    """Each with how many of the seeds it was raised in."""
    return ", ".join(f"{name} {count}/{row['seeds']}" for name, count in row["alarms"].items())


def _cells(found: dict[str, Any] | None, policy: bool, several: bool) -> list[str]:
    """Accuracy, then what is gained."""
    accuracy = "-" if found is None else f"{100 * found['accuracy']:.1f}"
    return [accuracy, *(figures(found, "gain", several) if policy else [""] * (3 if several else 2))]


def _number(value: float | None, style: str = ",.0f") -> str:
    return "-" if value is None else f"{value:{style}}"
