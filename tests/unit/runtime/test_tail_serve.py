import asyncio
from typing import NamedTuple

from services.runtime.tail import Changes, serve


class Record(NamedTuple):
    offset: int


class Log:
    """Offsets in memory, read two at a time."""

    def __init__(self, *offsets: int) -> None:
        self.offsets = list(offsets)
        self.changes = Changes()
        self.read_count = 0

    async def read(self, after_offset: int) -> list[Record]:
        self.read_count += 1
        return [Record(offset) for offset in self.offsets if offset > after_offset][:2]

    def append(self, offset: int) -> None:
        self.offsets.append(offset)
        self.changes.notify()

    def tail(self, after_offset: int):
        return serve(self.read, lambda: max(self.offsets, default=0), self.changes, after_offset)


async def test_the_first_answer_comes_at_once_though_empty():
    assert await anext(Log().tail(0)) == ([], 0)
    assert await anext(Log(1, 2).tail(2)) == ([], 2)


async def test_batches_go_on_to_the_end_and_then_with_what_is_appended():
    log = Log(1, 2, 5)
    tail = log.tail(0)
    assert await anext(tail) == ([Record(1), Record(2)], 5)
    assert await anext(tail) == ([Record(5)], 5)
    waiting = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert log.read_count < 6, "waiting is not polling"
    log.append(9)
    assert await asyncio.wait_for(waiting, 30) == ([Record(9)], 9)


async def test_closing_ends_streams_that_wait_and_those_that_come_later():
    log = Log(1)
    tail = log.tail(1)
    await anext(tail)
    waiting = asyncio.ensure_future(anext(tail, None))
    await asyncio.sleep(0.01)
    log.changes.close()
    assert await asyncio.wait_for(waiting, 30) is None
    log.changes.notify()
    assert [answer async for answer in log.tail(0)] == []
    await asyncio.wait_for(log.changes.wait(), 30)
