"""Steps that are done once: each result is kept under a key of everything that it depends on.

<folder>/<step>.pt            a finished step: {"key", "state"}
<folder>/<step>.partial.pt    the state of a step under way, same form

A step whose key changed is done anew; a step that was interrupted continues from its last partial state. Files are
written beside their place and renamed, so that a kill at any moment leaves a whole one.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]


def state_key(parts: Any) -> str:
    """SHA-256 of JSON-able `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Partial:
    """Where a step keeps its state while it is under way."""

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key

    def load(self) -> State | None:
        """The last state kept under this key; None at the beginning."""
        return _load(self._path, self._key)

    def save(self, state: State) -> None:
        """Keep `state`, replacing the one before."""
        _save(self._path, self._key, state)

    def remove(self) -> None:
        """Forget what is kept."""
        self._path.unlink(missing_ok=True)


class Checkpoints:
    """The results of one scenario's steps."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def result(self, step: str, key: str) -> State | None:
        """The step's kept result; None when there is none under this key."""
        return _load(self.folder / f"{step}.pt", key)

    def forget(self, step: str) -> None:
        """Remove the step's result, so that it is done anew."""
        (self.folder / f"{step}.pt").unlink(missing_ok=True)

    def run(self, step: str, key: str, work: Callable[[Partial], State]) -> State:
        """The step's result: the one kept under `key`, or that of `work`, which is then kept."""
        path = self.folder / f"{step}.pt"
        kept = _load(path, key)
        if kept is not None:
            return kept
        partial = Partial(self.folder / f"{step}.partial.pt", key)
        state = work(partial)
        _save(path, key, state)
        partial.remove()
        return state


def _load(path: Path, key: str) -> State | None:
    if not path.is_file():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    return content["state"] if content["key"] == key else None


def _save(path: Path, key: str, state: State) -> None:
    scratch = path.with_suffix(".tmp")
    torch.save({"key": key, "state": state}, scratch)
    os.replace(scratch, path)
