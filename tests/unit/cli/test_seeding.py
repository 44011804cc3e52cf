"""Seeding against stubs that remember: nothing twice, nothing lost, wherever it was interrupted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from services.cli import seeding
from services.cli.converters import BATCH_ROWS
from services.cli.seeding import STREAM_MESSAGES, Seeder
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.tables import Tables, write_tables
from tests.e2e.tiny_state import tiny_tables

HEAD = {"description": "x", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
TABLES = tiny_tables("video")


class Stream:
    """A response stream that says `latest_offset` and would stay open."""

    def __init__(self, latest_offset: int) -> None:
        self._latest_offset = latest_offset

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Any:
        return SimpleNamespace(latest_offset=self._latest_offset)

    def cancel(self) -> None:
        pass


class FakeServices:
    """Both stubs: keeps what was sent; fails as often as `failures` says."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.users: list[Any] = []
        self.events: list[Any] = []
        self.failures: list[grpc.StatusCode] = []
        self.read_offset = 0

    def _maybe_fail(self) -> None:
        if self.failures:
            raise grpc.aio.AioRpcError(self.failures.pop(), grpc.aio.Metadata(), grpc.aio.Metadata())

    async def UpsertItems(self, requests: Any, **options: Any) -> None:
        self._maybe_fail()
        self.items += [item for request in requests for item in request.items]

    async def UpsertUsers(self, request: Any, **options: Any) -> None:
        self._maybe_fail()
        self.users += request.users

    async def StreamFeedback(self, requests: Any, **options: Any) -> None:
        self._maybe_fail()
        self.events += [event for request in requests for event in request.events]

    def TailItems(self, request: Any) -> Stream:
        return Stream(len(self.items))

    def TailEvents(self, request: Any) -> Stream:
        return Stream(len(self.events))

    async def GetUserFeatures(self, request: Any, **options: Any) -> Any:
        self.read_offset += 32
        return SimpleNamespace(log_offset=self.read_offset)


@pytest.fixture
def services() -> FakeServices:
    return FakeServices()


@pytest.fixture
def seeder(tmp_path: Path, services: FakeServices) -> Seeder:
    write_tables(tmp_path / "data", TABLES)
    return Seeder(Scenario("video", HEAD, "x"), tmp_path / "seed" / "video.json", services, services)


def ignore(table: str, sent: int, total: int) -> None:
    pass


async def test_every_row_arrives_with_its_fields(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    assert await seeder.seed(tmp_path / "data", ignore) == {"items": 60, "users": 12, "events": 96}
    assert [item.item_id for item in services.items] == sorted(f"i{n}" for n in range(60))
    first = services.items[0]
    assert (first.title, list(first.categories), first.published_time_ms) == ("red river", ["drama"], 10**12)
    assert not first.HasField("price")
    assert dict(services.users[0].attributes) == {"age": "20"}
    event = services.events[0]
    assert (event.event_id, event.user_id, event.event_kind) == ("video-0-0", "u0", 2)
    assert event.event_time_ms == 1767225600000
    assert not event.HasField("value")
    assert not event.HasField("position")


async def test_a_second_start_sends_nothing(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    await seeder.seed(tmp_path / "data", ignore)
    services.failures = [grpc.StatusCode.INTERNAL]
    assert await seeder.seed(tmp_path / "data", ignore) == {}


async def test_other_tables_are_sent_anew(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    await seeder.seed(tmp_path / "data", ignore)
    write_tables(tmp_path / "data", Tables(TABLES.items, TABLES.users, TABLES.events.slice(0, 50)))
    assert (await seeder.seed(tmp_path / "data", ignore))["events"] == 50


@pytest.mark.parametrize("emptied", ["items", "events"])
async def test_emptied_stores_are_filled_again(
    tmp_path: Path, seeder: Seeder, services: FakeServices, emptied: str
) -> None:
    await seeder.seed(tmp_path / "data", ignore)
    setattr(services, emptied, [])
    await seeder.seed(tmp_path / "data", ignore)
    assert len(getattr(services, emptied)) == getattr(TABLES, emptied).num_rows


async def test_an_interrupted_seeding_goes_on_where_it_stopped(
    tmp_path: Path, seeder: Seeder, services: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeding.converters, "BATCH_ROWS", 8)
    monkeypatch.setattr(seeding, "STREAM_MESSAGES", 2)

    class InterruptedError(Exception):
        pass

    def interrupt(table: str, sent: int, total: int) -> None:
        if (table, sent) == ("events", 48):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await seeder.seed(tmp_path / "data", interrupt)
    assert await seeder.seed(tmp_path / "data", ignore) == {"events": 48}
    ids = [event.event_id for event in services.events]
    assert len(ids) == len(set(ids)) == 96
    assert len(services.items) == 60


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_what_may_pass_is_tried_again(
    tmp_path: Path, seeder: Seeder, services: FakeServices, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    monkeypatch.setattr(seeding, "RETRY_S", 0.0)
    services.failures = [code, code]
    await seeder.seed(tmp_path / "data", ignore)
    assert len(services.items) == 60


async def test_what_will_not_pass_is_raised(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    services.failures = [grpc.StatusCode.INVALID_ARGUMENT]
    with pytest.raises(grpc.aio.AioRpcError):
        await seeder.seed(tmp_path / "data", ignore)


async def test_waits_until_feature_has_read_the_log(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    await seeder.seed(tmp_path / "data", ignore)
    await seeder.wait_until_read()
    assert services.read_offset >= 96


async def test_a_bad_row_is_an_error_that_names_it(tmp_path: Path, seeder: Seeder) -> None:
    (tmp_path / "data" / "events.parquet").write_bytes(b"x")
    with pytest.raises(SetupError, match=r"events\.parquet"):
        await seeder.seed(tmp_path / "data", ignore)


async def test_without_tables_nothing_is_sent(tmp_path: Path, seeder: Seeder, services: FakeServices) -> None:
    assert await seeder.seed(tmp_path / "other", ignore) == {}
    assert services.items == []


def test_a_message_keeps_within_the_services_limits() -> None:
    assert BATCH_ROWS <= 1000
    assert STREAM_MESSAGES * BATCH_ROWS <= 20_000
