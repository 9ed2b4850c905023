"""Templates such as "{question} {options}" over the columns of a row. A row's text is only inserted, never evaluated."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.core.errors import InputError, did_you_mean


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with each {name} replaced; a whole number stored as 504.0 is written 504.

    Only plain names are replaced (str.format would follow attributes). Raises InputError naming the nearest name.
    """
    return re.sub(r"{(\w+)}", lambda match: _write(values, match[1]), template)


def no_such(name: str, known: Iterable[str]) -> str:
    """What follows "no column `x`": the nearest name, or all of them."""
    return did_you_mean(name, known) or f"; there are {', '.join(f'`{column}`' for column in known)}"


def _write(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        raise InputError(f"no column `{name}`{no_such(name, values)}")
    value = values[name]
    if isinstance(value, list | tuple | Mapping):
        kind = "mapping" if isinstance(value, Mapping) else "list"
        raise InputError(f"`{name}` must be text, found a {kind}; `columns` cannot reach into it")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else "" if value is None else str(value)
