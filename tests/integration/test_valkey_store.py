"""The feature store in a real Valkey: several processes at once, losses, refusals, time to live."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from services.feature.config import ValkeySettings
from services.feature.history import HistoryRules
from services.feature.records import Checkpoint, Event, Item, UserFeatures
from services.feature.valkey_layout import Keys
from services.feature.valkey_store import ValkeyFeatureStore
from services.runtime.errors import NotReadyError, OverloadedError, SetupError
from tests.support.ports import free_port
from tests.support.valkey_process import ValkeyCluster, ValkeyProcess, needs_valkey
from tests.support.waiting import until

pytestmark = needs_valkey

RATING = 8
RULES = HistoryRules(frozenset({RATING}), max_events=100, max_items=100)
KEYS = Keys("recmesh", "video")
NEVER_MS = 86_400_000
LIMIT_S = 60

Opener = Callable[..., ValkeyFeatureStore]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path / "valkey") as process:
        yield process


@pytest.fixture
async def open_store() -> AsyncIterator[Opener]:
    """Opens any number of stores; the checkpoint of each is stored at closing, or often with `often`."""
    opened: list[ValkeyFeatureStore] = []

    def open_one(*addresses: str, often: bool = False, **settings: Any) -> ValkeyFeatureStore:
        interval = {"checkpoint_interval_ms": 20 if often else NEVER_MS, "poll_interval_ms": 20}
        # Long, since a busy machine answers late; a server that is not there refuses at once.
        limits = {"timeout_ms": 30_000, "durable_timeout_ms": 30_000}
        values = {"engine": "valkey", "addresses": list(addresses), **interval, **limits, **settings}
        opened.append(ValkeyFeatureStore(ValkeySettings.model_validate(values), "video", RULES))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


def event(offset: int, user_id: str = "anna") -> Event:
    return Event(offset, user_id, "alien", RATING, offset, 4.0)


def item(item_id: str, description: str = "") -> Item:
    return Item(item_id, "Alien", description, ["film"], "", None, None, "", {}, False)


def times_of(features: UserFeatures) -> list[int]:
    return features.activity.event_times_ms if features.activity else []


async def test_events_applied_before_the_checkpoint_was_stored_are_left_out_afterwards(
    server: ValkeyProcess, open_store: Opener
) -> None:
    killed = open_store(server.address)
    await killed.wait_ready()
    await killed.apply_events([event(1), event(2, "bert")], Checkpoint(2, 2))
    # As after a kill in the middle of the next batch: one of its users has it, the checkpoint is older than both.
    await killed._try_to_apply({"anna": [event(3), event(4)]})
    store = open_store(server.address)
    await store.wait_ready()
    assert store.checkpoint == Checkpoint(0, 0)
    await store.apply_events([event(1), event(2, "bert"), event(3), event(4), event(5, "bert")], Checkpoint(5, 5))
    assert times_of(await store.get_user("anna")) == [1, 3, 4]
    assert times_of(await store.get_user("bert")) == [2, 5]


async def test_two_consumers_at_once_count_each_event_once(tmp_path: Path, open_store: Opener) -> None:
    events = [event(offset, f"u{offset % 7}") for offset in range(1, 301)]

    async def consume(store: ValkeyFeatureStore, size: int) -> None:
        await store.wait_ready()
        for start in range(0, len(events), size):
            batch = events[start : start + size]
            await store.apply_events(batch, Checkpoint(batch[-1].offset, 0))

    with ValkeyCluster(tmp_path) as cluster:
        stores = [open_store(*cluster.addresses, cluster=True, often=True) for _ in range(2)]
        await asyncio.gather(*(consume(store, size) for store, size in zip(stores, (7, 11), strict=True)))
        for number in range(7):
            features = await stores[0].get_user(f"u{number}")
            assert times_of(features) == [offset for offset in range(1, 301) if offset % 7 == number]
        for store in stores:
            await store.close()


async def test_an_erased_user_does_not_come_back_from_a_slow_consumer(
    server: ValkeyProcess, open_store: Opener
) -> None:
    first, slow = open_store(server.address, often=True), open_store(server.address)
    await first.wait_ready()
    await slow.wait_ready()
    await first.apply_events([event(1)], Checkpoint(1, 1))
    with server.client() as client:
        await until(lambda: client.hget(KEYS.checkpoint, "log_offset") == "1")
    assert await first.delete_user("anna") == 1
    await slow.apply_events([event(1)], Checkpoint(1, 1))
    assert (await first.get_user("anna")).activity is None


async def test_changes_of_items_by_another_process_are_told(server: ValkeyProcess, open_store: Opener) -> None:
    writer, reader = open_store(server.address), open_store(server.address)
    await reader.wait_ready()
    told = asyncio.create_task(reader.item_changes.wait())
    await asyncio.sleep(0)
    await writer.put_items([item("a"), item("b")])
    await asyncio.wait_for(told, LIMIT_S)
    assert reader.latest_item_offset == 2
    assert [change.item.item_id for change in await reader.read_item_changes(0, 10, 1 << 20)] == ["a", "b"]


async def test_what_a_server_lost_is_read_again(tmp_path: Path, open_store: Opener) -> None:
    with ValkeyProcess(tmp_path / "forgetful", appendonly="no") as server:
        store = open_store(server.address, often=True)
        await store.wait_ready()
        await store.apply_events([event(1)], Checkpoint(1, 1))
        with server.client() as client:
            await until(lambda: client.hget(KEYS.checkpoint, "log_offset") == "1")
            client.save()
        await store.apply_events([event(2)], Checkpoint(2, 2))
        rewound = asyncio.create_task(store.rewinds.wait())
        server.kill()
        server.start()
        await asyncio.wait_for(rewound, LIMIT_S)
        assert store.checkpoint == Checkpoint(1, 1)
        await store.apply_events([event(2), event(3)], Checkpoint(3, 3))
        assert times_of(await store.get_user("anna")) == [1, 2, 3]


async def test_a_kill_of_the_server_loses_nothing_that_was_answered(server: ValkeyProcess, open_store: Opener) -> None:
    store = open_store(server.address, often=True)
    await store.wait_ready()
    await store.put_items([item("a")])
    await store.put_users({"anna": {"age": "30"}})
    await store.apply_events([event(1)], Checkpoint(1, 1))
    rewound = asyncio.create_task(store.rewinds.wait())
    server.kill()
    await until(lambda: not store.connected)
    for call in (
        store.get_user("anna"), store.get_items(["a"]), store.put_items([item("b")]), store.delete_user("anna"),
        store.put_users({"anna": {}}), store.read_item_changes(0, 1, 1),
        store.apply_events([event(2)], Checkpoint(2, 2)),
    ):  # fmt: skip
        with pytest.raises(NotReadyError):
            await call
    server.start()
    await asyncio.wait_for(rewound, LIMIT_S)
    await store.apply_events([event(2)], Checkpoint(2, 2))
    features = await store.get_user("anna")
    assert (features.attributes, times_of(features)) == ({"age": "30"}, [1, 2])
    assert await store.get_items(["a", "b"]) == [item("a"), None]


async def test_a_store_opens_before_its_server(tmp_path: Path, open_store: Opener) -> None:
    server = ValkeyProcess(tmp_path / "late")
    store = open_store(server.address)
    with pytest.raises(NotReadyError):
        await store.apply_events([event(1)], Checkpoint(1, 1))
    assert not store.connected
    with server:
        await asyncio.wait_for(store.wait_ready(), LIMIT_S)
        await store.put_users({"anna": {}})
        assert (await store.get_user("anna")).attributes == {}


async def test_a_node_that_dies_is_used_again_when_it_is_back(tmp_path: Path, open_store: Opener) -> None:
    with ValkeyCluster(tmp_path) as cluster:
        store = open_store(*cluster.addresses, cluster=True, often=True)
        await store.wait_ready()
        users = [f"u{number}" for number in range(30)]
        await store.apply_events([event(n, user) for n, user in enumerate(users, 1)], Checkpoint(30, 30))
        cluster.servers[1].kill()
        with pytest.raises(NotReadyError):
            await store.apply_events([event(30 + n, user) for n, user in enumerate(users, 1)], Checkpoint(60, 60))
        cluster.servers[1].start()

        async def applied() -> bool:
            before = store.checkpoint.log_offset
            events = [event(n + 30 * turn, user) for turn in range(2) for n, user in enumerate(users, 1)]
            try:
                await store.apply_events([event for event in events if event.offset > before], Checkpoint(60, 60))
            except NotReadyError:
                return False
            return True

        async with asyncio.timeout(LIMIT_S):
            while not await applied():
                await asyncio.sleep(0.05)
        for number, user in enumerate(users, 1):
            assert times_of(await store.get_user(user)) == [number, number + 30]
        await store.close()


async def test_a_full_server_refuses_keeps_what_it_has_and_lets_erase(tmp_path: Path, open_store: Opener) -> None:
    with ValkeyProcess(tmp_path / "small") as server:
        store = open_store(server.address)
        await store.wait_ready()
        await store.put_items([item("a")])
        await store.apply_events([event(1)], Checkpoint(1, 1))
        with server.client() as client:
            client.config_set("maxmemory", 1)
        for write in (
            store.put_items([item("b")]), store.put_users({"anna": {}}),
            store.apply_events([event(2)], Checkpoint(2, 2)),
        ):  # fmt: skip
            with pytest.raises(OverloadedError, match="maxmemory"):
                await write
        assert store.checkpoint == Checkpoint(1, 1)
        assert times_of(await store.get_user("anna")) == [1]
        assert [change.item for change in await store.read_item_changes(0, 10, 1 << 20)] == [item("a")]
        assert await store.delete_user("anna") == 1


async def test_users_expire_and_events_put_it_off(server: ValkeyProcess, open_store: Opener) -> None:
    store = open_store(server.address, user_ttl_days=30)
    await store.wait_ready()
    await store.put_items([item("a")])
    await store.put_users({"anna": {}})
    with server.client() as client:
        client.pexpire(KEYS.user("anna"), 60_000)
        await store.apply_events([event(1)], Checkpoint(1, 1))
        assert client.pttl(KEYS.user("anna")) > 29 * 86_400_000
        assert client.ttl(KEYS.items) == -1
        for_ever = open_store(server.address)
        await for_ever.put_users({"anna": {}})
        assert client.ttl(KEYS.user("anna")) == -1
        brief = open_store(server.address, user_ttl_days=0.2 / 86_400)
        await brief.put_users({"anna": {}})
        await until(lambda: not client.exists(KEYS.user("anna")))
    assert await store.get_user("anna") == UserFeatures(None, None, 1)


async def test_a_password_from_file_or_environment_opens_a_protected_server(
    tmp_path: Path, open_store: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    monkeypatch.setenv("STORE_PASSWORD", "secret")
    monkeypatch.setenv("WRONG_PASSWORD", "wrong")
    with ValkeyProcess(tmp_path / "protected", requirepass="secret") as server:
        for how in ({"password_file": str(file)}, {"password_env": "STORE_PASSWORD", "username": "default"}):
            await asyncio.wait_for(open_store(server.address, **how).wait_ready(), LIMIT_S)
        with pytest.raises(NotReadyError, match="password"):
            await open_store(server.address, password_env="WRONG_PASSWORD").get_user("anna")
    for how in ({"password_env": "NO_SUCH_VARIABLE"}, {"password_file": str(tmp_path / "none")}):
        with pytest.raises(SetupError, match=next(iter(how))):
            open_store("127.0.0.1:1", **how)


@pytest.mark.parametrize("error", [None, NotReadyError("no connection available")])
async def test_it_closes_where_the_client_loses_the_cancellation(
    server: ValkeyProcess, open_store: Opener, monkeypatch: pytest.MonkeyPatch, error: NotReadyError | None
) -> None:
    asked = asyncio.Event()

    async def connect() -> None:
        asked.set()
        try:
            await asyncio.sleep(LIMIT_S)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    store = open_store(server.address)
    monkeypatch.setattr(store, "_poll_items", connect)
    await asyncio.wait_for(asked.wait(), LIMIT_S)
    await asyncio.wait_for(store.close(), LIMIT_S)
    assert store._upkeep.cancelled()


async def test_it_speaks_tls_and_trusts_only_its_authority(
    server: ValkeyProcess, tmp_path: Path, open_store: Opener
) -> None:
    """The wheel's server has no TLS; a proxy before it does."""
    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    files = {"own": tmp_path / "own.pem", "strange": tmp_path / "strange.pem"}
    authority.cert_pem.write_to_path(files["own"])
    stranger.cert_pem.write_to_path(files["strange"])

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as proxy:
        address = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        store = open_store(address, tls={"ca_file": str(files["own"])})
        await store.put_users({"anna": {}})
        assert (await store.get_user("anna")).attributes == {}
        with pytest.raises(NotReadyError):
            await open_store(address, tls={"ca_file": str(files["strange"])}).get_user("anna")
        await store.close()
    with pytest.raises(SetupError, match="no such file"):
        open_store(address, tls={"ca_file": str(tmp_path / "none.pem")})


async def test_a_write_that_too_few_replicas_have_is_not_durable(server: ValkeyProcess, open_store: Opener) -> None:
    store = open_store(server.address, durable_replicas=1, durable_timeout_ms=100)
    await store.wait_ready()
    with pytest.raises(NotReadyError, match="1 replicas"):
        await store.put_items([item("a")])


async def test_a_server_that_cannot_keep_its_word_is_reported(
    tmp_path: Path, open_store: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    with ValkeyProcess(tmp_path / "careless", appendonly="no", maxmemory_policy="allkeys-lru") as server:
        store = open_store(server.address)
        await store.wait_ready()
        await store.put_items([item("a")])
    assert "maxmemory-policy noeviction" in caplog.text
    assert "appendonly yes" in caplog.text


async def test_no_key_or_user_is_in_the_text_of_an_error(open_store: Opener, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        store = open_store(f"127.0.0.1:{free_port()}")
        with pytest.raises(NotReadyError) as raised:
            await store.get_user("anna-secret")
    assert "anna-secret" not in str(raised.value) + caplog.text
