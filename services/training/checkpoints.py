"""Steps that are done once: each result is kept under a key of everything that it depends on.

<folder>/<step>.pt            a finished step: {"key", "state", "log"}
<folder>/<step>.partial.pt    the state of a step under way, same form

A step whose key changed is done anew; a step that was interrupted continues from its last partial state. Files are
written beside their place and renamed, so that a kill at any moment leaves a whole one. Of many processes that train
together only the main one writes.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from services.training.distributed import is_main

State = dict[str, Any]


def state_key(parts: Any) -> str:
    """SHA-256 of JSON-able `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class StepLog:
    """How a step went."""

    seconds: float = 0.0
    """Time it took, interrupted runs included up to what they kept; steps that it asked for are not counted."""
    rounds: list[dict[str, float]] = field(default_factory=list)
    """What each round of training showed: "round" (from 1), mean "loss" and, if it validates, "validation" (a loss)."""


class Partial:
    """Where a step keeps its state while it is under way, and notes how it goes."""

    def __init__(self, path: Path, key: str, spent: Callable[[], float] = lambda: 0.0, step: str | None = None) -> None:
        """`spent` tells the seconds of this run so far; `step` is the step's name where the file's is another."""
        self.step = step or path.name.partition(".")[0]
        self._path = path
        self._key = key
        self._spent = spent
        self._before = 0.0
        self.rounds: list[dict[str, float]] = []

    def load(self) -> State | None:
        """The last state kept under this key; None at the beginning."""
        content = _load(self._path, self._key)
        if content is None:
            return None
        log = StepLog(**content.get("log", {}))
        self._before, self.rounds = log.seconds, log.rounds
        state: State = content["state"]
        return state

    def save(self, state: State) -> None:
        """Keep `state`, replacing the one before."""
        _save(self._path, self._key, state, self.log)

    @property
    def log(self) -> StepLog:
        """How the step went so far."""
        return StepLog(self._before + self._spent(), self.rounds)

    def remove(self) -> None:
        """Forget what is kept."""
        if is_main():
            self._path.unlink(missing_ok=True)


class Checkpoints:
    """The results of one scenario's steps. `logs` tells how those went that were asked for, by step."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.logs: dict[str, StepLog] = {}
        self._inner_seconds = 0.0

    def path(self, step: str, key: str) -> Path:
        """Where the step's result is kept: one per step, whatever its key."""
        return self.folder / f"{step}.pt"

    def result(self, step: str, key: str) -> State | None:
        """The step's kept result; None when there is none under this key."""
        content = _load(self.path(step, key), key)
        return None if content is None else content["state"]

    def forget(self, step: str) -> None:
        """Remove the step's result, so that it is done anew."""
        self.path(step, "").unlink(missing_ok=True)

    def run(self, step: str, key: str, work: Callable[[Partial], State]) -> State:
        """The step's result: the one kept under `key`, or that of `work`, which is then kept."""
        path = self.path(step, key)
        kept = _load(path, key)
        if kept is not None:
            self.logs[step] = StepLog(**kept.get("log", {}))
            result: State = kept["state"]
            return result
        started, outer = time.monotonic(), self._inner_seconds
        self._inner_seconds = 0.0
        partial = Partial(
            path.with_suffix(".partial.pt"), key, lambda: time.monotonic() - started - self._inner_seconds, step
        )
        try:
            state = work(partial)
            self.logs[step] = partial.log
        finally:
            self._inner_seconds = outer + time.monotonic() - started
        _save(path, key, state, self.logs[step])
        partial.remove()
        return state


class KeyedCheckpoints(Checkpoints):
    """One result per step and key, so that variants of an adaptation share the steps in which they are alike.

    What `also`, the adaptation's own, keeps under a key is not done again.
    """

    def __init__(self, folder: Path, also: Checkpoints | None = None) -> None:
        super().__init__(folder)
        self._also = also

    def path(self, step: str, key: str) -> Path:
        """Where the step's result under `key` is kept."""
        own = self.folder / f"{step}-{key[:16]}.pt"
        if self._also is not None and not own.is_file() and self._also.result(step, key) is not None:
            return self._also.path(step, key)
        return own

    def run(self, step: str, key: str, work: Callable[[Partial], State]) -> State:
        """As in Checkpoints; what was asked for last is pruned last."""
        state = super().run(step, key, work)
        os.utime(self.path(step, key))
        return state

    def prune(self, most_bytes: int) -> None:
        """Remove the results that were not asked for for longest, until at most `most_bytes` are left."""
        files = sorted(self.folder.glob("*.pt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > most_bytes:
                file.unlink()


def _load(path: Path, key: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content if content["key"] == key else None


def _save(path: Path, key: str, state: State, log: StepLog) -> None:
    if not is_main():
        return
    # Trials of a search may do the same step at the same time.
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save({"key": key, "state": state, "log": asdict(log)}, scratch)
    os.replace(scratch, path)
