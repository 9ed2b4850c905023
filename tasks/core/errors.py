"""The one way to refuse: a sentence that names the file, the key or the row, and the way out."""

import sys


class InputError(Exception):
    """Something the user gave us cannot be used. The stage prints the sentence and exits with code 1, no traceback."""


def check_system() -> None:
    """Stages and flows need fork, prctl and CPU affinity as Linux has them."""
    if sys.platform != "linux":
        raise InputError(f"realign runs on Linux only; this is {sys.platform}; use a Linux machine or a container")
