"""Waiting for what happens in its own time: in another process, or in a task beside the test."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from services.feedback.store import EventLog
from services.runtime.errors import NotReadyError

T = TypeVar("T")


def wait_for(ask: Callable[[], T], seconds: float = 120) -> T:
    """Ask until the answer is true; fails with the last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.05)
    return answer


async def until(ask: Callable[[], T | Awaitable[T]], seconds: float = 120) -> T:
    """`wait_for` while the loop goes on; `ask` may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        await asyncio.sleep(0.005)


async def until_ready(log: EventLog) -> None:
    """Wait until the log's engine is connected."""

    async def writable() -> bool:
        try:
            await log.check()
        except NotReadyError:
            return False
        return True

    await until(writable)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never waits; RuntimeError when it does."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("it waits")
