"""Events per second of both engines of the event log, in one run. Usage: python tools/bench_event_log.py [FOLDER]

Starts a nats-server of its own (tests/support/nats_process.py says where it comes from); FOLDER is where the logs lie,
else a temporary folder. Compare the numbers of one run only: machines differ, and their disks more.
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import uvloop

from services.feedback.config import JetStreamSettings
from services.feedback.jetstream_store import JetStreamEventLog
from services.feedback.records import Feedback
from services.feedback.sqlite_store import SqliteEventLog
from services.feedback.store import EventLog
from services.runtime.errors import NotReadyError
from tests.support.nats_process import NatsProcess

SINGLE_COUNT = 2_000
BATCH_COUNT, BATCH_EVENTS = 250, 200
CALLER_COUNT = 100


def events(start: int, count: int) -> list[Feedback]:
    return [
        Feedback(
            f"event-{number:010}",
            f"user-{number % 5_000}",
            f"item-{number % 997}",
            2,
            1_700_000_000_000,
            None,
            "",
            None,
        )
        for number in range(start, start + count)
    ]


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


async def measure(name: str, log: EventLog) -> None:
    single = events(0, SINGLE_COUNT)
    many = events(1_000_000, SINGLE_COUNT * 5)
    batches = [events(2_000_000 + number * BATCH_EVENTS, BATCH_EVENTS) for number in range(BATCH_COUNT)]

    async def one_by_one() -> None:
        for event in single:
            await log.append([event])

    async def by_many_callers() -> None:
        async def call(own: list[Feedback]) -> None:
            for event in own:
                await log.append([event])

        await asyncio.gather(*(call(many[caller::CALLER_COUNT]) for caller in range(CALLER_COUNT)))

    async def in_batches() -> None:
        for batch in batches:
            await log.append(batch)

    async def read() -> None:
        offset = 0
        while records := await log.read(offset, 500):
            offset = records[-1].offset

    async def erase() -> None:
        await log.delete_user("user-0", 0)

    total = len(single) + len(many) + BATCH_COUNT * BATCH_EVENTS
    for what, count, work in (
        ("one event a call, one caller", len(single), one_by_one),
        (f"one event a call, {CALLER_COUNT} callers", len(many), by_many_callers),
        (f"{BATCH_EVENTS} events a call, one caller", BATCH_COUNT * BATCH_EVENTS, in_batches),
        ("read in order", total, read),
        ("looked through to erase one user", total, erase),
    ):
        print(f"{name:10} {what:34} {count / await seconds(work):10,.0f} events/s", flush=True)


async def main(folder: Path) -> None:
    sqlite = SqliteEventLog(folder, 20_000)
    await measure("sqlite", sqlite)
    await sqlite.close()
    with NatsProcess(folder) as nats:
        log = JetStreamEventLog(JetStreamSettings(engine="jetstream", path=folder, servers=[nats.url]), "bench", 20_000)
        ready = False
        while not ready:
            with contextlib.suppress(NotReadyError):
                await log.check()
                ready = True
            await asyncio.sleep(0.05)
        await measure("jetstream", log)
        await log.close()
        print(f"nats-server holds {psutil.Process(nats.process_id).memory_info().rss / 2**20:,.0f} MB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        uvloop.run(main(Path(temporary)))
