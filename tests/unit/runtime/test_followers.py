import asyncio

import pytest

from services.runtime.followers import run_for_each
from tests.support.waiting import until


class Members:
    def __init__(self, *names):
        self.names = list(names)
        self.changed = asyncio.Event()
        self.running = []

    def set(self, *names):
        self.names = list(names)
        self.changed.set()
        self.changed = asyncio.Event()

    async def next(self, known):
        while set(known) == set(self.names):
            await self.changed.wait()
        return self.names

    async def work(self, name):
        self.running.append(name)
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(name)


async def test_work_begins_and_ends_with_its_member():
    members = Members("a")
    task = asyncio.create_task(run_for_each(members.next, members.work))
    await until(lambda: members.running == ["a"])
    members.set("a", "b")
    await until(lambda: members.running == ["a", "b"])
    members.set("b", "c")
    await until(lambda: members.running == ["b", "c"])
    members.set()
    await until(lambda: members.running == [])
    members.set("d")
    await until(lambda: members.running == ["d"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert members.running == []


async def test_what_work_raises_is_raised_and_ends_the_others():
    members = Members("a")

    async def work(name):
        if name == "bad":
            raise ValueError(name)
        await members.work(name)

    task = asyncio.create_task(run_for_each(members.next, work))
    await until(lambda: members.running == ["a"])
    members.set("a", "bad")
    with pytest.raises(ValueError, match="bad"):
        await task
    assert members.running == []
