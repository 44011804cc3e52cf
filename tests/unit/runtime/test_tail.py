import asyncio

import pytest

from services.runtime.errors import NotReadyError
from services.runtime.tail import follow
from tests.support.waiting import until


class Log:
    """A stream of numbers that breaks after some, as a server that restarts does."""

    def __init__(self, end: int, break_every: int) -> None:
        self.end, self.break_every = end, break_every

    async def open(self, offset: int):
        for number in range(offset + 1, min(self.end, offset + self.break_every) + 1):
            yield number
        if offset + self.break_every >= self.end:
            await asyncio.Event().wait()


async def run_until(seen: list, count: int, **arguments) -> None:
    task = asyncio.create_task(follow("numbers", **arguments))
    await until(lambda: len(seen) >= count)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_resumes_after_the_last_handled_offset_without_gap_or_repeat():
    seen: list[int] = []
    states: list[bool] = []

    async def handle(number: int) -> None:
        seen.append(number)

    async def connected(state: bool) -> None:
        states.append(state)

    await run_until(
        seen,
        7,
        open_stream=Log(7, 3).open,
        read_offset=lambda: seen[-1] if seen else 0,
        handle=handle,
        on_connected=connected,
    )
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert states == [True, False, True, False, True, False]


async def test_a_failing_handler_ends_it_for_its_supervisor_to_restart():
    async def handle(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        await follow("numbers", Log(3, 3).open, lambda: 0, handle)


async def test_a_response_that_cannot_be_handled_now_is_sent_again():
    seen: list[int] = []
    refusals = [2, 3]

    async def handle(number: int) -> None:
        if number in refusals:
            refusals.remove(number)
            raise NotReadyError("away")
        seen.append(number)

    await run_until(
        seen, 4, open_stream=Log(4, 9).open, read_offset=lambda: seen[-1] if seen else 0, handle=handle
    )  # fmt: skip
    assert seen == [1, 2, 3, 4]
