"""The feedback service as a real process: on JetStream through its outages, and retention on both engines."""

import asyncio
import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from tests.integration.test_feedback import counters, export, read_log, record, show
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.service_process import ServiceProcess
from tests.support.stores import SCENARIOS, event, impression
from tests.support.waiting import until, wait_for


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsProcess]:
    with NatsProcess(tmp_path) as server:
        yield server


def scenarios_file(folder: Path, **feedback: float) -> str:
    scenarios = copy.deepcopy(SCENARIOS)
    scenarios["video"]["feedback"] = feedback
    path = folder / "scenarios.yaml"
    path.write_text(yaml.safe_dump({"scenarios": scenarios}))
    return str(path)


def on_jetstream(folder: Path, nats: NatsProcess, name: str = "feedback", **feedback: float) -> ServiceProcess:
    (folder / name).mkdir(exist_ok=True)
    store = {"engine": "jetstream", "path": str(folder / name / "examples"), "servers": [nats.url]}
    settings = {"scenario_files": [scenarios_file(folder, **feedback)], "store": store}
    return ServiceProcess("feedback", settings, folder / name)


def on_sqlite(folder: Path, **feedback: float) -> ServiceProcess:
    store = {"engine": "sqlite", "path": str(folder / "feedback")}
    return ServiceProcess("feedback", {"scenario_files": [scenarios_file(folder, **feedback)], "store": store}, folder)


@needs_nats
async def test_kills_of_the_server_and_the_service_lose_and_double_nothing(tmp_path: Path, nats: NatsProcess) -> None:
    answers = [impression(f"r{number}", "alien", "brazil", user_id=f"u{number}") for number in range(1_000)]
    clicks = [event(f"e{n}", user_id=f"u{n}", item_id="brazil", request_id=f"r{n}") for n in range(0, 1_000, 2)]
    requests: list[Any] = [
        pb.RecordImpressionsRequest(scenario="video", impressions=answers[start : start + 10])
        for start in range(0, len(answers), 10)
    ]
    requests += [
        pb.RecordFeedbackRequest(scenario="video", events=clicks[start : start + 5])
        for start in range(0, len(clicks), 5)
    ]
    acknowledged: set[str] = set()
    failures: list[grpc.aio.AioRpcError] = []
    waiting = iter(requests)

    async def send(stub: FeedbackServiceStub) -> None:
        for request in waiting:
            impressions = isinstance(request, pb.RecordImpressionsRequest)
            call = stub.RecordImpressions if impressions else stub.RecordFeedback
            # What a client does that must not lose anything: send it again until it is acknowledged.
            while True:
                try:
                    await call(request, timeout=60)
                    break
                except grpc.aio.AioRpcError as error:
                    failures.append(error)
                    await asyncio.sleep(0.05)
            acknowledged.update(
                [shown.request_id for shown in request.impressions]
                if impressions
                else [e.event_id for e in request.events]
            )

    with on_jetstream(tmp_path, nats) as service:
        service.wait_serving()
        async with grpc.aio.insecure_channel(service.address) as channel:
            senders = [asyncio.create_task(send(FeedbackServiceStub(channel))) for _ in range(4)]
            for count in (200, 900):
                await until(lambda count=count: len(acknowledged) >= count)
                nats.kill()
                await asyncio.sleep(0.3)
                nats.start()
            await asyncio.wait_for(asyncio.gather(*senders), 120)
        assert failures, "the kills came in the middle"
        assert {failure.code() for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
        assert all(dict(failure.trailing_metadata())["retry-after-ms"] for failure in failures)
        service.kill()
        service.start()
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            found = Counter(
                entry.impression.request_id if entry.HasField("impression") else entry.feedback.event_id
                for entry in read_log(stub)
            )
            assert found == dict.fromkeys(acknowledged, 1)
            clicked = [row[0] for row in export(stub) if row[2]]
            assert sorted(clicked) == sorted(click.request_id for click in clicks)
        labels = 'model_version="m1",scenario="video",source="ann"'
        assert counters(service)[f"recmesh_feedback_impressions_total{{{labels}}}"] == 2_000
        assert counters(service)[f"recmesh_feedback_clicks_total{{{labels}}}"] == 500


@needs_nats
def test_an_outage_is_told_and_ends_by_itself(tmp_path: Path, nats: NatsProcess) -> None:
    with on_jetstream(tmp_path, nats) as service:
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            show(stub, impression("r1", "alien"))
            tail = stub.TailEvents(pb.TailEventsRequest(scenario="video"))
            assert next(tail).records[0].impression.request_id == "r1"
            nats.kill()
            with pytest.raises(grpc.RpcError) as raised:
                record(stub, event("e1", request_id="r1"))
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert dict(raised.value.trailing_metadata())["retry-after-ms"]
            wait_for(lambda: not service.serving())
            nats.start()
            service.wait_serving()
            assert record(stub, event("e1", request_id="r1")).accepted_count == 1
            assert next(tail).records[0].feedback.event_id == "e1", "the tail outlives the outage"
            wait_for(lambda: export(stub) == [("r1", "alien", True, False, 0.0)])
        assert service.terminate() == 0


@needs_nats
def test_a_second_service_on_the_same_log_hears_of_appends(tmp_path: Path, nats: NatsProcess) -> None:
    with on_jetstream(tmp_path, nats, "one") as one, on_jetstream(tmp_path, nats, "other") as other:
        one.wait_serving()
        other.wait_serving()
        with grpc.insecure_channel(one.address) as channel, grpc.insecure_channel(other.address) as other_channel:
            stub, other_stub = FeedbackServiceStub(channel), FeedbackServiceStub(other_channel)
            tail = other_stub.TailEvents(pb.TailEventsRequest(scenario="video"), timeout=60)
            assert next(tail) == pb.TailEventsResponse()
            show(stub, impression("r1", "alien"))
            assert next(tail).records[0].impression.request_id == "r1"
            assert show(other_stub, impression("r1", "alien")).duplicate_count == 1


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("jetstream", marks=needs_nats)])
def test_records_and_examples_go_after_the_retention_and_who_missed_them_is_counted(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    def start(**feedback: float) -> ServiceProcess:
        if engine == "sqlite":
            return on_sqlite(tmp_path, **feedback)
        return on_jetstream(tmp_path, request.getfixturevalue("nats"), **feedback)

    # About two seconds.
    with start(retention_days=2.5e-5) as service:
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            show(stub, impression("r1", "alien"))
            record(stub, event("e1", request_id="r1"), event("e2"), event("e3", item_id="unknown"))
            wait_for(lambda: not read_log(stub))
            wait_for(lambda: export(stub) == [])
            record(stub, event("e4"))
            assert [entry.feedback.event_id for entry in read_log(stub, after_offset=2)] == ["e4"]
            missed = 'recmesh_feedback_missed_offsets_total{consumer="tail",scenario="video"}'
            assert counters(service)[missed] >= 2
            assert "a consumer is further behind than the retention" in service.log
            shown = 'recmesh_feedback_impressions_total{model_version="m1",scenario="video",source="ann"}'
            assert counters(service)[shown] == 1, "counters stay"
