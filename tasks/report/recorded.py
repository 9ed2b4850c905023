"""What every stage leaves on disk: final figures, and the history of a training."""

from pathlib import Path
from typing import TypeAlias

from tasks.core.files import Row, read_json

Figures: TypeAlias = dict[str, float]
History: TypeAlias = list[Row]


def read_history(folder: Path) -> History:
    """Absent where a stage had no step to take, such as a loaded base model."""
    file = folder / "history.json"
    return read_json(file) if file.exists() else []
