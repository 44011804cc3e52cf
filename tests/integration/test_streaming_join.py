"""The streaming join of impressions and feedback in real processes that are killed in its middle."""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pyarrow.parquet as pq
import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from tests.integration.test_feedback import counters
from tests.integration.test_feedback_engines import scenarios_file
from tests.support.nats_process import NatsProcess, needs_nats
from tests.support.ports import free_port
from tests.support.service_process import ServiceProcess
from tests.support.stores import event, impression, now_ms
from tests.support.waiting import wait_for

ANSWERS, ITEMS, KILLS = 600, 4, 6
HOUR_MS = 3_600_000
# A killed service is back soon; the pauses before another connection would else grow to two minutes.
SOON_AGAIN = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
# Fresh answers stay open for the whole test, those of an hour ago close as soon as they come.
SETTINGS = {"attribution_window_s": 600, "late_arrival_s": 0, "impression_wait_s": 300, "close_interval_s": 0.05}


def is_old(number: int) -> bool:
    return number % 3 == 0


def make_requests(generator: random.Random) -> list[Any]:
    """Answers in batches, each followed or preceded (out of order) by the clicks on it; every tenth batch comes twice,
    and some clicks are on what was never shown."""
    now, requests = now_ms(), []
    for start in range(0, ANSWERS, 5):
        numbers = range(start, start + 5)
        served = {n: now - (HOUR_MS if is_old(n) else 0) for n in numbers}
        shown = [
            impression(f"r{n}", *(f"i{n}-{k}" for k in range(ITEMS)), user_id=f"u{n % 50}", served_time_ms=served[n],
                       feature_offset=n, history_count=1)
            for n in numbers
        ]  # fmt: skip
        clicks = [
            event(f"e{n}", user_id=f"u{n % 50}", item_id=f"i{n}-2", request_id=f"r{n}", event_time_ms=served[n])
            for n in numbers
        ]
        clicks.append(event(f"orphan{start}", user_id="u0", item_id="never shown", event_time_ms=now - HOUR_MS))
        pair = [
            pb.RecordImpressionsRequest(scenario="video", impressions=shown),
            pb.RecordFeedbackRequest(scenario="video", events=clicks),
        ]
        if generator.random() < 0.3:
            pair.reverse()
        requests += pair if generator.random() > 0.1 else pair * 2
    return requests


async def send_all(address: str, requests: Iterator[Any], sent: list[Any]) -> None:
    """Send each until it is acknowledged, as a client does that must not lose anything."""
    async with grpc.aio.insecure_channel(address, options=SOON_AGAIN) as channel:
        stub = FeedbackServiceStub(channel)
        for request in requests:
            call = stub.RecordImpressions if isinstance(request, pb.RecordImpressionsRequest) else stub.RecordFeedback
            while True:
                try:
                    await call(request, timeout=60, wait_for_ready=True)
                    break
                except grpc.aio.AioRpcError as error:
                    # The service was killed; anything else would be said again for ever.
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
                    await asyncio.sleep(0.05)
            sent.append(request)


async def kill_during(
    work: "asyncio.Future[Any]", progress: Callable[[], int], total: int, service: ServiceProcess
) -> None:
    """Kill and start the service KILLS times, at random points of the work's progress."""
    for place in sorted(random.Random(7).sample(range(total // 10, total), KILLS)):
        while progress() < place and not work.done():
            await asyncio.sleep(0.005)
        service.kill()
        service.start()
    await work


def exported(service: ServiceProcess) -> list[tuple[str, int, bool, int]]:
    with grpc.insecure_channel(service.address) as channel:
        request = pb.ExportExamplesRequest(scenario="video")
        return [
            row
            for page in FeedbackServiceStub(channel).ExportExamples(request, timeout=120)
            for row in zip(page.request_ids, page.positions, page.clicked, page.feature_offsets, strict=True)
        ]


def in_files(folder: Path) -> list[tuple[str, int]]:
    rows = [
        (row["request_id"], row["position"])
        for path in (folder / "video" / "examples").glob("date=*/part-*.parquet")
        for row in pq.ParquetFile(path).read(["request_id", "position"]).to_pylist()
    ]
    assert len(rows) == len(set(rows)), "no row is in two files"
    return rows


def table_size(folder: Path, table: str) -> int:
    connection = sqlite3.connect(folder / "video" / "examples.db")
    try:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    finally:
        connection.close()


def outcomes(*services: ServiceProcess) -> Counter[str]:
    """Counters of all services added up, by what stands before the scenario's label."""
    total: Counter[str] = Counter()
    for service in services:
        for series, value in counters(service).items():
            total[series.removeprefix("recmesh_feedback_")] += int(value)
    return total


def event_outcomes(total: Counter[str]) -> Counter[str]:
    return Counter(
        {
            outcome: total[f'events_total{{event="click",outcome="{outcome}",scenario="video"}}']
            for outcome in ("attributed", "repeated", "late", "orphan", "unlabelled")
        }
    )


EXPECTED = sorted((f"r{n}", k) for n in range(ANSWERS) for k in range(ITEMS))
OLD_ROWS = sum(map(is_old, range(ANSWERS))) * ITEMS


def check(rows: list[tuple[str, int, bool, int]], total: Counter[str]) -> None:
    """Every row once, every event counted by one outcome, and as many labels as were attributed."""
    assert sorted(row[:2] for row in rows) == EXPECTED
    assert all(request_id == f"r{offset}" for request_id, _, _, offset in rows)
    clicked = {request_id for request_id, position, is_clicked, _ in rows if is_clicked and position == 2}
    assert {f"r{n}" for n in range(ANSWERS) if not is_old(n)} <= clicked, "an open answer loses no click"
    found = event_outcomes(total)
    assert found["attributed"] == sum(row[2] for row in rows)
    # A click on an answer of an hour ago labels it, or is late when the answer was closed before it.
    assert found["attributed"] + found["late"] + found["orphan"] == ANSWERS + ANSWERS // 5
    assert found["orphan"] >= ANSWERS // 5
    assert found["repeated"] == found["unlabelled"] == 0, "what was sent twice was logged once"
    shown = 'impressions_total{model_version="m1",scenario="video",source="ann"}'
    assert total[shown] == ANSWERS * ITEMS
    assert total['closed_examples_total{scenario="video"}'] == OLD_ROWS


@pytest.mark.timeout(380)
async def test_kills_in_the_middle_of_the_stream_lose_and_double_no_row(tmp_path: Path) -> None:
    settings = {
        "server": {"port": free_port()},
        "scenario_files": [scenarios_file(tmp_path, **SETTINGS)],
        "store": {"engine": "sqlite", "path": str(tmp_path / "feedback")},
    }
    requests = make_requests(random.Random(1))
    sent: list[Any] = []
    with ServiceProcess("feedback", settings, tmp_path) as service:
        service.wait_serving()
        waiting = iter(requests)
        senders = asyncio.gather(*(send_all(service.address, waiting, sent) for _ in range(3)))
        await kill_during(senders, lambda: len(sent), len(requests), service)
        folder = tmp_path / "feedback"
        closed = 'closed_examples_total{scenario="video"}'
        await asyncio.to_thread(wait_for, lambda: outcomes(service)[closed] == OLD_ROWS, 120)
        rows = exported(service)
        check(rows, outcomes(service))
        assert len(in_files(folder)) == OLD_ROWS
        assert table_size(folder, "shown") == ANSWERS * ITEMS - OLD_ROWS, "only open answers are in the database"
        assert table_size(folder, "waiting") == 0
        out_of_order = outcomes(service)['out_of_order_events_total{event="click",scenario="video"}']
        assert out_of_order > 0
        service.kill()
        service.start()
        service.wait_serving()
        assert exported(service) == rows


@needs_nats
@pytest.mark.timeout(380)
async def test_services_that_share_a_log_share_the_users(tmp_path: Path) -> None:
    requests = make_requests(random.Random(2))
    sent: list[Any] = []

    def make(index: int, server: NatsProcess) -> ServiceProcess:
        folder = tmp_path / str(index)
        folder.mkdir()
        settings = {
            "server": {"port": free_port()},
            "scenario_files": [scenarios_file(folder, **SETTINGS)],
            "store": {
                "engine": "jetstream",
                "path": str(folder / "examples"),
                "servers": [server.url],
                "partition": {"index": index, "count": 2},
            },
        }
        return ServiceProcess("feedback", settings, folder)

    with NatsProcess(tmp_path) as server, make(0, server) as first, make(1, server) as second:
        for service in (first, second):
            service.wait_serving()
        waiting = iter(requests)
        addresses = [first.address, second.address, second.address]
        senders = asyncio.gather(*(send_all(address, waiting, sent) for address in addresses))
        await kill_during(senders, lambda: len(sent), len(requests), first)
        for service in (first, second):
            service.wait_serving()
        closed = 'closed_examples_total{scenario="video"}'
        await asyncio.to_thread(wait_for, lambda: outcomes(first, second)[closed] == OLD_ROWS, 120)
        rows = [exported(service) for service in (first, second)]
        assert all(rows)
        check([row for share in rows for row in share], outcomes(first, second))
        files = [*in_files(tmp_path / "0" / "examples"), *in_files(tmp_path / "1" / "examples")]
        assert len(files) == len(set(files)) == OLD_ROWS
        # Both shares have users; whoever is asked, the erasure reaches the files of the one that has the user.
        with grpc.insecure_channel(first.address) as channel:
            for user_id in ("u1", "u2", "u3", "u4"):
                request = pb.DeleteUserRequest(scenario="video", user_id=user_id)
                FeedbackServiceStub(channel).DeleteUser(request, timeout=60)
        gone = {f"r{n}" for n in range(ANSWERS) if n % 50 in (1, 2, 3, 4)}

        def left() -> set[str]:
            folders = [tmp_path / "0" / "examples", tmp_path / "1" / "examples"]
            exports = {row[0] for service in (first, second) for row in exported(service)}
            return (exports | {row[0] for folder in folders for row in in_files(folder)}) & gone

        await asyncio.to_thread(wait_for, lambda: not left(), 120)
        assert len([row for service in (first, second) for row in exported(service)]) == (ANSWERS - len(gone)) * ITEMS
