"""What git says."""

import os
import subprocess

from tasks.core.errors import InputError
from tasks.core.stage import WRITTEN


def git(*arguments: str, given: str = "") -> str:
    """What git prints, byte for byte: patches hold any encoding and line end. Raises InputError with git's own sentence."""
    try:
        done = subprocess.run(["git", *arguments], input=os.fsencode(given), capture_output=True, check=True)
        return os.fsdecode(done.stdout)
    except FileNotFoundError:
        raise InputError("git is not installed, and checkouts are made by it") from None
    except subprocess.CalledProcessError as error:
        said = " ".join(os.fsdecode(error.stderr).split()) or f"exit code {error.returncode}"
        raise InputError(f"git {arguments[0]}: {said}") from None


def changes() -> str:
    """What the working tree changes in files that git tracks, as a patch for HEAD; what every flow writes is not the user's."""
    others = [f":!{name}" for name in WRITTEN]
    return git("diff", "HEAD", "--binary", "--no-ext-diff", "--no-color", "--", ".", *others)
