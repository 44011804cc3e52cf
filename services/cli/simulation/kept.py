"""What the mesh kept of a run: its records in the event log, and the examples made of them."""

import asyncio
import contextlib

import grpc
import grpc.aio

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from services.cli.simulation.connections import Stubs
from services.cli.simulation.drive import Record
from services.cli.simulation.world import World
from services.simulation.counting import ExampleRow, Kept, Place, logs_everything
from services.simulation.labels import Labels

RETRY_S = 0.5


async def read_kept(world: World, stubs: Stubs, record: Record, after_offset: int, wait_s: float) -> Kept:
    """Read the log from `after_offset` on until it holds all of `record`, for at most `wait_s` seconds (impressions may
    wait in ranking's spool), then the examples, for at most as long again. What did not come is missing."""
    kept = Kept()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await _read_log(world, stubs, record, after_offset, kept)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            kept.rows = await _export(world, stubs, record)
    return kept


async def _read_log(world: World, stubs: Stubs, record: Record, offset: int, kept: Kept) -> None:
    while True:
        stream = stubs.feedback.TailEvents(pb.TailEventsRequest(scenario=world.scenario.name, after_offset=offset))
        try:
            async for response in stream:
                for entry in response.records:
                    _take(entry, world.prefix, kept)
                    offset = entry.offset
                if offset >= response.latest_offset and logs_everything(record.answers, record.events, kept):
                    return
        except grpc.aio.AioRpcError:
            # The service is being started again: go on where the stream broke.
            await asyncio.sleep(RETRY_S)
        finally:
            stream.cancel()


def _take(entry: pb.LogRecord, prefix: str, kept: Kept) -> None:
    if entry.HasField("impression") and entry.impression.request_id.startswith(prefix):
        kept.impressions.append((entry.impression.request_id, tuple(entry.impression.item_ids)))
    if entry.HasField("feedback") and entry.feedback.event_id.startswith(prefix):
        kept.event_ids.append(entry.feedback.event_id)


async def _export(world: World, stubs: Stubs, record: Record) -> list[ExampleRow]:
    if not record.answers:
        return []
    request = pb.ExportExamplesRequest(
        scenario=world.scenario.name,
        start_time_ms=record.first_served_ms,
        end_time_ms=record.last_served_ms + 1,
    )
    while True:
        rows: list[ExampleRow] = []
        try:
            async for page in stubs.feedback.ExportExamples(request):
                rows += _rows(page, world.prefix)
            return rows
        except grpc.aio.AioRpcError:
            await asyncio.sleep(RETRY_S)


def _rows(page: pb.ExportExamplesResponse, prefix: str) -> list[ExampleRow]:
    labels = map(Labels, page.clicked, page.converted, page.ratings)
    columns = zip(page.request_ids, page.positions, page.item_ids, labels, strict=True)
    return [
        ExampleRow(Place(request_id, position), item_id, label)
        for request_id, position, item_id, label in columns
        if request_id.startswith(prefix)
    ]
