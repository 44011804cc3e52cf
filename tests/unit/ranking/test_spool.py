import asyncio
import os
import signal
import subprocess
import sys

import pytest

from services.ranking import spool as spool_module
from services.ranking.config import SpoolSettings
from services.ranking.spool import Spool
from services.runtime.errors import InvalidFieldError, NotReadyError, SetupError
from tests.support.waiting import until


@pytest.fixture
def dropped():
    return []


def open_spool(path, dropped, **settings):
    return Spool(path / "video.sqlite", SpoolSettings(**{"linger_ms": 0, **settings}), dropped.append)


async def drain(spool, send, is_done):
    task = asyncio.create_task(spool.drain(send))
    await until(is_done)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_sends_in_order_in_batches_and_forgets_what_was_sent(tmp_path, dropped):
    spool, sent = open_spool(tmp_path, dropped, batch_count=3), []
    for n in range(7):
        spool.append(b"%d" % n)

    async def send(bodies):
        sent.append(list(bodies))

    await drain(spool, send, lambda: len(spool) == 0)
    assert sent == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
    assert spool.byte_count == 0
    assert dropped == []


async def test_waits_while_the_event_log_is_away_and_loses_nothing(tmp_path, dropped):
    spool, sent, attempts = open_spool(tmp_path, dropped), [], []

    async def send(bodies):
        attempts.append(len(bodies))
        if len(attempts) < 3:
            raise NotReadyError("away")
        sent.extend(bodies)

    spool.append(b"a")
    await drain(spool, send, lambda: len(spool) == 0)
    assert sent == [b"a"]
    assert len(attempts) == 3


async def test_one_that_is_refused_does_not_hold_up_the_others(tmp_path, dropped):
    spool, sent = open_spool(tmp_path, dropped), []

    async def send(bodies):
        if b"bad" in bodies:
            raise InvalidFieldError("impressions[1]", "is bad")
        sent.extend(bodies)

    for body in (b"a", b"bad", b"b"):
        spool.append(body)
    await drain(spool, send, lambda: len(spool) == 0)
    assert (sent, dropped) == ([b"a", b"b"], [1])


async def test_the_oldest_give_way_when_it_is_full(tmp_path, dropped):
    spool = open_spool(tmp_path, dropped, max_bytes=4_096)
    for n in range(10):
        spool.append(bytes([n]) * 1_000)
    assert [body[0] for _, body in spool.peek(100)] == [6, 7, 8, 9]
    assert sum(dropped) == 6
    assert spool.byte_count == 4_000
    spool.append(b"x" * 5_000)
    assert sum(dropped) == 7
    assert len(spool) == 4


async def test_what_is_queued_outlives_a_restart(tmp_path, dropped):
    spool = open_spool(tmp_path, dropped)
    spool.append(b"a")
    await spool.close()
    spool = open_spool(tmp_path, dropped)
    spool.append(b"b")
    assert [body for _, body in spool.peek(10)] == [b"a", b"b"]
    assert (len(spool), spool.byte_count) == (2, 2)


APPEND_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from services.ranking.config import SpoolSettings
from services.ranking.spool import Spool

async def main():
    spool = Spool(Path(sys.argv[1]) / "video.sqlite", SpoolSettings(), lambda count: None)
    for n in range(1000):
        spool.append(b"%d" % n)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_is_queued_outlives_a_kill(tmp_path, dropped):
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", APPEND_AND_DIE, str(tmp_path)], cwd=os.getcwd(), check=False, timeout=120
    )
    assert process.returncode == -signal.SIGKILL
    spool = open_spool(tmp_path, dropped)
    assert [int(body) for _, body in spool.peek(2_000)] == list(range(1_000))


async def test_a_file_that_is_no_spool_is_named(tmp_path, dropped):
    (tmp_path / "video.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(SetupError, match=r"video\.sqlite: cannot be used as a spool"):
        open_spool(tmp_path, dropped)


async def test_the_files_hold_nothing_of_what_was_sent(tmp_path, dropped, monkeypatch):
    monkeypatch.setattr(spool_module, "_IDLE_S", 0.05)
    spool = open_spool(tmp_path, dropped)

    def is_in_files():
        return any(b"user-to-erase" in path.read_bytes() for path in tmp_path.iterdir())

    async def send(bodies):
        assert is_in_files()

    for n in range(300):
        spool.append(b"user-to-erase %d" % n)
    await drain(spool, send, lambda: len(spool) == 0 and not is_in_files())
    spool.append(b"somebody else")
    assert [body for _, body in spool.peek(10)] == [b"somebody else"]
