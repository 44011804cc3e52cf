"""One process at a time has a scenario's folder."""

import fcntl
from pathlib import Path
from typing import TextIO

from services.runtime.errors import SetupError


def lock_folder(folder: Path) -> TextIO:
    """Make the folder and take it; closing the returned file gives it back. SetupError when another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SetupError(f"{folder}: another process has this event log open; stop it first") from None
    return lock
