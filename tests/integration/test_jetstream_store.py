"""What the JetStream engine does beyond the contract of every engine, on the real nats-server."""

import asyncio
import contextlib
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats as nats_client
import pytest
import trustme

from services.feedback import jetstream_store
from services.feedback.config import JetStreamSettings
from services.feedback.jetstream_format import Names, encode
from services.feedback.jetstream_store import JetStreamEventLog
from services.feedback.records import Erasure, Feedback, Impression
from services.feedback.store import Appended
from services.runtime.config import TlsSettings
from services.runtime.errors import InvalidFieldError, NotReadyError
from services.runtime.pseudonym import erasure_digest
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.ports import free_port
from tests.support.waiting import until, until_ready

pytestmark = needs_nats


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsProcess]:
    with NatsProcess(tmp_path) as server:
        yield server


@pytest.fixture
def settings(nats: NatsProcess, tmp_path: Path) -> JetStreamSettings:
    return JetStreamSettings(engine="jetstream", path=tmp_path, servers=[nats.url])


@contextlib.asynccontextmanager
async def open_log(settings: JetStreamSettings, scenario: str = "video") -> AsyncIterator[JetStreamEventLog]:
    log = JetStreamEventLog(settings, scenario, 20_000)
    try:
        await until_ready(log)
        yield log
    finally:
        await log.close()


def feedback(event_id: str, user_id: str = "anna") -> Feedback:
    return Feedback(event_id, user_id, "alien", 8, 1_700_000_000_000, 4.5, "r1", 3)


async def event_ids(log: JetStreamEventLog) -> list[str]:
    ids: list[str] = []
    offset = 0
    while entries := await log.read(offset, 500):
        ids += [entry.record.event_id for entry in entries if isinstance(entry.record, Feedback)]
        offset = entries[-1].offset
    return ids


async def test_kills_of_the_server_lose_and_double_nothing_and_leave_no_half_batch(
    nats: NatsProcess, settings: JetStreamSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_store, "ABANDONED_S", 0.0)
    async with open_log(settings) as log:
        acknowledged: set[str] = set()
        refused: list[list[Feedback]] = []

        async def send(sender: int) -> None:
            for number in range(40):
                batch = [feedback(f"s{sender}b{number}e{place}") for place in range(50)]
                try:
                    await log.append(batch)
                    acknowledged.update(event.event_id for event in batch)
                except NotReadyError:
                    refused.append(batch)
                    await asyncio.sleep(0.05)

        senders = [asyncio.create_task(send(sender)) for sender in range(4)]
        for count in (500, 2_000, 4_000):
            await until(lambda count=count: len(acknowledged) >= count or all(sender.done() for sender in senders))
            nats.kill()
            nats.start()
        await asyncio.gather(*senders)
        await until_ready(log)
        assert refused, "the kills came in the middle"
        async with asyncio.timeout(60):
            while any(size != 50 for size in Counter(i.rsplit("e", 1)[0] for i in await event_ids(log)).values()):
                await asyncio.sleep(0.1)
        found = Counter(await event_ids(log))
        assert acknowledged <= set(found)
        assert set(found.values()) == {1}
        for batch in refused:
            appended = await log.append(batch)
            assert appended in (Appended(50, 0), Appended(0, 50))
        assert len(await event_ids(log)) == 4 * 40 * 50


async def test_a_batch_whose_writer_died_is_completed_by_whoever_has_the_log_open(
    settings: JetStreamSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [feedback(f"e{number}") for number in range(5)]
    names = Names(settings.prefix, "video")
    async with open_log(settings) as log:
        # What a writer leaves that dies after its third record.
        async with await nats_client.connect(settings.servers) as client:
            stream = client.jetstream()
            await stream.publish(names.batch_subject(batch), encode(batch))
            for record in batch[:3]:
                await stream.publish(names.record_subject(record), encode(record))
            monkeypatch.setattr(jetstream_store, "ABANDONED_S", 0.0)
            async with asyncio.timeout(60):
                while len(await event_ids(log)) < 5 or (await stream.stream_info(names.batches)).state.messages:
                    await asyncio.sleep(0.05)
        assert await log.append(batch) == Appended(0, 5)
        assert await event_ids(log) == [f"e{number}" for number in range(5)]


async def test_two_writers_share_the_log_and_wake_each_other(settings: JetStreamSettings) -> None:
    async with open_log(settings) as one, open_log(settings) as other:
        waiting = asyncio.create_task(other.changes.wait())
        await asyncio.sleep(0)
        assert await one.append([feedback("e1"), feedback("e2")]) == Appended(2, 0)
        await asyncio.wait_for(waiting, 60)
        assert await event_ids(other) == ["e1", "e2"]
        both = await asyncio.gather(
            *(log.append([feedback(f"s{number}")]) for number in range(100) for log in (one, other))
        )
        assert Counter(both) == {Appended(1, 0): 100, Appended(0, 1): 100}
        erased = await one.delete_user("anna", 0)
        assert erased.removed_count == 102
        async with asyncio.timeout(60):
            while other.latest_offset != erased.offset:
                await asyncio.sleep(0.05)
        assert [one.user_digest for one in await other.read_erasures()] == [erasure_digest("anna")]


async def test_an_erasure_that_was_cut_short_is_finished(
    settings: JetStreamSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_store, "ABANDONED_S", 0.2)
    async with open_log(settings) as log:
        await log.append([feedback("e1"), feedback("e2", "bert")])
        erasure = Erasure("cut-short", erasure_digest("anna"), 0)
        # As after a kill: the erasure is begun, and nothing of it is done.
        await log._publisher.publish([(log._names.batch_subject([erasure]), encode([erasure]))])
        async with asyncio.timeout(60):
            while (await log.read(0, 1))[0].offset == 1:
                await asyncio.sleep(0.1)
        assert await log.read_erasures() == [erasure]
        records = [entry.record for entry in await log.read(0, 10)]
        assert [record.user_id for record in records if not isinstance(record, Erasure)] == ["bert"]


async def test_an_erasure_ends_though_others_go_on_writing(settings: JetStreamSettings) -> None:
    async with open_log(settings) as log, open_log(settings) as other:
        await log.append([feedback("e1", "user-to-erase"), feedback("e2")])

        async def write(writer: int) -> None:
            for number in itertools.count():
                await other.append([feedback(f"w{writer}-{number}-{place}") for place in range(3)])

        writers = [asyncio.create_task(write(writer)) for writer in range(3)]
        try:
            for _ in range(3):
                deleted = await log.delete_user("user-to-erase", 0)
                assert not any(writer.done() for writer in writers)
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
        assert deleted.removed_count == 0


async def test_scenarios_have_streams_of_their_own(settings: JetStreamSettings) -> None:
    async with open_log(settings) as video, open_log(settings, "music") as music:
        await video.append([feedback("e1")])
        assert await music.append([feedback("e1"), feedback("e2")]) == Appended(2, 0)
        assert (await music.delete_user("anna", 0)).removed_count == 2
        assert await event_ids(video) == ["e1"]


async def test_an_erased_user_is_in_no_file_of_the_server(nats: NatsProcess, settings: JetStreamSettings) -> None:
    async with open_log(settings) as log:
        shown = Impression("r1", "user-to-erase", 1, ["alien"], [0.5], [1.0], ["ann"], "m1", 3)
        for number in range(300):
            await log.append([feedback(f"e{number}", "user-to-erase"), feedback(f"f{number}")])
        await log.append([shown])
        assert (await log.delete_user("user-to-erase", 0)).removed_count == 301
        assert len(await event_ids(log)) == 300
    for running in (True, False):
        if not running:
            nats.kill()
        files = [path for path in nats.store.rglob("*") if path.is_file()]
        assert any(b"anna" in path.read_bytes() for path in files)
        for path in files:
            assert b"user-to-erase" not in path.read_bytes(), path


async def test_a_batch_over_the_servers_largest_message_is_refused_with_the_fix(settings: JetStreamSettings) -> None:
    async with open_log(settings) as log:
        large = Impression(uuid.uuid4().hex, "anna", 1, ["x" * (9 << 20)], [0.5], [1.0], ["ann"], "m1", 3)
        with pytest.raises(InvalidFieldError, match=r"impressions: .*max_payload"):
            await log.append([large])
        assert log.latest_offset == 0


async def test_offsets_go_on_and_ids_stay_known_over_restarts_of_the_server(
    nats: NatsProcess, settings: JetStreamSettings
) -> None:
    async with open_log(settings) as log:
        await log.append([feedback("e1")])
        nats.kill()
        with pytest.raises(NotReadyError):
            await log.append([feedback("e2")])
        with pytest.raises(NotReadyError):
            await log.read(0, 10)
        nats.start()
        await until_ready(log)
        assert await log.append([feedback("e1")]) == Appended(0, 1)
        assert await log.append([feedback("e2")]) == Appended(1, 0)
        assert await event_ids(log) == ["e1", "e2"]


async def test_who_reads_a_record_finds_it_told(settings: JetStreamSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see a record before its writer tells of it; an export that is asked for then must wait for it."""
    async with open_log(settings) as log:
        await log.append([feedback("e1")])
        go_on = asyncio.Event()
        tell = log._connection.tell

        async def tell_late(offset: int) -> None:
            await go_on.wait()
            await tell(offset)

        async def look_away() -> None:
            pass

        async def both_are_there() -> bool:
            return (await log._manager.stream_info(log._names.records)).state.messages == 2

        with monkeypatch.context() as patched:
            patched.setattr(log._connection, "tell", tell_late)
            patched.setattr(log._connection, "look", look_away)
            append = asyncio.create_task(log.append([feedback("e2")]))
            await until(both_are_there)
            entries = await log.read(0, 10)
            assert (len(entries), entries[-1].offset) == (2, log.latest_offset)
            go_on.set()
            await append
        # What was told of a record that is erased by now is corrected, though nothing else has changed.
        log._connection.take(99)
        await log._connection.look()
        assert log.latest_offset == entries[-1].offset


async def test_a_log_opens_before_its_server_does(nats: NatsProcess, settings: JetStreamSettings) -> None:
    nats.kill()
    log = JetStreamEventLog(settings, "video", 1_000)
    with pytest.raises(NotReadyError):
        await log.append([feedback("e1")])
    nats.start()
    await until_ready(log)
    assert await log.append([feedback("e1")]) == Appended(1, 0)
    await log.close()


async def test_a_user_with_a_password_is_let_in_and_a_wrong_password_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    password = tmp_path / "password"
    password.write_text("right\n")
    with NatsProcess(tmp_path, authorization={"user": "recmesh", "password": "right"}) as nats:
        settings = JetStreamSettings(
            engine="jetstream", path=tmp_path, servers=[nats.url], user="recmesh", password_file=password
        )
        async with open_log(settings) as log:
            assert await log.append([feedback("e1")]) == Appended(1, 0)
        password.write_text("wrong")
        log = JetStreamEventLog(settings, "video", 1_000)
        async with asyncio.timeout(60):
            while "Authorization" not in "".join(str(record.__dict__) for record in caplog.records):
                await asyncio.sleep(0.02)
        with pytest.raises(NotReadyError):
            await log.append([feedback("e1")])
        await log.close()


async def test_servers_and_service_know_each_other_by_mutual_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate_file", "key_file", "ca_file")}
    authority.cert_pem.write_to_path(files["ca_file"])
    certificate.private_key_pem.write_to_path(files["key_file"])
    certificate.cert_chain_pems[0].write_to_path(files["certificate_file"])
    server = {"cert_file": "certificate_file", "key_file": "key_file", "ca_file": "ca_file"}
    tls = {name: str(files[value]) for name, value in server.items()}
    with NatsProcess(tmp_path, tls={**tls, "verify": True, "timeout": 30}) as nats:
        servers = [nats.url.replace("nats://", "tls://")]
        settings = JetStreamSettings(engine="jetstream", path=tmp_path, servers=servers, tls=TlsSettings(**files))
        async with open_log(settings) as log:
            assert await log.append([feedback("e1")]) == Appended(1, 0)
        log = JetStreamEventLog(settings.model_copy(update={"tls": None}), "video", 1_000)
        await asyncio.sleep(0.5)
        with pytest.raises(NotReadyError):
            await log.append([feedback("e2")])
        await log.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_three_copies_outlive_the_loss_of_any_server(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    with contextlib.ExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            folder = tmp_path / f"n{number}"
            folder.mkdir()
            cluster = {"name": "c", "listen": f"127.0.0.1:{port}", "routes": routes}
            servers.append(stack.enter_context(NatsProcess(folder, server_name=f"n{number}", cluster=cluster)))
        urls = [server.url for server in servers]
        settings = JetStreamSettings(engine="jetstream", path=tmp_path, servers=urls, replicas=3)
        async with open_log(settings) as log:
            batches = [[feedback(f"b{number}e{place}") for place in range(20)] for number in range(90)]
            for number, batch in enumerate(batches):
                if number % 30 == 10:
                    servers[number // 30].kill()
                async with asyncio.timeout(600):
                    while True:
                        try:
                            await log.append(batch)
                            break
                        except NotReadyError:
                            await asyncio.sleep(0.1)
                if number % 30 == 29:
                    servers[number // 30].start()
            assert await event_ids(log) == [event.event_id for batch in batches for event in batch]
            assert await log.append(batches[0]) == Appended(0, 20)
