"""The feature service as a real process, fed by a real feedback service."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from recmesh.feature.v1 import feature_service_pb2 as pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.item_pb2 import Item
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, impression, now_ms, scenario_file

MAX_MESSAGE_BYTES = 256 * 1024
CLICK, PLAY, RATING, VIEW, DISMISS = 2, 3, 8, 1, 11
LIMIT_S = 60.0


@pytest.fixture
def log(tmp_path: Path) -> ServiceProcess:
    """The feedback service, not started; its port stays the same over restarts."""
    settings = {
        "server": {"port": free_port()},
        "scenario_files": [scenario_file(tmp_path)],
        "store": {"path": str(tmp_path / "feedback")},
    }
    return ServiceProcess("feedback", settings, tmp_path)


@pytest.fixture
def idle_service(tmp_path: Path, log: ServiceProcess) -> ServiceProcess:
    """The feature service, not started."""
    settings = {
        "server": {"max_message_bytes": MAX_MESSAGE_BYTES},
        "scenario_files": [scenario_file(tmp_path)],
        "store": {"engine": "lmdb", "path": str(tmp_path / "feature"), "map_bytes": 64 * 1024**2},
        "feedback": {"address": f"127.0.0.1:{log.settings['server']['port']}"},
    }
    return ServiceProcess("feature", settings, tmp_path)


@pytest.fixture
def feedback(log: ServiceProcess) -> Iterator[FeedbackServiceStub]:
    with log:
        log.wait_serving()
        with grpc.insecure_channel(log.address) as channel:
            yield FeedbackServiceStub(channel)


@pytest.fixture
def service(feedback: FeedbackServiceStub, idle_service: ServiceProcess) -> Iterator[ServiceProcess]:
    with idle_service:
        idle_service.wait_serving()
        yield idle_service


@pytest.fixture
def stub(service: ServiceProcess) -> Iterator[FeatureServiceStub]:
    with grpc.insecure_channel(service.address) as channel:
        yield FeatureServiceStub(channel)


def record(feedback: FeedbackServiceStub, *events: feedback_pb.Feedback) -> None:
    feedback.RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario="video", events=events))


def get_user(stub: FeatureServiceStub, user_id: str = "anna", **fields: Any) -> pb.GetUserFeaturesResponse:
    return stub.GetUserFeatures(pb.GetUserFeaturesRequest(**{"scenario": "video", "user_id": user_id, **fields}))


def wait_for_user(
    stub: FeatureServiceStub, ready: Callable[[pb.GetUserFeaturesResponse], bool], user_id: str = "anna"
) -> pb.GetUserFeaturesResponse:
    deadline = time.monotonic() + LIMIT_S
    while not ready(features := get_user(stub, user_id)):
        assert time.monotonic() < deadline, features
        time.sleep(0.005)
    return features


def upsert(stub: FeatureServiceStub, *batches: list[Item], scenario: str = "video") -> pb.UpsertItemsResponse:
    return stub.UpsertItems(pb.UpsertItemsRequest(scenario=scenario, items=items) for items in batches)


def film(item_id: str, **fields: Any) -> Item:
    return Item(**{"item_id": item_id, "title": "Alien", **fields})


def read_items(stub: FeatureServiceStub, after_offset: int = 0) -> list[Item]:
    """All item changes after an offset, up to the newest now."""
    items: list[Item] = []
    call = stub.TailItems(pb.TailItemsRequest(scenario="video", after_offset=after_offset), timeout=LIMIT_S)
    for response in call:
        items += response.items
        if response.offset >= response.latest_offset:
            call.cancel()
            break
    return items


def test_an_unknown_user_is_no_error(stub: FeatureServiceStub) -> None:
    features = get_user(stub)
    assert not features.found
    assert (len(features.history.item_ids), features.event_counts, features.log_offset) == (0, {}, 0)


def test_feedback_becomes_history_seen_dismissed_and_counts(
    feedback: FeedbackServiceStub, stub: FeatureServiceStub
) -> None:
    now = now_ms()
    record(
        feedback,
        event("e1", item_id="alien", event_kind=RATING, value=4.5, event_time_ms=now - 1000),
        event("e2", item_id="brazil", event_time_ms=now - 3000),
        event("e3", item_id="crash", event_kind=DISMISS),
        event("e4", item_id="dune", event_kind=VIEW),
    )
    # The offset is told by a reader after the events are: it never runs ahead of them.
    features = wait_for_user(stub, lambda found: sum(found.event_counts.values()) == 4 and found.log_offset > 0)
    assert features.found
    assert list(features.history.item_ids) == ["brazil", "alien"]
    assert list(features.history.event_kinds) == [CLICK, RATING]
    assert list(features.history.event_times_ms) == [now - 3000, now - 1000]
    assert list(features.history.values) == [0.0, 4.5]
    assert sorted(features.seen_item_ids) == ["alien", "brazil"]
    assert list(features.dismissed_item_ids) == ["crash"]
    assert features.event_counts == {"rating": 1, "click": 1, "dismiss": 1, "view": 1}
    assert features.log_offset > 0
    newest = get_user(stub, history_count=1)
    assert list(newest.history.item_ids) == ["alien"]
    assert len(newest.seen_item_ids) == 2


def test_the_offset_moves_on_with_impressions_too(feedback: FeedbackServiceStub, stub: FeatureServiceStub) -> None:
    shown = [impression("r1", "alien"), impression("r2", "alien")]
    feedback.RecordImpressions(feedback_pb.RecordImpressionsRequest(scenario="video", impressions=shown))
    features = wait_for_user(stub, lambda found: found.log_offset > 0)
    assert not features.found


def test_attributes_and_erasure(feedback: FeedbackServiceStub, stub: FeatureServiceStub) -> None:
    users = [pb.User(user_id="anna", attributes={"age": "30"}), pb.User(user_id="bert")]
    assert stub.UpsertUsers(pb.UpsertUsersRequest(scenario="video", users=users)).upserted_count == 2
    record(feedback, event("e1"), event("e2", user_id="bert"))
    features = wait_for_user(stub, lambda found: found.event_counts["click"] == 1)
    assert features.attributes == {"age": "30"}
    assert not get_user(stub, scenario="music").found
    request = pb.DeleteUserRequest(scenario="video", user_id="anna")
    assert stub.DeleteUser(request).removed_count == 2
    assert stub.DeleteUser(request).removed_count == 0
    assert not get_user(stub).found
    assert wait_for_user(stub, lambda found: found.event_counts["click"] == 1, "bert").found


def test_items_come_back_as_they_were_and_only_changes_count(stub: FeatureServiceStub) -> None:
    full = Item(
        item_id="alien", title="Alien", description="In space", categories=["film", "horror"], brand="Fox", price=0.0,
        published_time_ms=-300_000_000_000, image="a.jpg", attributes={"year": "1979"}, retired=True,
    )  # fmt: skip
    bare = film("brazil")
    assert upsert(stub, [full], [bare, film("crash")]) == pb.UpsertItemsResponse(changed_count=3)
    assert upsert(stub, [full, film("crash", title="Crash")]) == pb.UpsertItemsResponse(
        changed_count=1, unchanged_count=1
    )
    answer = stub.BatchGetItemFeatures(
        pb.BatchGetItemFeaturesRequest(scenario="video", item_ids=["brazil", "nothing", "alien"])
    )
    assert list(answer.items) == [bare, full]
    assert list(answer.missing_item_ids) == ["nothing"]
    assert not answer.items[0].HasField("price")
    assert not answer.items[0].HasField("published_time_ms")
    assert upsert(stub) == pb.UpsertItemsResponse()


def test_a_scenario_may_accept_items_without_a_title(stub: FeatureServiceStub) -> None:
    assert upsert(stub, [Item(item_id="band")], scenario="music").changed_count == 1


def test_a_tail_of_items_answers_at_once_wakes_and_resumes(stub: FeatureServiceStub) -> None:
    tail = stub.TailItems(pb.TailItemsRequest(scenario="video"))
    assert next(tail) == pb.TailItemsResponse()
    upsert(stub, [film(f"i{number}") for number in range(600)])
    first, second = next(tail), next(tail)
    assert (len(first.items), len(second.items)) == (500, 100)
    assert second.offset == second.latest_offset
    upsert(stub, [film("i7", title="New"), film("i8")])
    third = next(tail)
    assert list(third.items) == [film("i7", title="New")]
    tail.cancel()
    assert len(read_items(stub)) == 600
    assert list(read_items(stub, after_offset=second.offset)) == [film("i7", title="New")]
    empty = next(stub.TailItems(pb.TailItemsRequest(scenario="video", after_offset=third.offset)))
    assert (len(empty.items), empty.offset, empty.latest_offset) == (0, third.offset, third.offset)


def test_it_serves_when_it_has_caught_up_and_goes_on_serving_without_the_log(
    idle_service: ServiceProcess, log: ServiceProcess
) -> None:
    with idle_service, log:
        log.wait_serving()
        with grpc.insecure_channel(log.address) as channel:
            record(FeedbackServiceStub(channel), event("e1"))
        idle_service.wait_serving()
        with grpc.insecure_channel(idle_service.address) as channel:
            stub = FeatureServiceStub(channel)
            wait_for_user(stub, lambda found: found.found)
            log.kill()
            assert get_user(stub).event_counts == {"click": 1}
            assert idle_service.serving()
            log.start()
            log.wait_serving()
            with grpc.insecure_channel(log.address) as log_channel:
                record(FeedbackServiceStub(log_channel), event("e2"))
            wait_for_user(stub, lambda found: found.event_counts["click"] == 2)
        assert 'recmesh_feature_log_connected{scenario="video"} 1.0' in idle_service.metrics()
        assert 'recmesh_feature_log_lag_records{scenario="video"} 0.0' in idle_service.metrics()
        assert 'recmesh_feature_last_event_age_seconds{scenario="video"}' in idle_service.metrics()


def test_it_is_not_serving_before_it_reached_the_log(idle_service: ServiceProcess) -> None:
    with idle_service:
        time.sleep(0.3)
        assert not idle_service.serving()
        assert idle_service.terminate() == 0


def test_kills_during_a_replay_neither_lose_nor_repeat_events(
    feedback: FeedbackServiceStub, idle_service: ServiceProcess
) -> None:
    def batch(start: int) -> feedback_pb.StreamFeedbackRequest:
        events = [event(f"e{n}", user_id=f"u{n % 50}", item_id=f"i{n}") for n in range(start, start + 500)]
        return feedback_pb.StreamFeedbackRequest(scenario="video", events=events)

    feedback.StreamFeedback(batch(start) for start in range(0, 10_000, 500))
    with idle_service:
        for delay_s in (0.0, 0.05, 0.15):
            time.sleep(delay_s)
            idle_service.kill()
            idle_service.start()
        idle_service.wait_serving()
        with grpc.insecure_channel(idle_service.address) as channel:
            stub = FeatureServiceStub(channel)
            for number in range(50):
                features = get_user(stub, f"u{number}")
                assert features.event_counts == {"click": 200}
                assert list(features.history.item_ids) == [f"i{n}" for n in range(number, 10_000, 50)]


LONG = "x" * 129
INF, NAN = float("inf"), float("nan")


def items_request(scenario: str = "video", **fields: Any) -> Callable[[], Iterator[pb.UpsertItemsRequest]]:
    items = [film("good"), film(**{"item_id": "bad", **fields})]
    return lambda: iter([pb.UpsertItemsRequest(scenario=scenario, items=items)])


def users_request(**fields: Any) -> Callable[[], pb.UpsertUsersRequest]:
    users = [pb.User(user_id="good"), pb.User(**{"user_id": "bad", **fields})]
    return lambda: pb.UpsertUsersRequest(scenario="video", users=users)


MALFORMED = [
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="film", user_id="a"), "NOT_FOUND", "scenario"),
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="video"), "INVALID_ARGUMENT", "user_id"),
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="video", user_id=LONG), "INVALID_ARGUMENT",
     "user_id"),
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="video", user_id="a", history_count=-1),
     "INVALID_ARGUMENT", "history_count"),
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="video", user_id="a", history_count=10_001),
     "INVALID_ARGUMENT", "history_count"),
    ("GetUserFeatures", lambda: pb.GetUserFeaturesRequest(scenario="video", user_id="x" * MAX_MESSAGE_BYTES),
     "RESOURCE_EXHAUSTED", "larger than max"),
    ("BatchGetItemFeatures", lambda: pb.BatchGetItemFeaturesRequest(scenario="film", item_ids=["a"]), "NOT_FOUND",
     "scenario"),
    ("BatchGetItemFeatures", lambda: pb.BatchGetItemFeaturesRequest(scenario="video"), "INVALID_ARGUMENT", "item_ids"),
    ("BatchGetItemFeatures", lambda: pb.BatchGetItemFeaturesRequest(scenario="video", item_ids=["a"] * 1001),
     "INVALID_ARGUMENT", "item_ids"),
    ("BatchGetItemFeatures", lambda: pb.BatchGetItemFeaturesRequest(scenario="video", item_ids=["a", ""]),
     "INVALID_ARGUMENT", "item_ids[1]"),
    ("UpsertItems", items_request("film"), "NOT_FOUND", "scenario"),
    ("UpsertItems", lambda: iter([pb.UpsertItemsRequest(scenario="video")]), "INVALID_ARGUMENT", "items"),
    ("UpsertItems", lambda: iter([pb.UpsertItemsRequest(scenario="video", items=[film(f"i{n}") for n in range(1001)])]),
     "INVALID_ARGUMENT", "items"),
    ("UpsertItems", items_request(item_id=""), "INVALID_ARGUMENT", "items[1].item_id"),
    ("UpsertItems", items_request(item_id=LONG), "INVALID_ARGUMENT", "items[1].item_id"),
    ("UpsertItems", items_request(item_id="a\tb"), "INVALID_ARGUMENT", "items[1].item_id"),
    ("UpsertItems", items_request(title=""), "INVALID_ARGUMENT", "items[1].title"),
    ("UpsertItems", items_request(title=" \n"), "INVALID_ARGUMENT", "items[1].title"),
    ("UpsertItems", items_request(title="x" * 1001), "INVALID_ARGUMENT", "items[1].title"),
    ("UpsertItems", items_request(description="x" * 20_001), "INVALID_ARGUMENT", "items[1].description"),
    ("UpsertItems", items_request(categories=["c"] * 65), "INVALID_ARGUMENT", "items[1].categories"),
    ("UpsertItems", items_request(categories=["c", ""]), "INVALID_ARGUMENT", "items[1].categories[1]"),
    ("UpsertItems", items_request(categories=["x" * 129]), "INVALID_ARGUMENT", "items[1].categories[0]"),
    ("UpsertItems", items_request(brand="x" * 1001), "INVALID_ARGUMENT", "items[1].brand"),
    ("UpsertItems", items_request(price=NAN), "INVALID_ARGUMENT", "items[1].price"),
    ("UpsertItems", items_request(price=INF), "INVALID_ARGUMENT", "items[1].price"),
    ("UpsertItems", items_request(price=-0.01), "INVALID_ARGUMENT", "items[1].price"),
    ("UpsertItems", items_request(published_time_ms=-62_135_596_800_001), "INVALID_ARGUMENT",
     "items[1].published_time_ms"),
    ("UpsertItems", items_request(published_time_ms=2**62), "INVALID_ARGUMENT", "items[1].published_time_ms"),
    ("UpsertItems", items_request(image="x" * 2049), "INVALID_ARGUMENT", "items[1].image"),
    ("UpsertItems", items_request(attributes={f"a{n}": "" for n in range(65)}), "INVALID_ARGUMENT",
     "items[1].attributes"),
    ("UpsertItems", items_request(attributes={"": "x"}), "INVALID_ARGUMENT", "items[1].attributes (a name)"),
    ("UpsertItems", items_request(attributes={"a": "x" * 1001}), "INVALID_ARGUMENT", "items[1].attributes['a']"),
    ("UpsertItems", items_request(description="x" * MAX_MESSAGE_BYTES), "RESOURCE_EXHAUSTED", "larger than max"),
    ("UpsertUsers", lambda: pb.UpsertUsersRequest(scenario="film", users=[pb.User(user_id="a")]), "NOT_FOUND",
     "scenario"),
    ("UpsertUsers", lambda: pb.UpsertUsersRequest(scenario="video"), "INVALID_ARGUMENT", "users"),
    ("UpsertUsers", lambda: pb.UpsertUsersRequest(scenario="video", users=[pb.User(user_id="a")] * 1001),
     "INVALID_ARGUMENT", "users"),
    ("UpsertUsers", users_request(user_id=""), "INVALID_ARGUMENT", "users[1].user_id"),
    ("UpsertUsers", users_request(user_id=LONG), "INVALID_ARGUMENT", "users[1].user_id"),
    ("UpsertUsers", users_request(attributes={f"a{n}": "" for n in range(65)}), "INVALID_ARGUMENT",
     "users[1].attributes"),
    ("UpsertUsers", users_request(attributes={"a": "x" * 1001}), "INVALID_ARGUMENT", "users[1].attributes['a']"),
    ("TailItems", lambda: pb.TailItemsRequest(scenario="film"), "NOT_FOUND", "scenario"),
    ("TailItems", lambda: pb.TailItemsRequest(scenario="video", after_offset=-1), "INVALID_ARGUMENT", "after_offset"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="film", user_id="a"), "NOT_FOUND", "scenario"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="video"), "INVALID_ARGUMENT", "user_id"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="video", user_id=LONG), "INVALID_ARGUMENT", "user_id"),
]  # fmt: skip


def first_answer(answer: Any) -> None:
    """Streams tell of a bad request when they are read."""
    if isinstance(answer, Iterator):
        next(answer)


def test_malformed_requests_are_refused_with_the_field_and_write_nothing(stub: FeatureServiceStub) -> None:
    for method, make, code, field in MALFORMED:
        with pytest.raises(grpc.RpcError) as raised:
            first_answer(getattr(stub, method)(make(), timeout=30))
        shown = f"{method} {field}: {raised.value.code()} {raised.value.details()}"
        assert raised.value.code().name == code, shown
        text = raised.value.details().lower()
        assert text.startswith(f"{field}:") or (code == "RESOURCE_EXHAUSTED" and field in text), shown
    assert read_items(stub) == []
    assert not get_user(stub, "good").found


def test_a_bad_batch_ends_the_stream_and_keeps_those_before_it(stub: FeatureServiceStub) -> None:
    with pytest.raises(grpc.RpcError, match=r"items\[1\].title"):
        upsert(stub, [film("a")], [film("b"), film("c", title="")], [film("d")])
    assert [item.item_id for item in read_items(stub)] == ["a"]


def test_one_stream_writes_one_scenario(stub: FeatureServiceStub) -> None:
    requests = [pb.UpsertItemsRequest(scenario=name, items=[film("a")]) for name in ("video", "music")]
    with pytest.raises(grpc.RpcError, match="scenario: is 'music' after 'video'"):
        stub.UpsertItems(iter(requests))
    assert stub.UpsertItems(iter(requests[1:])).changed_count == 1


def test_a_full_store_refuses_and_keeps_what_it_has(
    feedback: FeedbackServiceStub, log: ServiceProcess, tmp_path: Path
) -> None:
    settings = {
        "scenario_files": [scenario_file(tmp_path)],
        "store": {"path": str(tmp_path / "small"), "map_bytes": 1024**2},
        "feedback": {"address": log.address},
    }
    big = "x" * 20_000
    with ServiceProcess("feature", settings, tmp_path) as service, grpc.insecure_channel(service.address) as channel:
        stub = FeatureServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="map_bytes") as raised:
            upsert(stub, *([film(f"i{n}", description=big)] for n in range(100)))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        kept = read_items(stub)
        assert 0 < len(kept) < 100
        assert {len(item.description) for item in kept} == {20_000}


def test_sigterm_ends_open_tails_and_exits_clean(service: ServiceProcess, stub: FeatureServiceStub) -> None:
    tail = stub.TailItems(pb.TailItemsRequest(scenario="video"), timeout=120)
    next(tail)
    ended = threading.Thread(target=lambda: list(tail), daemon=True)
    ended.start()
    assert service.terminate() == 0
    ended.join(30)
    assert not ended.is_alive()
    assert '"stopped"' in service.log


def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path: Path) -> None:
    settings = {"scenario_files": ["none.yaml"], "store": {"path": "x"}, "feedback": {"adress": "x"}}
    service = ServiceProcess("feature", settings, tmp_path)
    assert service.launch().wait(60) == 2
    assert "feedback.adress: unknown setting" in service.log
