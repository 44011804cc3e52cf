"""The feedback service as a real process."""

import asyncio
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from services.feedback.erased_users import GRACE_MS
from services.runtime.pseudonym import erasure_digest
from tests.support.service_process import ServiceProcess
from tests.support.stores import SCENARIOS, event, impression, now_ms, scenario_file
from tests.support.waiting import until

MAX_MESSAGE_BYTES = 512 * 1024
RATING, VIEW, PLAY = 8, 1, 3


def make_service(folder: Path, scenarios: str = "") -> ServiceProcess:
    settings = {
        "server": {"max_message_bytes": MAX_MESSAGE_BYTES},
        "scenario_files": [scenarios or scenario_file(folder)],
        "store": {"engine": "sqlite", "path": str(folder / "feedback")},
    }
    return ServiceProcess("feedback", settings, folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    with make_service(tmp_path) as service:
        service.wait_serving()
        yield service


@pytest.fixture
def stub(service: ServiceProcess) -> Iterator[FeedbackServiceStub]:
    with grpc.insecure_channel(service.address) as channel:
        yield FeedbackServiceStub(channel)


def read_log(stub: FeedbackServiceStub, scenario: str = "video", **fields: int) -> list[pb.LogRecord]:
    """All records from where `fields` start to the end of the log now."""
    records: list[pb.LogRecord] = []
    call = stub.TailEvents(pb.TailEventsRequest(scenario=scenario, **fields), timeout=60)
    for response in call:
        records += response.records
        if not response.records or response.records[-1].offset >= response.latest_offset:
            call.cancel()
            break
    return records


def record(stub: FeedbackServiceStub, *events: pb.Feedback) -> pb.RecordFeedbackResponse:
    return stub.RecordFeedback(pb.RecordFeedbackRequest(scenario="video", events=events))


def show(stub: FeedbackServiceStub, *impressions: pb.Impression) -> pb.RecordImpressionsResponse:
    return stub.RecordImpressions(pb.RecordImpressionsRequest(scenario="video", impressions=impressions))


def export(stub: FeedbackServiceStub, **fields: int) -> list[tuple[str, str, bool, bool, float]]:
    rows = []
    for page in stub.ExportExamples(pb.ExportExamplesRequest(scenario="video", **fields), timeout=60):
        columns = (page.request_ids, page.item_ids, page.clicked, page.converted, page.ratings)
        rows += zip(*columns, strict=True)
    return rows


def counters(service: ServiceProcess) -> dict[str, float]:
    lines = [line for line in service.metrics().splitlines() if re.match(r"recmesh_feedback_\w+_total\{", line)]
    return {series: float(value) for series, value in (line.rsplit(" ", 1) for line in lines)}


def test_records_are_logged_once_and_come_back_as_they_were(stub: FeedbackServiceStub) -> None:
    shown = impression("r1", "alien", "brazil")
    rated = event("e1", event_kind=RATING, value=4.5, request_id="r1", position=0)
    bare = event("e2", event_time_ms=0)
    assert show(stub, shown, shown) == pb.RecordImpressionsResponse(accepted_count=1, duplicate_count=1)
    assert record(stub, rated, bare) == pb.RecordFeedbackResponse(accepted_count=2)
    assert record(stub, rated) == pb.RecordFeedbackResponse(duplicate_count=1)
    records = read_log(stub)
    assert [entry.WhichOneof("record") for entry in records] == ["impression", "feedback", "feedback"]
    assert records[0].impression == shown
    assert [entry.feedback for entry in records[1:]] == [rated, bare]
    assert not records[2].feedback.HasField("value")
    assert not records[2].feedback.HasField("position")


def test_a_stream_counts_all_its_batches(stub: FeedbackServiceStub) -> None:
    batches = [
        pb.StreamFeedbackRequest(scenario="video", events=[event(f"e{number}") for number in range(start, start + 500)])
        for start in (0, 400, 800)
    ]
    answer = stub.StreamFeedback(iter(batches))
    assert answer == pb.StreamFeedbackResponse(accepted_count=1300, duplicate_count=200)
    assert len(read_log(stub)) == 1300
    assert stub.StreamFeedback(iter([])) == pb.StreamFeedbackResponse()


def test_a_bad_batch_ends_its_stream_and_keeps_those_before_it(stub: FeedbackServiceStub) -> None:
    good = pb.StreamFeedbackRequest(scenario="video", events=[event("e1")])
    bad = pb.StreamFeedbackRequest(scenario="video", events=[event("e2"), event("")])
    with pytest.raises(grpc.RpcError) as raised:
        stub.StreamFeedback(iter([good, bad, good]))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "events[1].event_id" in raised.value.details()
    assert [entry.feedback.event_id for entry in read_log(stub)] == ["e1"]


def test_a_tail_answers_at_once_wakes_on_an_append_and_starts_where_asked(stub: FeedbackServiceStub) -> None:
    tail = stub.TailEvents(pb.TailEventsRequest(scenario="video"))
    assert next(tail) == pb.TailEventsResponse()
    record(stub, *(event(f"e{number}") for number in range(1000)))
    first, second = next(tail), next(tail)
    assert (len(first.records), len(second.records)) == (500, 500)
    offsets = [entry.offset for entry in [*first.records, *second.records]]
    assert offsets == sorted(set(offsets))
    assert second.latest_offset == offsets[-1]
    show(stub, impression("r1", "alien"))
    assert next(tail).records[0].impression.request_id == "r1"
    tail.cancel()
    assert len(read_log(stub, last_record_count=3)) == 3
    assert len(read_log(stub, last_record_count=3, after_offset=offsets[-1])) == 1, "the later start counts"
    assert len(read_log(stub, last_record_count=5000)) == 1001
    assert read_log(stub, after_offset=offsets[-1] + 100) == []


def test_scenarios_do_not_see_each_other(stub: FeedbackServiceStub) -> None:
    record(stub, event("e1"))
    played = stub.RecordFeedback(pb.RecordFeedbackRequest(scenario="music", events=[event("e1", event_kind=PLAY)]))
    assert played.accepted_count == 1
    assert [entry.feedback.event_kind for entry in read_log(stub, "music")] == [PLAY]
    assert stub.DeleteUser(pb.DeleteUserRequest(scenario="music", user_id="anna")).removed_count == 1
    assert len(read_log(stub)) == 1


def test_what_users_do_labels_what_they_were_shown_and_counts(
    service: ServiceProcess, stub: FeedbackServiceStub
) -> None:
    record(stub, event("early", item_id="crash", request_id="r1"))
    show(stub, impression("r1", "alien", "brazil", "crash", sources=["ann", "cf", "cf"]), impression("r2", "alien"))
    record(
        stub,
        event("e1", item_id="brazil", request_id="r1", event_kind=RATING, value=4.5),
        event("e2", item_id="brazil", request_id="r1"),
        event("e3", item_id="alien"),
        event("e4", item_id="alien", event_kind=VIEW),
        event("e5", item_id="dune", event_time_ms=1),
    )
    assert export(stub) == [
        ("r1", "alien", False, False, 0.0),
        ("r1", "brazil", True, True, 4.5),
        ("r1", "crash", True, False, 0.0),
        ("r2", "alien", True, False, 0.0),
    ]
    assert export(stub, start_time_ms=now_ms() + 1000) == []
    assert export(stub, end_time_ms=1) == []
    expected = {
        'recmesh_feedback_impressions_total{model_version="m1",scenario="video",source="ann"}': 2,
        'recmesh_feedback_impressions_total{model_version="m1",scenario="video",source="cf"}': 2,
        'recmesh_feedback_clicks_total{model_version="m1",scenario="video",source="ann"}': 1,
        'recmesh_feedback_clicks_total{model_version="m1",scenario="video",source="cf"}': 2,
        'recmesh_feedback_conversions_total{model_version="m1",scenario="video",source="ann"}': 0,
        'recmesh_feedback_conversions_total{model_version="m1",scenario="video",source="cf"}': 1,
        'recmesh_feedback_events_total{event="click",outcome="attributed",scenario="video"}': 2,
        'recmesh_feedback_events_total{event="click",outcome="repeated",scenario="video"}': 1,
        'recmesh_feedback_events_total{event="click",outcome="orphan",scenario="video"}': 1,
        'recmesh_feedback_events_total{event="view",outcome="unlabelled",scenario="video"}': 1,
    }
    before = counters(service)
    assert expected.items() <= before.items()
    service.kill()
    service.start()
    service.wait_serving()
    assert expected.items() <= counters(service).items()


def test_an_erased_user_is_gone_from_the_log_the_examples_and_the_files(
    service: ServiceProcess, stub: FeedbackServiceStub, tmp_path: Path
) -> None:
    show(stub, impression("r1", "alien", user_id="user-to-erase"), impression("r2", "alien", user_id="bert"))
    record(stub, event("e1", user_id="user-to-erase"), event("e2", user_id="user-to-erase", item_id="never shown"))
    export(stub)
    request = pb.DeleteUserRequest(scenario="video", user_id="user-to-erase")
    removed = stub.DeleteUser(request)
    assert (removed.record_count, removed.example_count) == (3, 1), "two events, an impression; an example"
    assert removed.removed_count == 4
    assert stub.DeleteUser(request).removed_count == 0
    kept, erasure = read_log(stub)
    assert kept.impression.user_id == "bert"
    assert erasure.erasure.user_digest == erasure_digest("user-to-erase")
    assert [row[0] for row in export(stub)] == ["r2"]
    for path in (tmp_path / "feedback" / "video").iterdir():
        assert b"user-to-erase" not in path.read_bytes(), path
    late = record(stub, event("e1", user_id="user-to-erase"), event("e3", user_id="bert"))
    assert (late.accepted_count, late.dropped_count) == (1, 1), "what was on its way brings nobody back"
    assert 'recmesh_feedback_dropped_total{reason="erased",record="feedback",scenario="video"} 1.0' in service.metrics()
    back = event("e1", user_id="user-to-erase", event_time_ms=now_ms() + 2 * GRACE_MS)
    assert record(stub, back).accepted_count == 1, "a user may come back"


LONG = "x" * 129
YEAR_1_MS = -62_135_596_800_000


def feedback_request(scenario: str = "video", **fields: object) -> Callable[[], pb.RecordFeedbackRequest]:
    return lambda: pb.RecordFeedbackRequest(
        scenario=scenario, events=[event("good"), event(**{"event_id": "bad", **fields})]
    )


def impressions_request(
    *item_ids: str, request_id: str = "bad", **fields: object
) -> Callable[[], pb.RecordImpressionsRequest]:
    shown = item_ids or ("alien", "brazil")
    return lambda: pb.RecordImpressionsRequest(
        scenario="video",
        impressions=[impression("good", "alien"), impression(request_id, *shown, **fields)],
    )


MALFORMED = [
    ("RecordFeedback", feedback_request("film"), "NOT_FOUND", "scenario"),
    ("RecordFeedback", feedback_request(""), "NOT_FOUND", "scenario"),
    ("RecordFeedback", lambda: pb.RecordFeedbackRequest(scenario="video"), "INVALID_ARGUMENT", "events"),
    ("RecordFeedback", lambda: pb.RecordFeedbackRequest(scenario="video", events=[event(f"e{n}") for n in range(1001)]),
     "INVALID_ARGUMENT", "events"),
    ("RecordFeedback", feedback_request(event_id=""), "INVALID_ARGUMENT", "events[1].event_id"),
    ("RecordFeedback", feedback_request(event_id=LONG), "INVALID_ARGUMENT", "events[1].event_id"),
    ("RecordFeedback", feedback_request(event_id="a\nb"), "INVALID_ARGUMENT", "events[1].event_id"),
    ("RecordFeedback", feedback_request(user_id=""), "INVALID_ARGUMENT", "events[1].user_id"),
    ("RecordFeedback", feedback_request(user_id="é" * 65), "INVALID_ARGUMENT", "events[1].user_id"),
    ("RecordFeedback", feedback_request(item_id=" x"), "INVALID_ARGUMENT", "events[1].item_id"),
    ("RecordFeedback", feedback_request(request_id=LONG), "INVALID_ARGUMENT", "events[1].request_id"),
    ("RecordFeedback", feedback_request(event_kind=0), "INVALID_ARGUMENT", "events[1].event_kind"),
    ("RecordFeedback", feedback_request(event_kind=PLAY), "INVALID_ARGUMENT", "events[1].event_kind"),
    ("RecordFeedback", feedback_request(event_kind=99), "INVALID_ARGUMENT", "events[1].event_kind"),
    ("RecordFeedback", feedback_request(event_time_ms=-1), "INVALID_ARGUMENT", "events[1].event_time_ms"),
    ("RecordFeedback", feedback_request(event_time_ms=YEAR_1_MS), "INVALID_ARGUMENT", "events[1].event_time_ms"),
    ("RecordFeedback", feedback_request(event_time_ms=now_ms() + 86_400_000), "INVALID_ARGUMENT",
     "events[1].event_time_ms"),
    ("RecordFeedback", feedback_request(value=float("nan")), "INVALID_ARGUMENT", "events[1].value"),
    ("RecordFeedback", feedback_request(value=float("-inf")), "INVALID_ARGUMENT", "events[1].value"),
    ("RecordFeedback", feedback_request(position=-1), "INVALID_ARGUMENT", "events[1].position"),
    ("RecordFeedback", feedback_request(position=200), "INVALID_ARGUMENT", "events[1].position"),
    ("RecordFeedback", lambda: pb.RecordFeedbackRequest(scenario="video", events=[event("x" * MAX_MESSAGE_BYTES)]),
     "RESOURCE_EXHAUSTED", "larger than max"),
    ("RecordImpressions", lambda: pb.RecordImpressionsRequest(scenario="film", impressions=[impression("r", "a")]),
     "NOT_FOUND", "scenario"),
    ("RecordImpressions", lambda: pb.RecordImpressionsRequest(scenario="video"), "INVALID_ARGUMENT", "impressions"),
    ("RecordImpressions",
     lambda: pb.RecordImpressionsRequest(scenario="video", impressions=[impression(f"r{n}", "a") for n in range(1001)]),
     "INVALID_ARGUMENT", "impressions"),
    ("RecordImpressions", impressions_request(request_id=""), "INVALID_ARGUMENT", "impressions[1].request_id"),
    ("RecordImpressions", impressions_request(request_id=LONG), "INVALID_ARGUMENT", "impressions[1].request_id"),
    ("RecordImpressions", impressions_request(user_id=""), "INVALID_ARGUMENT", "impressions[1].user_id"),
    ("RecordImpressions", impressions_request(served_time_ms=-1), "INVALID_ARGUMENT", "impressions[1].served_time_ms"),
    ("RecordImpressions", impressions_request(served_time_ms=YEAR_1_MS), "INVALID_ARGUMENT",
     "impressions[1].served_time_ms"),
    ("RecordImpressions", impressions_request(served_time_ms=now_ms() + 86_400_000), "INVALID_ARGUMENT",
     "impressions[1].served_time_ms"),
    ("RecordImpressions", impressions_request("alien", ""), "INVALID_ARGUMENT", "impressions[1].item_ids[1]"),
    ("RecordImpressions", impressions_request("alien", LONG), "INVALID_ARGUMENT", "impressions[1].item_ids[1]"),
    ("RecordImpressions", impressions_request(item_ids=[]), "INVALID_ARGUMENT", "impressions[1].item_ids"),
    ("RecordImpressions", impressions_request(*(f"i{n}" for n in range(201))), "INVALID_ARGUMENT",
     "impressions[1].item_ids"),
    ("RecordImpressions", impressions_request(experiment="e-1"), "INVALID_ARGUMENT", "impressions[1].variant"),
    ("RecordImpressions", impressions_request(variant="bold"), "INVALID_ARGUMENT", "impressions[1].experiment"),
    ("RecordImpressions", impressions_request(experiment="e 1", variant="bold"), "INVALID_ARGUMENT",
     "impressions[1].experiment"),
    ("RecordImpressions", impressions_request(teams=[1, 2]), "INVALID_ARGUMENT", "impressions[1].teams"),
    ("RecordImpressions", impressions_request(experiment="e-1", variant="bold", teams=[1]), "INVALID_ARGUMENT",
     "impressions[1].teams"),
    ("RecordImpressions", impressions_request(experiment="e-1", variant="bold", teams=[1, 3]), "INVALID_ARGUMENT",
     "impressions[1].teams[1]"),
    ("GetVariantCounts", lambda: pb.GetVariantCountsRequest(scenario="video"), "INVALID_ARGUMENT", "experiment"),
    ("GetVariantCounts", lambda: pb.GetVariantCountsRequest(scenario="film", experiment="e-1"), "NOT_FOUND",
     "scenario"),
    ("RecordImpressions", impressions_request(propensities=[0.5]), "INVALID_ARGUMENT", "impressions[1].propensities"),
    ("RecordImpressions", impressions_request(propensities=[0.5, 0.0]), "INVALID_ARGUMENT",
     "impressions[1].propensities[1]"),
    ("RecordImpressions", impressions_request(propensities=[1.5, 0.5]), "INVALID_ARGUMENT",
     "impressions[1].propensities[0]"),
    ("RecordImpressions", impressions_request(propensities=[0.5, float("nan")]), "INVALID_ARGUMENT",
     "impressions[1].propensities[1]"),
    ("RecordImpressions", impressions_request(scores=[1.0] * 3), "INVALID_ARGUMENT", "impressions[1].scores"),
    ("RecordImpressions", impressions_request(scores=[1.0, float("inf")]), "INVALID_ARGUMENT",
     "impressions[1].scores[1]"),
    ("RecordImpressions", impressions_request(sources=["ann"]), "INVALID_ARGUMENT", "impressions[1].sources"),
    ("RecordImpressions", impressions_request(sources=["ann", ""]), "INVALID_ARGUMENT", "impressions[1].sources[1]"),
    ("RecordImpressions", impressions_request(sources=["ann", "x" * 65]), "INVALID_ARGUMENT",
     "impressions[1].sources[1]"),
    ("RecordImpressions", impressions_request(model_version=LONG), "INVALID_ARGUMENT", "impressions[1].model_version"),
    ("RecordImpressions", impressions_request(rung=0), "INVALID_ARGUMENT", "impressions[1].rung"),
    ("RecordImpressions", impressions_request(rung=77), "INVALID_ARGUMENT", "impressions[1].rung"),
    ("RecordImpressions", impressions_request(model_version="x" * MAX_MESSAGE_BYTES), "RESOURCE_EXHAUSTED",
     "larger than max"),
    ("TailEvents", lambda: pb.TailEventsRequest(scenario="film"), "NOT_FOUND", "scenario"),
    ("TailEvents", lambda: pb.TailEventsRequest(scenario="video", after_offset=-1), "INVALID_ARGUMENT", "after_offset"),
    ("TailEvents", lambda: pb.TailEventsRequest(scenario="video", last_record_count=-1), "INVALID_ARGUMENT",
     "last_record_count"),
    ("ExportExamples", lambda: pb.ExportExamplesRequest(scenario="film"), "NOT_FOUND", "scenario"),
    ("ExportExamples", lambda: pb.ExportExamplesRequest(scenario="video", start_time_ms=YEAR_1_MS), "INVALID_ARGUMENT",
     "start_time_ms"),
    ("ExportExamples", lambda: pb.ExportExamplesRequest(scenario="video", end_time_ms=-5), "INVALID_ARGUMENT",
     "end_time_ms"),
    ("ExportExamples", lambda: pb.ExportExamplesRequest(scenario="video", start_time_ms=7, end_time_ms=7),
     "INVALID_ARGUMENT", "end_time_ms"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="film", user_id="anna"), "NOT_FOUND", "scenario"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="video"), "INVALID_ARGUMENT", "user_id"),
    ("DeleteUser", lambda: pb.DeleteUserRequest(scenario="video", user_id=LONG), "INVALID_ARGUMENT", "user_id"),
]  # fmt: skip


def first_answer(answer: Any) -> None:
    """Streams tell of a bad request when they are read."""
    if isinstance(answer, Iterator):
        next(answer)


def test_malformed_requests_are_refused_with_the_field_and_write_nothing(stub: FeedbackServiceStub) -> None:
    record(stub, event("before"))
    for method, make, code, field in MALFORMED:
        request = make()
        calls = [(method, getattr(stub, method), request)]
        if method == "RecordFeedback":
            batch = pb.StreamFeedbackRequest(scenario=request.scenario, events=request.events)
            calls.append(("StreamFeedback", stub.StreamFeedback, iter([batch])))
        for name, call, argument in calls:
            with pytest.raises(grpc.RpcError) as raised:
                first_answer(call(argument, timeout=30))
            shown = f"{name} {field}: {raised.value.code()} {raised.value.details()}"
            assert raised.value.code().name == code, shown
            text = raised.value.details().lower()
            assert text.startswith(f"{field}:") or (code == "RESOURCE_EXHAUSTED" and field in text), shown
    assert [entry.feedback.event_id for entry in read_log(stub)] == ["before"]
    assert export(stub) == []


async def test_ten_thousand_acknowledged_events_survive_a_kill_once_each(tmp_path: Path) -> None:
    batches = [[event(f"e{batch}-{number}") for number in range(20)] for batch in range(500)]
    acknowledged: set[str] = set()
    waiting = iter(batches)

    async def send(stub: FeedbackServiceStub, until: int) -> None:
        for batch in waiting:
            await stub.RecordFeedback(pb.RecordFeedbackRequest(scenario="video", events=batch), timeout=60)
            acknowledged.update(message.event_id for message in batch)
            if len(acknowledged) >= until:
                return

    with make_service(tmp_path) as service:
        service.wait_serving()
        async with grpc.aio.insecure_channel(service.address) as channel:
            senders = [asyncio.create_task(send(FeedbackServiceStub(channel), 1 << 30)) for _ in range(8)]
            await until(lambda: len(acknowledged) >= 5_000 or any(sender.done() for sender in senders))
            service.kill()
            failures = await asyncio.gather(*senders, return_exceptions=True)
        assert 5_000 <= len(acknowledged) < 10_000, "the kill came in the middle"
        assert all(isinstance(failure, grpc.aio.AioRpcError) for failure in failures)
        service.start()
        service.wait_serving()
        with grpc.insecure_channel(service.address) as channel:
            stub = FeedbackServiceStub(channel)
            found = Counter(entry.feedback.event_id for entry in read_log(stub))
            assert acknowledged <= set(found)
            assert set(found.values()) == {1}
            # What the client does after such a failure: send everything that it is not sure of again.
            for batch in batches:
                record(stub, *batch)
            found = Counter(entry.feedback.event_id for entry in read_log(stub))
            assert found == Counter(message.event_id for batch in batches for message in batch)


def test_kills_during_attribution_neither_lose_nor_repeat_counts(service: ServiceProcess) -> None:
    answers = [impression(f"r{n}", "alien", "brazil", user_id=f"u{n}") for n in range(2_000)]
    clicks = [event(f"e{n}", user_id=f"u{n}", item_id="brazil", request_id=f"r{n}") for n in range(0, 2_000, 2)]
    with grpc.insecure_channel(service.address) as channel:
        stub = FeedbackServiceStub(channel)
        show(stub, *answers[:1000])
        show(stub, *answers[1000:])
        record(stub, *clicks)
    for _ in range(3):
        service.kill()
        service.start()
    service.wait_serving()
    with grpc.insecure_channel(service.address) as channel:
        examples = export(FeedbackServiceStub(channel))
    assert sorted(row[0] for row in examples if row[2]) == sorted(click.request_id for click in clicks)
    labels = 'model_version="m1",scenario="video",source="ann"'
    counts = counters(service)
    assert counts[f"recmesh_feedback_impressions_total{{{labels}}}"] == 4_000
    assert counts[f"recmesh_feedback_clicks_total{{{labels}}}"] == 1_000


async def test_a_log_that_cannot_be_written_says_unavailable_and_recovers(
    service: ServiceProcess, stub: FeedbackServiceStub, tmp_path: Path
) -> None:
    blocker = sqlite3.connect(tmp_path / "feedback" / "video" / "log.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(grpc.RpcError) as raised:
        record(stub, event("e1"))
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(raised.value.trailing_metadata())["retry-after-ms"]
    await until(lambda: not service.serving())
    blocker.execute("ROLLBACK")
    blocker.close()
    service.wait_serving()
    assert record(stub, event("e1")).accepted_count == 1


def test_sigterm_ends_open_tails_and_exits_clean(service: ServiceProcess, stub: FeedbackServiceStub) -> None:
    tail = stub.TailEvents(pb.TailEventsRequest(scenario="video"))
    next(tail)
    record(stub, event("e1"))
    assert service.terminate() == 0
    assert [entry.feedback.event_id for response in tail for entry in response.records] == ["e1"]
    assert '"stopped"' in service.log


def test_a_second_process_on_the_same_log_refuses_to_start(service: ServiceProcess, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    settings = {
        "server": {"port": 0, "metrics_port": 0},
        "scenario_files": [scenario_file(folder)],
        "store": {"path": str(tmp_path / "feedback")},
    }
    second = ServiceProcess("feedback", settings, folder)
    assert second.launch().wait(60) == 2
    assert "another process has this event log open" in second.log


def test_a_wrong_setting_stops_the_start_with_its_name(tmp_path: Path) -> None:
    service = ServiceProcess("feedback", {"scenario_files": ["none.yaml"], "store": {"pth": "x"}}, tmp_path)
    assert service.launch().wait(60) == 2
    assert "store.sqlite.pth: unknown setting" in service.log


def test_events_without_the_consent_that_they_need_are_dropped_and_counted(tmp_path: Path) -> None:
    scenario = {**SCENARIOS["video"], "feedback": {"consent": {"required": ["rating"]}}}
    (tmp_path / "consent.yaml").write_text(yaml.safe_dump({"scenarios": {"video": scenario}}))
    with (
        make_service(tmp_path, str(tmp_path / "consent.yaml")) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        service.wait_serving()
        stub = FeedbackServiceStub(channel)
        granted = event("e1", event_kind=RATING, consent=pb.CONSENT_GRANTED)
        answer = record(stub, granted, event("e2", event_kind=RATING), event("e3"))
        assert (answer.accepted_count, answer.dropped_count) == (2, 1)
        assert record(stub, event("e4", event_kind=RATING)).dropped_count == 1, "none is left to be written"
        assert [entry.feedback.event_id for entry in read_log(stub)] == ["e1", "e3"]
        assert 'dropped_total{reason="no_consent",record="feedback",scenario="video"} 2.0' in service.metrics()
