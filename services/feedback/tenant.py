"""One scenario's part of the service."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from services.feedback.attribution import AttributionRules
from services.feedback.attributor import Attributor
from services.feedback.config import JetStreamSettings, StoreSettings, feedback_settings
from services.feedback.consent import ConsentRules
from services.feedback.erased_users import ErasedUsers
from services.feedback.example_store import ExampleStore
from services.feedback.folder_lock import lock_folder
from services.feedback.log_reader import LogReader
from services.feedback.partition import ALL, partition_of
from services.feedback.records import Feedback, Impression
from services.feedback.sqlite_store import SqliteEventLog
from services.feedback.store import EventLog
from services.runtime.people import People, people_of
from services.runtime.pseudonym import Pseudonyms, claim_store
from services.runtime.scenario import EVENT_NUMBERS, Scenario

SECONDS_PER_DAY = 86_400


class Taken(NamedTuple):
    """What became of a batch: records written now, those that the log had already, those that may not be kept."""

    accepted_count: int
    duplicate_count: int
    dropped_count: int


@dataclass(frozen=True, slots=True)
class Tenant:
    """A scenario, its log and its attribution. Nothing is shared with another scenario's."""

    name: str
    event_kinds: frozenset[int]
    """Kinds of feedback that the scenario's file lists."""
    consent: ConsentRules
    log: EventLog
    reader: LogReader
    attributor: Attributor
    retention_s: float | None
    """How long records and examples are kept, in seconds; None: until they are erased."""
    pseudonyms: Pseudonyms
    erased_users: ErasedUsers
    lock: TextIO
    """Held while the scenario's folder is in use."""

    async def append(self, batch: Sequence[Impression] | Sequence[Feedback]) -> Taken:
        """Write a batch to the log, without what users did before they were erased. See EventLog.append."""
        await self.erased_users.load()
        kept = self.erased_users.kept(batch)
        if not kept:
            return Taken(0, 0, len(batch))
        return Taken(*await self.log.append(kept), len(batch) - len(kept))

    async def close(self) -> None:
        """Let go of the files, after the last call."""
        await self.attributor.close()
        await self.log.close()
        self.lock.close()


def open_tenant(scenario: Scenario, store: StoreSettings, pseudonyms: Pseudonyms) -> Tenant:
    """Open the scenario's files in its folder and its log. SetupError names what is wrong with them or its section."""
    settings = feedback_settings(scenario)
    retention_s = None if settings.retention_days is None else settings.retention_days * SECONDS_PER_DAY
    folder = store.path / scenario.name
    lock = lock_folder(folder)
    claim_store(folder / "pseudonyms", pseudonyms, any((folder / name).is_file() for name in ("log.db", "examples.db")))
    people = people_of(scenario, pseudonyms)
    log = _open_log(scenario.name, store, folder, settings.max_queued_count, retention_s, pseudonyms.key_id, people)
    reader = LogReader(scenario.name, log)
    partition = ALL
    if isinstance(store, JetStreamSettings):
        partition = partition_of(store.partition, socket.gethostname())
    examples = ExampleStore(folder, AttributionRules(scenario.head, settings), partition)
    erased_users = ErasedUsers(log, people)
    attributor = Attributor(log, reader, examples, erased_users, settings.close_interval_s, people)
    kinds = frozenset(EVENT_NUMBERS[event] for event in scenario.head.events)
    return Tenant(
        scenario.name,
        kinds,
        ConsentRules(settings.consent),
        log,
        reader,
        attributor,
        retention_s,
        pseudonyms,
        erased_users,
        lock,
    )


def _open_log(
    scenario: str, store: StoreSettings, folder: Path, max_queued_count: int, retention_s: float | None, key_id: str,
    people: People,
) -> EventLog:  # fmt: skip
    if isinstance(store, JetStreamSettings):
        # Only now: the client, and aiohttp with it, takes a fifth of a start, and most have no use for it.
        from services.feedback.jetstream_store import JetStreamEventLog

        return JetStreamEventLog(store, scenario, max_queued_count, retention_s, key_id, people)
    return SqliteEventLog(folder, max_queued_count, retention_s, people)
