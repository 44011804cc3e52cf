"""Progress bars for steps that may take longer than a second, on standard error so that output stays clean."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.training.importers.rows import Progress as ProgressFunction


@contextmanager
def progress_bars() -> Iterator[ProgressFunction]:
    """Yields a function (step, done, total) that shows a bar per step; total 0 shows that work goes on."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                # A step of unknown length is over when the next one begins.
                for task in bars.tasks:
                    if task.total is None:
                        bars.update(task.id, total=1, completed=1)
                tasks[step] = bars.add_task(step, total=None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield show
