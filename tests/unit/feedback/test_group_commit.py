import asyncio
from collections.abc import Sequence

import pytest

from services.feedback import group_commit
from services.feedback.group_commit import GroupCommit
from services.runtime.errors import OverloadedError


class Writer:
    """Writes when it is let go, and remembers the groups."""

    def __init__(self, max_queued_count: int = 100) -> None:
        self.groups: list[list[Sequence[int]]] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.written_count = 0
        self.commits = GroupCommit[int, int](self._write, max_queued_count, self._on_written)

    async def _write(self, batches: list[Sequence[int]]) -> list[int]:
        await asyncio.wait_for(self.go.wait(), 30)
        self.groups.append(batches)
        if self.error is not None:
            raise self.error
        return [sum(batch) for batch in batches]

    def _on_written(self) -> None:
        self.written_count += 1


async def start(writer: Writer, *batches: list[int]) -> list[asyncio.Task[int]]:
    tasks = []
    for batch in batches:
        tasks.append(asyncio.create_task(writer.commits.submit(batch)))
        await asyncio.sleep(0.01)
    return tasks


async def test_batches_that_wait_together_are_written_together_each_with_its_result() -> None:
    writer = Writer()
    tasks = await start(writer, [1], [2, 3], [4])
    assert writer.commits.queued_count == 3, "the first is being written"
    writer.go.set()
    assert await asyncio.gather(*tasks) == [1, 5, 4]
    assert writer.groups == [[[1]], [[2, 3], [4]]]
    assert (writer.written_count, writer.commits.queued_count) == (2, 0)


async def test_a_group_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_GROUP_RECORDS", 3)
    writer = Writer()
    tasks = await start(writer, [0], [1, 1], [1, 1], [1, 1, 1, 1])
    writer.go.set()
    await asyncio.gather(*tasks)
    assert [len(group) for group in writer.groups] == [1, 1, 1, 1]


async def test_a_full_queue_refuses_at_once() -> None:
    writer = Writer(max_queued_count=2)
    tasks = await start(writer, [1], [2, 3])
    with pytest.raises(OverloadedError):
        await writer.commits.submit([4])
    writer.go.set()
    await asyncio.gather(*tasks)


async def test_work_whose_caller_is_gone_is_not_started() -> None:
    writer = Writer()
    tasks = await start(writer, [1], [2], [3])
    tasks[1].cancel()
    await asyncio.sleep(0)
    writer.go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert writer.groups == [[[1]], [[3]]]


async def test_a_failure_reaches_every_caller_of_its_group_and_the_next_group_goes_on() -> None:
    writer = Writer()
    writer.error = OSError("disk full")
    tasks = await start(writer, [1])
    writer.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OSError]
    assert writer.written_count == 0
    writer.error = None
    assert await writer.commits.submit([7]) == 7


async def test_flush_waits_for_what_is_queued() -> None:
    writer = Writer()
    tasks = await start(writer, [1], [2])
    writer.go.set()
    await writer.commits.flush()
    await writer.commits.flush()
    assert [task.result() for task in tasks] == [1, 2]
