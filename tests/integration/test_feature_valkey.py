"""The feature service as real processes on a real Valkey, fed by a real feedback service; anything may be killed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from recmesh.feature.v1 import feature_service_pb2 as pb
from recmesh.feature.v1.feature_service_pb2_grpc import FeatureServiceStub
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.type.v1.item_pb2 import Item
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, scenario_file
from tests.support.valkey_process import ValkeyProcess, needs_valkey
from tests.support.waiting import wait_for

pytestmark = needs_valkey

USERS, EVENTS, BATCH = 50, 10_000, 500


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path / "valkey", appendfsync="everysec") as process:
        yield process


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ServiceProcess]:
    settings = {"scenario_files": [scenario_file(tmp_path)], "store": {"path": str(tmp_path / "feedback")}}
    with ServiceProcess("feedback", settings, tmp_path) as process:
        process.wait_serving()
        yield process


@pytest.fixture
def services(tmp_path: Path, server: ValkeyProcess, log: ServiceProcess) -> list[ServiceProcess]:
    """Two processes of the feature service, not started."""
    settings = {
        "scenario_files": [scenario_file(tmp_path)],
        # Long, since a busy machine answers late; a server that is not there refuses at once.
        "store": {
            "engine": "valkey",
            "addresses": [server.address],
            "timeout_ms": 30_000,
            "durable_timeout_ms": 30_000,
        },
        "feedback": {"address": log.address},
    }
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    return [ServiceProcess("feature", settings, folder) for folder in folders]


def write_events(log: ServiceProcess) -> None:
    def batch(start: int) -> feedback_pb.StreamFeedbackRequest:
        events = [event(f"e{n}", user_id=f"u{n % USERS}", item_id=f"i{n}") for n in range(start, start + BATCH)]
        return feedback_pb.StreamFeedbackRequest(scenario="video", events=events)

    with grpc.insecure_channel(log.address) as channel:
        FeedbackServiceStub(channel).StreamFeedback(batch(start) for start in range(0, EVENTS, BATCH))


def record(log: ServiceProcess, *events: feedback_pb.Feedback) -> None:
    with grpc.insecure_channel(log.address) as channel:
        FeedbackServiceStub(channel).RecordFeedback(feedback_pb.RecordFeedbackRequest(scenario="video", events=events))


def get_user(service: ServiceProcess, user_id: str = "anna") -> pb.GetUserFeaturesResponse:
    with grpc.insecure_channel(service.address) as channel:
        request = pb.GetUserFeaturesRequest(scenario="video", user_id=user_id)
        return FeatureServiceStub(channel).GetUserFeatures(request, timeout=30)


def clicks(service: ServiceProcess, user_id: str = "anna") -> int:
    return get_user(service, user_id).event_counts["click"]


def upsert(service: ServiceProcess, *items: Item) -> Any:
    with grpc.insecure_channel(service.address) as channel:
        return FeatureServiceStub(channel).UpsertItems(iter([pb.UpsertItemsRequest(scenario="video", items=items)]))


def check_all_counted_once(service: ServiceProcess) -> None:
    for number in range(USERS):
        features = get_user(service, f"u{number}")
        assert features.event_counts == {"click": EVENTS // USERS}
        assert list(features.history.item_ids) == [f"i{n}" for n in range(number, EVENTS, USERS)]


def test_events_become_features_and_interests(services: list[ServiceProcess], log: ServiceProcess) -> None:
    with services[0] as service:
        service.wait_serving()
        upsert(service, Item(item_id="alien", title="Alien", categories=["film", "horror"]))
        record(log, event("e1"), event("e2", item_id="unknown"))
        wait_for(lambda: clicks(service) == 2)
        features = get_user(service)
        assert list(features.history.item_ids) == ["alien", "unknown"]
        assert list(features.interests.categories) == ["film", "horror"]
        assert list(features.interests.weights) == pytest.approx([1.0, 1.0], rel=1e-3)
        assert service.terminate() == 0


def test_a_killed_server_is_unavailable_and_nothing_is_lost_or_doubled_afterwards(
    services: list[ServiceProcess], log: ServiceProcess, server: ValkeyProcess
) -> None:
    with services[0] as service:
        service.wait_serving()
        record(log, event("e1"))
        wait_for(lambda: clicks(service) == 1)
        server.kill()
        with pytest.raises(grpc.RpcError) as raised:
            get_user(service)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        record(log, event("e2"), event("e3"))
        wait_for(lambda: 'recmesh_feature_store_connected{scenario="video"} 0.0' in service.metrics())
        assert service.serving()
        server.start()
        wait_for(lambda: 'recmesh_feature_store_connected{scenario="video"} 1.0' in service.metrics())

        def has_all() -> bool:
            try:
                return clicks(service) == 3
            except grpc.RpcError:
                return False

        wait_for(has_all)
        record(log, event("e4"))
        wait_for(lambda: clicks(service) == 4)


def test_kills_of_either_service_and_of_the_server_during_a_replay_count_each_event_once(
    services: list[ServiceProcess], log: ServiceProcess, server: ValkeyProcess
) -> None:
    write_events(log)
    with services[0] as first, services[1] as second:
        for delay_s, victim in ((0.0, first), (0.05, second), (0.15, server), (0.1, first), (0.3, server)):
            time.sleep(delay_s)
            victim.kill()
            victim.start()
        for service in services:
            service.wait_serving()
            wait_for(lambda service=service: get_user(service).log_offset >= EVENTS)  # type: ignore[misc]
        check_all_counted_once(first)
        check_all_counted_once(second)


def test_a_tail_of_items_at_one_process_shows_what_another_wrote(services: list[ServiceProcess]) -> None:
    with services[0] as first, services[1] as second:
        first.wait_serving()
        second.wait_serving()
        with grpc.insecure_channel(second.address) as channel:
            tail = FeatureServiceStub(channel).TailItems(pb.TailItemsRequest(scenario="video"))
            assert next(tail) == pb.TailItemsResponse()
            upsert(first, Item(item_id="a", title="A"))
            answer = next(tail)
            assert ([item.item_id for item in answer.items], answer.offset, answer.latest_offset) == (["a"], 1, 1)
            tail.cancel()


def test_it_is_not_serving_before_it_reached_the_store(services: list[ServiceProcess], server: ValkeyProcess) -> None:
    server.kill()
    with services[0] as service:
        wait_for(lambda: "feature store" in service.log or '"health"' in service.log)
        assert not service.serving()
        server.start()
        service.wait_serving()
