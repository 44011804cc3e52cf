"""Both ends of a stream that can be resumed from an offset: wake who waits for more; follow it through failures."""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import grpc

from services.runtime.errors import TryLaterError

log = logging.getLogger(__name__)

R = TypeVar("R")


class HasOffset(Protocol):
    """A record that knows its place in a stream."""

    @property
    def offset(self) -> int:
        """Its place; rises along the stream."""


H = TypeVar("H", bound=HasOffset)

_FIRST_BACKOFF_S = 0.1
_LAST_BACKOFF_S = 2.0


class Changes:
    """Wakes the streams that wait for something new. Belongs to one event loop."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the process drains, so that open streams should end."""
        return self._closed

    def notify(self) -> None:
        """Something new is there: everyone who waits goes on."""
        self._next.set()
        if not self._closed:
            self._next = asyncio.Event()

    def close(self) -> None:
        """Everyone who waits goes on, and nobody waits again."""
        self._closed = True
        self._next.set()

    async def wait(self) -> None:
        """Until the next `notify`; look at what there is first, without awaiting between the look and this call."""
        await self._next.wait()


async def serve(
    read: Callable[[int], Awaitable[list[H]]], latest_offset: Callable[[], int], changes: Changes, after_offset: int
) -> AsyncIterator[tuple[list[H], int]]:
    """What a tail answers: batches of records after `after_offset`, each with the newest offset, until `changes` close.

    `read(offset)` returns the next few records after an offset. The first batch comes at once, though it may be empty.
    """
    answered = False
    while not changes.closed:
        records = await read(after_offset)
        if records or not answered:
            after_offset = records[-1].offset if records else after_offset
            answered = True
            yield records, latest_offset()
        elif latest_offset() <= after_offset:
            await changes.wait()


async def follow(
    name: str,
    open_stream: Callable[[int], AsyncIterable[R]],
    read_offset: Callable[[], int],
    handle: Callable[[R], Awaitable[None]],
    on_connected: Callable[[bool], Awaitable[None]] | None = None,
) -> None:
    """Open the stream after `read_offset()`, `handle` each response, reopen when it breaks. Never returns.

    `handle` makes the response's effect and its offset durable together; a response whose handling failed with
    TryLaterError is sent again after the reopening. `on_connected(True)` follows the first response of each connection,
    `on_connected(False)` its loss.
    """
    backoff = _FIRST_BACKOFF_S
    while True:
        connected = False
        try:
            async for response in open_stream(read_offset()):
                await handle(response)
                if not connected:
                    connected, backoff = True, _FIRST_BACKOFF_S
                    if on_connected is not None:
                        await on_connected(True)
        except grpc.aio.AioRpcError as error:
            log.warning("stream lost", extra={"stream": name, "code": error.code().name, "details": error.details()})
        except TryLaterError as error:
            log.warning("response not handled", extra={"stream": name, "problem": str(error)})
        finally:
            if connected and on_connected is not None:
                await on_connected(False)
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, _LAST_BACKOFF_S)
