"""A file that is followed while the process runs."""

import asyncio
import logging
from abc import ABC, abstractmethod
from pathlib import Path

from services.runtime.errors import SetupError

log = logging.getLogger(__name__)

LOOK_S = 0.5


class FileFollower(ABC):
    """Keeps something of a scenario at what a file says; without the file, at what the scenario file says.

    A file that is wrong is logged and refused once, and the last good one stays.
    """

    def __init__(self, scenario: str, what: str, path: Path | None) -> None:
        """`what`: the thing's name in logs; `path`: none where only the scenario file counts."""
        self._name = scenario
        self._what = what
        self._path = path
        self._seen: bytes | None = None
        self._taken = False

    @abstractmethod
    def take(self, path: Path | None) -> str | None:
        """Take over what the file says; none: what the scenario file says. Returns its name, for the log. SetupError
        when it is wrong."""

    @abstractmethod
    def refuse(self) -> None:
        """Count a file that was wrong."""

    def look(self) -> None:
        """Take over what is new. It reads and computes: call it in a thread, one call at a time."""
        content = self._content()
        if content == self._seen and self._taken:
            return
        self._seen = content
        try:
            taken = self.take(self._path if content is not None else None)
        except SetupError as error:
            log.error("%s not taken", self._what, extra={"scenario": self._name, "problem": str(error)})
            self.refuse()
            if self._taken:
                return
            taken = self.take(None)
        self._taken = True
        log.info(self._what, extra={"scenario": self._name, self._what: taken})

    async def run(self) -> None:
        """Look again and again. Never returns."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_S)

    def _content(self) -> bytes | None:
        """Of the file; none where there is none."""
        try:
            return self._path.read_bytes() if self._path is not None else None
        except FileNotFoundError:
            return None
        except OSError as error:
            # Told once, by `take`, which meets the same.
            return str(error).encode()
