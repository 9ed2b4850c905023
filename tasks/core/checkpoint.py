"""Checkpoints of a long stage: a kill at any step costs time, never the result.

They live in .scratch/<stage>/<key>/, outside DVC, where key is a hash of everything that determines the result (code,
params, inputs). Changed inputs change the key, so a checkpoint is never resumed by a run it does not belong to. Random
streams need no place in it (see tasks/core/seeds.py): weights, optimizer, step and the journal of what was logged are all
there is.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

from tasks.core.errors import InputError

MAX_COST = 0.02  # share of the stage's time that saving may take


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Checkpoint:
    """Saves and restores named objects that have state_dict / load_state_dict."""

    def __init__(self, folder: Path):
        self.file = folder / "checkpoint.pt"
        self.parts: dict[str, Stateful] = {}
        self._seconds_between = float(os.environ.get("REALIGN_CHECKPOINT_SECONDS", "30"))  # shorter in tests that kill
        self._saved_at = time.monotonic()
        self._last_cost = 0.0

    def restore(self, **parts: Stateful) -> tuple[int, dict[str, Any]]:
        """Remember what to save; load it if there is a checkpoint. Returns (next step, journal): (0, {}) for a fresh start."""
        import torch

        self.parts = parts
        if not self.file.exists():
            return 0, {}
        try:
            saved = torch.load(self.file, weights_only=True)
        except Exception as error:  # of a damaged file: torch has several
            why = type(error).__name__
            raise InputError(f"{self.file} is damaged ({why}); remove it, and the stage starts from its beginning") from None
        for name, part in parts.items():
            part.load_state_dict(saved["parts"][name])
        return saved["step"], saved["journal"]

    def due(self) -> bool:
        """True every 30 s, less often when saving is slow: it may take at most 2 % of the time."""
        elapsed = time.monotonic() - self._saved_at
        return elapsed > max(self._seconds_between, self._last_cost / MAX_COST)

    def save(self, step: int, journal: dict[str, Any]) -> None:
        """Atomic: a kill while saving leaves the previous checkpoint. journal: what was logged so far, as lists and numbers."""
        import torch

        begun = time.monotonic()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        state = {name: part.state_dict() for name, part in self.parts.items()}
        try:
            with partial.open("wb") as stream:
                torch.save({"step": step, "journal": journal, "parts": state}, stream)
        except RuntimeError as error:  # torch's archive writer hides what the disk said
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        os.replace(partial, self.file)
        self._saved_at = time.monotonic()
        self._last_cost = self._saved_at - begun

    def remove(self) -> None:
        shutil.rmtree(self.file.parent, ignore_errors=True)
