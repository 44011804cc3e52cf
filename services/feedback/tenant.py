"""One scenario's part of the service."""

from dataclasses import dataclass
from pathlib import Path

from services.feedback.attribution import AttributionRules
from services.feedback.attributor import Attributor
from services.feedback.config import feedback_settings
from services.feedback.example_store import ExampleStore
from services.feedback.sqlite_store import SqliteEventLog
from services.feedback.store import EventLog
from services.runtime.scenario import EVENT_NUMBERS, Scenario


@dataclass(frozen=True, slots=True)
class Tenant:
    """A scenario, its log and its attribution. Nothing is shared with another scenario's."""

    name: str
    event_kinds: frozenset[int]
    """Kinds of feedback that the scenario's file lists."""
    log: EventLog
    attributor: Attributor

    async def close(self) -> None:
        """Let go of the files, after the last call."""
        await self.attributor.close()
        await self.log.close()


def open_tenant(scenario: Scenario, path: Path) -> Tenant:
    """Open the scenario's files in its folder under `path`. SetupError names what is wrong with them or its section."""
    settings = feedback_settings(scenario)
    folder = path / scenario.name
    log = SqliteEventLog(folder, settings.max_queued_count)
    examples = ExampleStore(folder, AttributionRules(scenario.head, settings))
    kinds = frozenset(EVENT_NUMBERS[event] for event in scenario.head.events)
    return Tenant(scenario.name, kinds, log, Attributor(log, examples))
