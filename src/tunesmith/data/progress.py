"""Show that long work goes on, where a person is watching."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tunesmith.logs import console

EVERY = 256
Item = TypeVar("Item")


def track(items: Iterable[Item], label: str) -> Iterator[Item]:
    """Yield the items, and count them on the screen if it is a terminal."""
    if not console.is_terminal:
        yield from items
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,} rows"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(label, total=None)
        for number, item in enumerate(items, 1):
            if number % EVERY == 0:
                progress.update(task, completed=number)
            yield item
