"""Why something is not as it was, in words."""

from collections.abc import Iterator
from typing import Any

from tasks.core.config import flatten


def param_changes(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """`params sft.learning_rate 0.003 → 0.002`, one for each number that differs."""
    old, new = flatten(then), flatten(now)
    for key in dict.fromkeys([*new, *old]):
        if key not in old:
            yield f"params {key} is new"
        elif key not in new:
            yield f"params {key} is gone"
        elif old[key] != new[key]:
            yield f"params {key} {_short(old[key])} → {_short(new[key])}"


def some(items: list[str], comma: str = ", ") -> str:
    """The first three, and how many more."""
    return comma.join(items[:3]) + (f"{comma}{len(items) - 3} more" if len(items) > 3 else "")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
