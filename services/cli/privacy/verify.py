"""Every file of a state folder that may hold something of a scenario's user."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from services.cli.privacy.search import Sought, find_in_file
from services.cli.state import StateFolder

_OF_SCENARIOS = ("data", "models", "training", "triton", "feature", "feedback", "seed", "spool")
"""Folders whose entries each belong to the scenario that they are named after."""


class Copy(NamedTuple):
    """Where the user is named."""

    path: Path
    place: str


def find_copies(state: StateFolder, scenario: str, sought: Sought, others: Iterable[Path] = ()) -> Iterator[Copy]:
    """Every file that names the user, in the state folder and in `others` (folders of servers, say)."""
    for root in (state.root, *others):
        for path in _files(root):
            if root == state.root and (path == state.key or _is_of_another(path.relative_to(root), scenario)):
                continue
            for place in find_in_file(path, sought):
                yield Copy(path, place)


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            # What a link leads to is looked into where it is.
            if path.is_file() and not path.is_symlink():
                yield path


def _is_of_another(path: Path, scenario: str) -> bool:
    """Whether the file is another scenario's, where an equal id is another user's."""
    if len(path.parts) < 2 or path.parts[0] not in _OF_SCENARIOS:
        return False
    return path.parts[1].split(".")[0] != scenario
