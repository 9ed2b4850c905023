"""Long work shows where it is: a bar with rate and time left on a terminal, a line every few seconds in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, what: str, start: int = 0) -> Iterator[Item]:
    """Yield the items while showing progress; `start` items were done before (a resumed run)."""
    if sys.stderr.isatty():
        yield from _bar(items, total, what, start)
    else:
        yield from _lines(items, total, what, start)


def _bar(items: Iterable[Item], total: int, what: str, start: int) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=start, rate="")
        for done, item in enumerate(items, start=1):
            yield item
            bar.update(task, advance=1, rate=f"{done / (time.monotonic() - begun):.1f}/s")


def _lines(items: Iterable[Item], total: int, what: str, start: int) -> Iterator[Item]:
    begun = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = done / (now - begun)
            left = (total - start - done) / rate
            print(f"{what}: {start + done}/{total}, {rate:.1f}/s, {left:.0f} s left", flush=True)
