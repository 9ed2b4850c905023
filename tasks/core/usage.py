"""What a stage uses of the machine while it is at work, as curves beside those of its training."""

import sys
import time

import psutil

SECONDS_BETWEEN_MEASUREMENTS = 10.0  # a shorter stage has no curve, and loses no time


class Usage:
    """Of this process; other stages may be at work on the same machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # each call tells of the time since the one before
        self._measured_at = time.monotonic()

    def measure(self) -> dict[str, float]:
        """Nothing, if it has been measured a moment ago. A core at full work is 100 %."""
        if time.monotonic() - self._measured_at < SECONDS_BETWEEN_MEASUREMENTS:
            return {}
        self._measured_at = time.monotonic()
        memory = self._process.memory_info().rss / 2**20
        return {"system/cpu_percent": self._process.cpu_percent(), "system/memory_mib": memory} | _gpu()


def _gpu() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    return {"system/gpu_memory_mib": torch.cuda.memory_reserved() / 2**20}
