"""Files that their holder has locked. The kernel drops the lock when the last process that shares the open file is gone, so a
crash of any of them frees it and nothing else does; no service has to notice."""

import fcntl
import os
from pathlib import Path
from typing import TextIO


def take(path: Path) -> TextIO | None:
    """The locked file, open for reading and writing, or None: somebody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    file.seek(0)
    return file


def wait_for(path: Path) -> TextIO:
    """The locked file, as soon as nobody else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    return file


def only_one(path: Path, what: str) -> TextIO:
    """Wait until no other process holds the lock, and say who it is. Keep the file open, and let the children share it."""
    lock = take(path)
    if lock is None:
        print(f"waiting for the {what} of process {path.read_text().strip()}, which is at work in this folder", flush=True)
        lock = wait_for(path)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
