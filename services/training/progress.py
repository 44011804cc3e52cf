"""Progress bars with time estimates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# An optimiser step of a large model takes longer than rich's window of 30 s: its estimate would stay empty.
_SPEED_SECONDS = 600.0


class Recorder(Protocol):
    """Takes the figures of a training as they come."""

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """`values` of the pipeline step `step` after its optimiser step `number`, from 0. "validation" is a loss."""


class Reporter:
    """Says what is being done and how long it will take, and hands figures to recorders."""

    def __init__(self, console: Console, recorders: Sequence[Recorder] = ()) -> None:
        self.console = console
        self._recorders = recorders

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """To every recorder (`Recorder.record`)."""
        for recorder in self._recorders:
            recorder.record(step, number, values)

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
            speed_estimate_period=_SPEED_SECONDS,
        )
        with progress:
            task = progress.add_task(name, total=total, completed=done, note="")
            yield lambda note: progress.update(task, advance=1, note=note)
