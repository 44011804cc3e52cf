"""What every engine of the feature store must do. A further engine joins by a further entry in ENGINES."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from services.feature.config import ValkeySettings
from services.feature.history import HistoryRules
from services.feature.interests import InterestRules
from services.feature.lmdb_store import LmdbFeatureStore
from services.feature.records import Activity, Checkpoint, Event, Item, ItemChange, Upserted, UserFeatures
from services.feature.store import FeatureStore
from services.feature.valkey_store import ValkeyFeatureStore
from services.runtime.pseudonym import erasure_digest
from tests.support.valkey_process import ValkeyCluster, ValkeyProcess, needs_valkey

OpenStore = Callable[[], Awaitable[FeatureStore]]
PLAY, RATING, DISMISS = 3, 8, 11
RULES = HistoryRules(frozenset({PLAY, RATING}), max_events=4, max_items=6, interests=InterestRules(half_life_ms=10))
NO_LIMIT = 1 << 30


def open_lmdb(folder: Path) -> FeatureStore:
    return LmdbFeatureStore(folder, 64 * 1024**2, RULES)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], FeatureStore]]:
    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as server:
        yield lambda folder: open_valkey(folder, [server.address], cluster=False)


@pytest.fixture(scope="module")
def valkey_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], FeatureStore]]:
    with ValkeyCluster(tmp_path_factory.mktemp("valkey-cluster")) as servers:
        yield lambda folder: open_valkey(folder, servers.addresses[:1], cluster=True)


def open_valkey(folder: Path, addresses: list[str], cluster: bool) -> FeatureStore:
    # Keys of its own for each test.
    settings = {"engine": "valkey", "addresses": addresses, "cluster": cluster, "key_prefix": folder.parent.name}
    # Long, since a busy machine answers late.
    limits = {"timeout_ms": 30_000, "durable_timeout_ms": 30_000}
    return ValkeyFeatureStore(ValkeySettings.model_validate(settings | limits), "video", RULES)


ENGINES = ["lmdb", pytest.param("valkey", marks=needs_valkey), pytest.param("valkey_cluster", marks=needs_valkey)]


@pytest.fixture(params=ENGINES)
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the same store again and again; whatever is open at the end is closed."""
    opened: list[FeatureStore] = []
    open_engine = open_lmdb if request.param == "lmdb" else request.getfixturevalue(request.param)

    async def open_again() -> FeatureStore:
        while opened:
            await opened.pop().close()
        opened.append(open_engine(tmp_path / "store"))
        await asyncio.wait_for(opened[-1].wait_ready(), 30)
        assert opened[-1].connected
        return opened[-1]

    yield open_again
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> FeatureStore:
    return await open_store()


def event(offset: int, user_id: str = "anna", item_id: str = "alien", kind: int = RATING, time_ms: int = 0) -> Event:
    return Event(offset, user_id, item_id, kind, time_ms or offset, 4.0)


def item(item_id: str, title: str = "Alien", price: float | None = 9.99) -> Item:
    return Item(item_id, title, "In space", ["film", "horror"], "Fox", price, -1, "a.jpg", {"year": "1979"}, False)


async def test_an_empty_store_knows_nobody(store: FeatureStore) -> None:
    assert await store.get_user("anna") == UserFeatures(None, None, 0)
    assert await store.get_items(["alien"]) == [None]
    assert await store.read_item_changes(0, 10, NO_LIMIT) == []
    assert (store.checkpoint, store.latest_item_offset) == (Checkpoint(0, 0), 0)


async def test_events_become_history_seen_items_and_counts(store: FeatureStore) -> None:
    events = [event(1), event(2, item_id="brazil", kind=PLAY), event(3, item_id="crash", kind=DISMISS)]
    await store.apply_events([*events, event(4, user_id="bert")], Checkpoint(9, 4))
    assert store.checkpoint == Checkpoint(9, 4)
    features = await store.get_user("anna")
    assert features.log_offset == 9
    assert features.activity == Activity(
        item_ids=["alien", "brazil"],
        event_kinds=[RATING, PLAY],
        event_times_ms=[1, 2],
        values=[4.0, 4.0],
        seen_item_ids=["alien", "brazil"],
        dismissed_item_ids=["crash"],
        event_counts={RATING: 1, PLAY: 1, DISMISS: 1},
    )


async def test_an_event_counts_once_however_often_it_is_applied(open_store: OpenStore) -> None:
    store = await open_store()
    first, second = [event(1), event(2)], [event(2), event(3)]
    await store.apply_events(first, Checkpoint(2, 2))
    await store.apply_events(first, Checkpoint(2, 2))
    await store.apply_events(second, Checkpoint(3, 3))
    await store.apply_events(first, Checkpoint(2, 2))
    store = await open_store()
    await store.apply_events(second, Checkpoint(3, 3))
    assert store.checkpoint == Checkpoint(3, 3)
    activity = (await store.get_user("anna")).activity
    assert activity is not None
    assert (activity.event_counts, activity.event_times_ms) == ({RATING: 3}, [1, 2, 3])


async def test_interests_count_events_of_known_items_and_wear_off(open_store: OpenStore) -> None:
    store = await open_store()
    await store.put_items([item("alien"), item("brazil")])
    await store.apply_events([event(1, time_ms=100), event(2, item_id="unknown", time_ms=100)], Checkpoint(2, 100))
    events = [event(3, item_id="brazil", time_ms=110), event(4, kind=DISMISS, time_ms=120), event(5, time_ms=90)]
    await store.apply_events(events, Checkpoint(5, 110))
    store = await open_store()
    activity = (await store.get_user("anna")).activity
    assert activity is not None
    assert activity.interests == pytest.approx({"film": 1.75, "horror": 1.75})
    assert activity.interests_time_ms == 110


async def test_users_whose_names_hold_braces_are_apart(store: FeatureStore) -> None:
    names = ["{", "}", "{}", "a}", "a}b", "a}b}", "{a}", "video:a"]
    await store.put_users({name: {"name": name} for name in names})
    await store.apply_events([event(n, name) for n, name in enumerate(names, 1)], Checkpoint(9, 9))
    for place, name in enumerate(names, 1):
        features = await store.get_user(name)
        assert features.attributes == {"name": name}
        assert features.activity is not None
        assert features.activity.event_times_ms == [place]


async def test_effects_and_checkpoint_survive_reopening(open_store: OpenStore) -> None:
    store = await open_store()
    await store.apply_events([event(5)], Checkpoint(7, 5))
    before = await store.get_user("anna")
    store = await open_store()
    assert store.checkpoint == Checkpoint(7, 5)
    assert await store.get_user("anna") == before


async def test_the_checkpoint_moves_without_events_and_never_back(store: FeatureStore) -> None:
    await store.apply_events([], Checkpoint(5, 0))
    assert (await store.get_user("anna")).log_offset == 5
    await store.apply_events([], Checkpoint(3, 0))
    assert store.checkpoint == Checkpoint(5, 0)


async def test_an_answer_tells_the_offset_it_was_made_at(store: FeatureStore) -> None:
    seen: set[tuple[int, int]] = set()

    async def write() -> None:
        for number in range(1, 41):
            # Every second batch is of others: the user's own record stands behind the checkpoint then.
            user_id = "anna" if number % 2 else "bert"
            await store.apply_events([event(number, user_id=user_id)], Checkpoint(number, number))

    async def read() -> None:
        while not writing.done():
            features = await store.get_user("anna")
            seen.add((features.log_offset, sum((features.activity or Activity()).event_counts.values())))
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    await asyncio.gather(writing, read())
    assert all(count == (offset + 1) // 2 for offset, count in seen), "no event after the offset, all up to it"
    assert (await store.get_user("anna")).log_offset == 40


async def test_attributes_are_replaced_and_leave_the_history_alone(store: FeatureStore) -> None:
    await store.apply_events([event(1)], Checkpoint(1, 1))
    await store.put_users({"anna": {"age": "30", "city": "Rome"}, "bert": {}})
    await store.put_users({"anna": {"age": "31"}})
    anna, bert = await store.get_user("anna"), await store.get_user("bert")
    assert anna.attributes == {"age": "31"}
    assert anna.activity is not None
    assert (bert.attributes, bert.activity) == ({}, None)


async def test_erasing_a_user_leaves_the_others(store: FeatureStore) -> None:
    await store.apply_events([event(1), event(2, user_id="bert")], Checkpoint(2, 2))
    await store.put_users({"anna": {"age": "30"}})
    assert await store.delete_user("anna") == 2
    assert await store.delete_user("anna") == 0
    assert await store.get_user("anna") == UserFeatures(None, None, 2)
    assert (await store.get_user("bert")).activity is not None


async def test_erasures_of_the_log_reach_those_whom_they_mean(open_store: OpenStore) -> None:
    store = await open_store()
    await store.apply_events([event(1), event(2, user_id="bert")], Checkpoint(2, 2))
    await store.put_users({"anna": {"age": "30"}, "carl": {"age": "31"}, "dora": {"age": "32"}})
    await store.erase_users({erasure_digest("anna"): 3, erasure_digest("carl"): 4, erasure_digest("nobody"): 5})
    store = await open_store()
    for user_id in ("anna", "carl"):
        found = await store.get_user(user_id)
        assert (found.attributes, found.activity) == (None, None)
    assert (await store.get_user("bert")).activity is not None
    assert (await store.get_user("dora")).attributes == {"age": "32"}
    await store.put_items([item("alien")])
    await store.apply_events([event(6)], Checkpoint(6, 6))
    assert (await store.get_user("anna")).activity is not None, "a user may come back"


async def test_items_come_back_as_they_were_in_the_order_asked(open_store: OpenStore) -> None:
    store = await open_store()
    bare = Item("é" * 64, "", "", [], "", None, None, "", {}, True)
    assert await store.put_items([item("alien"), bare]) == Upserted(2, 0)
    store = await open_store()
    assert await store.get_items([bare.item_id, "nothing", "alien"]) == [bare, None, item("alien")]


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Aliens"}, {"description": "x"}, {"categories": ["horror", "film"]}, {"brand": ""}, {"price": None},
        {"price": 0.0}, {"published_time_ms": 0}, {"published_time_ms": None}, {"image": ""}, {"attributes": {}},
        {"retired": True},
    ],
)  # fmt: skip
async def test_every_field_makes_a_change(store: FeatureStore, change: dict[str, object]) -> None:
    await store.put_items([item("alien")])
    changed = msgspec.structs.replace(item("alien"), **change)
    assert await store.put_items([item("alien")]) == Upserted(0, 1)
    assert await store.put_items([changed]) == Upserted(1, 0)
    assert await store.put_items([changed]) == Upserted(0, 1)
    assert await store.get_items(["alien"]) == [changed]


async def test_item_changes_show_each_item_once_at_its_last_change(open_store: OpenStore) -> None:
    store = await open_store()
    await store.put_items([item("a"), item("b"), item("c")])
    seen = store.latest_item_offset
    await store.put_items([item("a", "New"), item("b")])
    store = await open_store()
    changes = await store.read_item_changes(0, 10, NO_LIMIT)
    assert [change.item for change in changes] == [item("b"), item("c"), item("a", "New")]
    assert [change.offset for change in changes] == sorted({change.offset for change in changes})
    assert store.latest_item_offset == changes[-1].offset > seen
    assert await store.read_item_changes(seen, 10, NO_LIMIT) == [ItemChange(changes[-1].offset, item("a", "New"))]
    assert await store.read_item_changes(0, 2, NO_LIMIT) == changes[:2]
    assert await store.read_item_changes(store.latest_item_offset, 10, NO_LIMIT) == []


async def test_a_small_byte_limit_still_lets_one_change_through(store: FeatureStore) -> None:
    await store.put_items([item("a"), item("b")])
    assert len(await store.read_item_changes(0, 10, 1)) == 1


async def test_an_item_twice_in_a_batch_is_stored_as_it_came_last(store: FeatureStore) -> None:
    assert await store.put_items([item("a"), item("a", "New")]) == Upserted(2, 0)
    assert [change.item for change in await store.read_item_changes(0, 10, NO_LIMIT)] == [item("a", "New")]


async def test_changes_of_items_are_told_and_equal_items_are_not(store: FeatureStore) -> None:
    waiting = asyncio.create_task(store.item_changes.wait())
    await asyncio.sleep(0)
    await store.put_items([item("a")])
    await asyncio.wait_for(waiting, 30)
    waiting = asyncio.create_task(store.item_changes.wait())
    await store.put_items([item("a")])
    await asyncio.sleep(0.05)
    assert not waiting.done()
    waiting.cancel()


async def test_reads_and_writes_at_once_keep_histories_whole(store: FeatureStore) -> None:
    async def write() -> None:
        for offset in range(1, 60):
            await store.apply_events([event(offset), event(offset, "bert")], Checkpoint(offset, offset))

    async def read() -> None:
        last = 0
        while last < 59:
            activity = (await store.get_user("anna")).activity or Activity()
            assert len(activity.item_ids) == len(activity.values) == min(4, activity.event_counts.get(RATING, 0))
            last = activity.event_counts.get(RATING, 0)
            await asyncio.sleep(0)

    await asyncio.gather(write(), read())


async def test_a_person_who_is_an_item_is_retired_nameless_and_in_no_history(open_store: OpenStore) -> None:
    store = await open_store()
    await store.put_items([item("anna", "Anna's page"), item("carl", "Carl's page")])
    events = [event(1, "bert", "anna"), event(2, "bert", "carl"), event(3, "dora", "anna", DISMISS)]
    await store.apply_events([*events, event(4, "emil", "carl")], Checkpoint(4, 4))
    untouched = await store.get_user("emil")
    assert await store.erase_items(lambda item_id: item_id == "anna") == 3
    assert await store.erase_items(lambda item_id: item_id == "anna") == 0
    store = await open_store()
    [left] = await store.get_items(["anna"])
    assert left == Item("anna", "", "", [], "", None, None, "", {}, True)
    # Who follows the catalogue hears of it.
    changes = await store.read_item_changes(2, 10, NO_LIMIT)
    assert [change.item for change in changes] == [left]
    bert, dora = (await store.get_user("bert")).activity, (await store.get_user("dora")).activity
    assert bert is not None
    assert (bert.item_ids, bert.seen_item_ids, bert.values) == (["carl"], ["carl"], [4.0])
    assert bert.event_counts == {RATING: 2}, "counters name nobody"
    assert dora is not None
    assert dora.dismissed_item_ids == []
    assert (await store.get_user("emil")).activity == untouched.activity
    # What comes later still counts, once.
    await store.apply_events([event(4, "bert", "carl"), event(5, "bert", "dora")], Checkpoint(5, 5))
    bert = (await store.get_user("bert")).activity
    assert bert is not None
    assert bert.item_ids == ["carl", "dora"]
