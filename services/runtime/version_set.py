"""The versions of one scenario's model that a process has loaded, as CURRENT and VARIANTS name them."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from services.runtime.errors import NotFoundError, NotReadyError

T = TypeVar("T")


class VersionSet(Generic[T]):
    """What a process holds for each version: the current one, the variants beside it, and those that are leaving.

    A version that is no longer named leaves: it is no longer listed, and answers for `leave_s` seconds still, since
    callers and the other services do not know at once. One that did not load is put off for `retry_s` seconds.
    `on_change` is told the names that can be asked whenever they change. Belongs to one event loop.
    """

    def __init__(self, scenario: str, retry_s: float, leave_s: float, on_change: Callable[[list[str]], None]) -> None:
        self._scenario = scenario
        self._retry_s = retry_s
        self._leave_s = leave_s
        self._on_change = on_change
        self._current = ""
        self._loaded: dict[str, T] = {}
        self._leaving: dict[str, tuple[T, float]] = {}
        self._postponed: dict[str, float] = {}
        self._changed = asyncio.Event()

    @property
    def current(self) -> T | None:
        """The current version's; none before the first one is loaded."""
        return self._loaded.get(self._current)

    @property
    def names(self) -> list[str]:
        """The versions that can be asked, the current one first."""
        current = [self._current] if self._current else []
        return [*current, *(version for version in self._loaded if version != self._current)]

    @property
    def members(self) -> list[T]:
        """Those of the versions that can be asked, in the order of `names`."""
        return [self._loaded[version] for version in self.names]

    @property
    def everything(self) -> list[T]:
        """The members and those that are leaving."""
        return [*self.members, *(member for member, _ in self._leaving.values())]

    def find(self, version: str) -> T:
        """A version's, the current one's for "".

        NotReadyError before the first version is loaded, NotFoundError for one that is not served.
        """
        current = self.current
        if current is None:
            raise NotReadyError(
                f"scenario {self._scenario!r} has no model loaded yet; run `recmesh adapt {self._scenario}` if it has "
                "none"
            )
        if not version:
            return current
        if version in self._loaded:
            return self._loaded[version]
        if version in self._leaving:
            return self._leaving[version][0]
        raise NotFoundError("model_version", f"{version!r} is not served; send one of {', '.join(self.names)}, or none")

    async def next_members(self, known: Sequence[T]) -> list[T]:
        """Wait until the members are others than `known`."""
        while len(self._loaded) == len(known) and all(member in known for member in self._loaded.values()):
            await self._changed.wait()
        return self.members

    def missing(self, named: Sequence[str]) -> list[str]:
        """Those of `named`, the current version first, to load now: neither loaded nor put off.

        A variant is never loaded before there is a current version.
        """
        now = time.monotonic()
        self._postponed = {version: until for version, until in self._postponed.items() if version in named}
        wanted = named if self._current else named[:1]
        return [
            version for version in wanted if version not in self._loaded and now >= self._postponed.get(version, 0.0)
        ]

    def postpone(self, version: str) -> None:
        """A version did not load: put it off."""
        self._postponed[version] = time.monotonic() + self._retry_s

    def add(self, version: str, member: T) -> None:
        """A version is loaded and can be asked."""
        self._leaving.pop(version, None)
        self._loaded[version] = member
        self._tell()

    def leaving(self, version: str) -> T | None:
        """What a leaving version has; `add` takes it back."""
        return self._leaving[version][0] if version in self._leaving else None

    def switch(self, version: str) -> bool:
        """Make a version the current one if it is loaded; returns whether the current one is another now."""
        if version == self._current or version not in self._loaded:
            return False
        self._current = version
        self._tell()
        return True

    def drop(self, version: str) -> None:
        """A variant can no longer answer: it goes at once."""
        del self._loaded[version]
        self._tell()

    def let_go(self, named: Sequence[str]) -> None:
        """What is not named leaves; the current version stays while what CURRENT names is not loaded."""
        until = time.monotonic() + self._leave_s
        gone = [version for version in self._loaded if version not in named and version != self._current]
        for version in gone:
            self._leaving[version] = (self._loaded.pop(version), until)
        if gone:
            self._tell()

    def take_left(self, idle: Callable[[T], bool] = lambda member: True) -> list[str]:
        """Forget the leaving versions whose time is over and who are `idle`; returns their names."""
        now = time.monotonic()
        left = [version for version, (member, until) in self._leaving.items() if now >= until and idle(member)]
        for version in left:
            del self._leaving[version]
        return left

    def _tell(self) -> None:
        self._on_change(self.names)
        self._changed.set()
        self._changed = asyncio.Event()
