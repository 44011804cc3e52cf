"""Closed examples of a real process: written, exported, erased, and expired."""

from pathlib import Path

import grpc
import pyarrow.dataset
import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.feedback.sqlite_store import SqliteEventLog
from tests.integration.test_feedback import counters, export, read_log, record, show
from tests.integration.test_feedback_engines import on_jetstream, on_sqlite
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, impression, now_ms
from tests.support.waiting import wait_for

HOUR_MS = 3_600_000
SETTINGS = {"attribution_window_s": 60, "late_arrival_s": 0, "impression_wait_s": 1, "close_interval_s": 0.05}


def start(engine: str, folder: Path, request: pytest.FixtureRequest, **feedback: float) -> ServiceProcess:
    if engine == "sqlite":
        return on_sqlite(folder, **SETTINGS, **feedback)
    return on_jetstream(folder, request.getfixturevalue("nats"), **SETTINGS, **feedback)


@pytest.fixture
def nats(tmp_path: Path):
    with NatsProcess(tmp_path) as server:
        yield server


ENGINES = pytest.mark.parametrize("engine", ["sqlite", pytest.param("jetstream", marks=needs_nats)])


def place(service: ServiceProcess) -> Path:
    return Path(service.settings["store"]["path"]) / "video"


def in_files(service: ServiceProcess) -> list[tuple[str, str]]:
    folder = place(service) / "examples"
    if not folder.is_dir():
        return []
    table = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
    return sorted((row["user_id"], row["request_id"]) for row in table.to_pylist())


def closed_count(service: ServiceProcess) -> float:
    return counters(service).get('recmesh_feedback_closed_examples_total{scenario="video"}', 0)


@ENGINES
def test_examples_move_to_files_and_users_leave_them(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    old = now_ms() - HOUR_MS
    with start(engine, tmp_path, request) as service:
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            users = {"r1": "user-to-erase", "r2": "bert", "r3": "user-to-erase"}
            for number, (request_id, user_id) in enumerate(users.items()):
                # The third is of the day before: a file of its own.
                served = old - 24 * HOUR_MS * (number // 2)
                show(stub, impression(request_id, "alien", user_id=user_id, served_time_ms=served))
            show(stub, impression("r4", "alien", user_id="user-to-erase"))
            wait_for(lambda: closed_count(service) == 3)
            assert in_files(service) == [("bert", "r2"), ("user-to-erase", "r1"), ("user-to-erase", "r3")]
            assert [row[0] for row in export(stub)] == ["r3", "r1", "r2", "r4"]
            record(stub, event("late", user_id="bert", request_id="r2", event_time_ms=old))
            series = 'recmesh_feedback_events_total{event="click",outcome="late",scenario="video"}'
            wait_for(lambda: counters(service).get(series) == 1)
            erase = pb.DeleteUserRequest(scenario="video", user_id="user-to-erase")
            assert stub.DeleteUser(erase).removed_count == 6, "three impressions, three examples"
            assert stub.DeleteUser(erase).removed_count == 0
            assert in_files(service) == [("bert", "r2")]
            assert [row[0] for row in export(stub)] == ["r2"]
        for path in place(service).rglob("*"):
            assert path.is_dir() or b"user-to-erase" not in path.read_bytes(), path


async def test_an_erasure_that_a_kill_interrupted_is_ended_by_the_next_start(tmp_path: Path) -> None:
    with on_sqlite(tmp_path, **SETTINGS) as service:
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            for request_id, user_id in (("r1", "anna"), ("r2", "bert")):
                show(stub, impression(request_id, "alien", user_id=user_id, served_time_ms=now_ms() - HOUR_MS))
            record(stub, event("e1", user_id="anna"))
            wait_for(lambda: closed_count(service) == 2)
        service.kill()
        # What the process leaves that is killed after the log and before the examples.
        log = SqliteEventLog(place(service), 100)
        assert (await log.delete_user("anna", now_ms())).removed_count == 2
        await log.close()
        assert ("anna", "r1") in in_files(service)
        service.start()
        service.wait_serving()
        wait_for(lambda: in_files(service) == [("bert", "r2")])
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            users = [entry.impression.user_id for entry in read_log(stub) if entry.HasField("impression")]
            assert users == ["bert"]
            assert [row[0] for row in export(stub)] == ["r2"]


@ENGINES
def test_closed_examples_go_after_the_retention(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    # About nine seconds.
    with start(engine, tmp_path, request, retention_days=1e-4) as service:
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            show(stub, impression("r1", "alien", served_time_ms=now_ms() - HOUR_MS))
            wait_for(lambda: closed_count(service) == 1)
            wait_for(lambda: not any((place(service) / "examples").iterdir()))
            wait_for(lambda: export(stub) == [])
            assert closed_count(service) == 1, "counters stay"
