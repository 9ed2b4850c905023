"""What a stage is to every process but its first: it reads and computes the same, and writes nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.config import Config, RuntimeConfig
from tasks.core.files import Row
from tasks.core.stage import Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Silence:
    """A tracker that forgets what it is told."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class Follower(Stage):
    """Its history and metrics are those of the stage, for an algorithm may ask for them."""

    tracker: Any = Silence()

    def __init__(self, name: str, config: Config, runtime: RuntimeConfig, seed: int | None):
        super().__init__(name, config, runtime, seed)
        self._nowhere = Path(tempfile.mkdtemp())

    def out(self, path: str) -> Path:
        """Where nobody looks."""
        staged = self._nowhere / path
        staged.parent.mkdir(parents=True, exist_ok=True)
        return staged

    def steps(self, total: int) -> Iterator[int]:
        """Without checkpoints. The first one is written after a step, which takes all processes: by then all have resumed."""
        yield from range(self.start, total)

    def figure(self, name: str, figure: "Figure") -> None:
        pass

    def report(self, folder: str, tables: dict[str, list[Row]] | None = None) -> None:
        pass

    def finish(self) -> None:
        pass

    def end(self, status: str) -> None:
        shutil.rmtree(self._nowhere, ignore_errors=True)
