"""Many callers, one writer: batches that wait together are committed together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from services.runtime.errors import OverloadedError

T = TypeVar("T")
R = TypeVar("R")

# One transaction takes at most about this many records, so that no caller waits long for the others' work.
MAX_GROUP_RECORDS = 5_000


class GroupCommit(Generic[T, R]):
    """A bounded queue in front of `write`, which gets a list of batches and returns one result per batch.

    `write` runs once at a time. While it runs, later batches gather; the next call takes them all, so
    the cost of making data durable is shared. When `write` raises, every batch of its group gets the error; after each
    group that was written, `on_written` is called.
    """

    def __init__(
        self,
        write: Callable[[list[Sequence[T]]], Awaitable[list[R]]],
        max_queued_count: int,
        on_written: Callable[[], None],
    ) -> None:
        self._write = write
        self._on_written = on_written
        self._max_queued_count = max_queued_count
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[R]]] = deque()
        self._drainer: asyncio.Task[None] | None = None
        self.queued_count = 0
        """Records that wait."""

    async def submit(self, batch: Sequence[T]) -> R:
        """The result of `write` for `batch`, once it is committed. OverloadedError when the queue is full."""
        if self.queued_count + len(batch) > self._max_queued_count:
            raise OverloadedError(f"{self.queued_count} records wait to be written already; send again later", 200)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        self.queued_count += len(batch)
        if self._drainer is None:
            self._drainer = asyncio.create_task(self._drain())
        return await future

    async def flush(self) -> None:
        """Wait until nothing is queued."""
        while self._drainer is not None:
            await self._drainer

    def _next_group(self) -> list[tuple[Sequence[T], asyncio.Future[R]]]:
        group: list[tuple[Sequence[T], asyncio.Future[R]]] = []
        count = 0
        while self._waiting and (not group or count + len(self._waiting[0][0]) <= MAX_GROUP_RECORDS):
            batch, future = self._waiting.popleft()
            self.queued_count -= len(batch)
            # A caller that gave up before its batch was started gets no work done.
            if not future.done():
                group.append((batch, future))
                count += len(batch)
        return group

    async def _drain(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                if not group:
                    continue
                try:
                    results = await self._write([batch for batch, _ in group])
                except Exception as error:
                    for _, future in group:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self._on_written()
                for (_, future), result in zip(group, results, strict=True):
                    if not future.done():
                        future.set_result(result)
        finally:
            self._drainer = None
