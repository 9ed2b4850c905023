"""The one way to refuse: a sentence that names the file, the key or the row, and the way out."""

import difflib
import sys
from collections.abc import Iterable


class InputError(Exception):
    """Something the user gave us cannot be used. The stage prints the sentence and exits with code 1, no traceback."""


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """ "; did you mean `x`?" for the known name nearest to a mistyped one, whatever its case; or nothing."""
    folded = {str(one).casefold(): str(one) for one in reversed([*known])}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean `{folded[close[0]]}`?" if close else ""


def check_system() -> None:
    """Stages and flows need fork, prctl and CPU affinity as Linux has them."""
    if sys.platform != "linux":
        raise InputError(f"realign runs on Linux only; this is {sys.platform}; use a Linux machine or a container")
