"""Progress bars with time estimates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Reporter:
    """Says what is being done and how long it will take."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
        """A bar of `total` units, `done` of them already; call what it yields after each unit, with a note."""
        progress = Progress(
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
        )
        with progress:
            task = progress.add_task(name, total=total, completed=done, note="")
            yield lambda note: progress.update(task, advance=1, note=note)
