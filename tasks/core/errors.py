"""The one way to refuse: a sentence that names the file, the key or the row, and the way out."""


class InputError(Exception):
    """Something the user gave us cannot be used. The stage prints the sentence and exits with code 1, no traceback."""
