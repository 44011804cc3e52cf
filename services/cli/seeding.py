"""Brings the tables into the services: the catalogue and the users to feature, past events to the feedback log.

Goes on where an interrupted seeding stopped; sending something twice changes nothing (items are replaced by themselves,
events count once by event_id).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import grpc
import grpc.aio
import pyarrow as pa
from pydantic import Field

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from services.cli import converters
from services.cli.state import write_text_atomically
from services.runtime.config import Settings, parse_settings, read_yaml
from services.runtime.scenario import Scenario
from services.training.tables import fingerprint_tables, has_tables, read_tables

STREAM_MESSAGES = 10
"""Messages of one client stream; after each stream the progress is noted."""
ATTEMPTS = 5
RETRY_S = 1.0
CALL_S = 60.0
POLL_S = 0.05
_RETRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

TableName = Literal["items", "users", "events"]
Track = Callable[[TableName, int, int], None]
"""Called with table, rows sent, rows in all."""


class SeedMarker(Settings):
    """What was sent already."""

    data_fingerprint: str
    """Of the tables (services/training/tables.py)."""
    sent_rows: dict[TableName, int] = Field(default_factory=dict)
    """Rows of each table."""


class Seeder:
    """Seeds one scenario through asynchronous stubs of FeatureService and FeedbackService."""

    def __init__(self, scenario: Scenario, marker_path: Path, feature: Any, feedback: Any) -> None:
        self._scenario = scenario
        self._marker_path = marker_path
        self._feature = feature
        self._feedback = feedback

    async def seed(self, data_folder: Path, track: Track) -> dict[TableName, int]:
        """Send what was not sent yet and return how many rows of each table were. SetupError when a row is bad."""
        if not has_tables(data_folder):
            return {}
        tables = await asyncio.to_thread(read_tables, data_folder, self._scenario.head)
        fingerprint = await asyncio.to_thread(fingerprint_tables, tables)
        marker = await self._read_marker(fingerprint)
        before = dict(marker.sent_rows)
        scenario = self._scenario.name

        def rest(table: TableName, rows: pa.Table) -> pa.Table:
            return rows.slice(before.get(table, 0))

        items = converters.item_requests(scenario, rest("items", tables.items))
        await self._send_table(marker, "items", items, tables.items.num_rows, self._send_items, track)
        users = converters.user_requests(scenario, rest("users", tables.users))
        await self._send_table(marker, "users", users, tables.users.num_rows, self._send_users, track)
        events = converters.event_requests(scenario, rest("events", tables.events))
        await self._send_table(marker, "events", events, tables.events.num_rows, self._send_events, track)
        sent = {table: count - before.get(table, 0) for table, count in marker.sent_rows.items()}
        return {table: count for table, count in sent.items() if count > 0}

    async def wait_until_read(self) -> None:
        """Return when feature has read everything that the log holds now."""
        latest = await self._log_offset()
        question = feature_pb.GetUserFeaturesRequest(scenario=self._scenario.name, user_id="-", history_count=1)
        while (await self._feature.GetUserFeatures(question, timeout=CALL_S)).log_offset < latest:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(POLL_S)

    async def _read_marker(self, fingerprint: str) -> SeedMarker:
        """The marker of these tables; an empty one where there is none or the stores were emptied since."""
        empty = SeedMarker(data_fingerprint=fingerprint)
        if not self._marker_path.is_file():
            return empty
        marker = parse_settings(SeedMarker, read_yaml(self._marker_path), str(self._marker_path))
        if marker.data_fingerprint != fingerprint:
            return empty
        catalogue = self._feature.TailItems(feature_pb.TailItemsRequest(scenario=self._scenario.name))
        was_emptied = await _latest_offset(catalogue) == 0 or await self._log_offset() == 0
        return empty if was_emptied else marker

    async def _log_offset(self) -> int:
        request = feedback_pb.TailEventsRequest(scenario=self._scenario.name, last_record_count=1)
        return await _latest_offset(self._feedback.TailEvents(request))

    async def _send_table(
        self,
        marker: SeedMarker,
        table: TableName,
        requests: Iterator[Any],
        total: int,
        send: Callable[[list[Any]], Awaitable[None]],
        track: Track,
    ) -> None:
        sent = marker.sent_rows.get(table, 0)
        while messages := await asyncio.to_thread(lambda: list(islice(requests, STREAM_MESSAGES))):
            await _with_retries(send, messages)
            sent = min(sent + STREAM_MESSAGES * converters.BATCH_ROWS, total)
            marker.sent_rows[table] = sent
            write_text_atomically(self._marker_path, marker.model_dump_json() + "\n")
            track(table, sent, total)

    async def _send_items(self, messages: list[feature_pb.UpsertItemsRequest]) -> None:
        await self._feature.UpsertItems(iter(messages), timeout=CALL_S)

    async def _send_users(self, messages: list[feature_pb.UpsertUsersRequest]) -> None:
        for message in messages:
            await self._feature.UpsertUsers(message, timeout=CALL_S)

    async def _send_events(self, messages: list[feedback_pb.StreamFeedbackRequest]) -> None:
        await self._feedback.StreamFeedback(iter(messages), timeout=CALL_S)


async def _latest_offset(stream: Any) -> int:
    """What the first response of a stream that can be resumed says."""
    try:
        return int((await anext(aiter(stream))).latest_offset)
    finally:
        stream.cancel()


async def _with_retries(send: Callable[[list[Any]], Awaitable[None]], messages: list[Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await send(messages)
            return
        except grpc.aio.AioRpcError as error:
            if error.code() not in _RETRY or attempt == ATTEMPTS:
                raise
        await asyncio.sleep(attempt * RETRY_S)
