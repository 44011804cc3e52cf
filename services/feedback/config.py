"""Settings of the feedback service."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from services.runtime.config import ServerSettings, Settings, TlsSettings
from services.runtime.errors import SetupError
from services.runtime.pseudonym import PrivacySettings
from services.runtime.scenario import EventName, Scenario


class SqliteSettings(Settings):
    """The event log in SQLite, in this process."""

    engine: Literal["sqlite"] = "sqlite"
    """What keeps the log."""
    path: Path
    """Folder; each scenario has a folder of its own in it, for the log and the examples."""


class PartitionSettings(Settings):
    """The share of the users that a process attributes."""

    count: int = Field(ge=1, le=1_000)
    """How many processes share the log. Another count shares the users anew: each process then makes its examples again
    from the log."""
    index: int | None = Field(default=None, ge=0)
    """Which of them this is, from 0; none: the number that ends the host's name, as a StatefulSet gives it."""


class JetStreamSettings(Settings):
    """The event log in NATS JetStream; several feedback services can share it."""

    engine: Literal["jetstream"]
    """What keeps the log."""
    path: Path
    """Folder for the examples, which follow from the log; each scenario has a folder of its own in it, and each process
    of the service needs a `path` of its own."""
    servers: list[Annotated[str, Field(pattern=r"^(nats|tls)://\S+$")]] = Field(min_length=1)
    """Servers of the cluster, e.g. nats://nats-0.nats:4222."""
    prefix: str = Field(default="recmesh", pattern="^[a-z][a-z0-9-]{0,30}$")
    """Begins the names of streams and subjects. Deployments that share servers need different ones."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Servers that hold a copy of each stream. An acknowledged event then outlives the loss of fewer than half."""
    user: str | None = None
    """User name at the servers; none: no password is given."""
    password_file: Path | None = None
    """File with the user's password and nothing else."""
    tls: TlsSettings | None = None
    """Mutual TLS towards the servers; none: plaintext."""
    partition: PartitionSettings | None = None
    """Which users' examples and counters are this process's, where several share the log; none: all users'."""

    @model_validator(mode="after")
    def _check(self) -> "JetStreamSettings":
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together; give both or neither")
        return self


def _engine(store: Any) -> Any:
    return store.get("engine", "sqlite") if isinstance(store, dict) else getattr(store, "engine", None)


StoreSettings = Annotated[
    Annotated[SqliteSettings, Tag("sqlite")] | Annotated[JetStreamSettings, Tag("jetstream")],
    Discriminator(
        _engine, custom_error_type="engine", custom_error_message="engine: is unknown; use sqlite or jetstream"
    ),
]
"""Where the event log lives: `engine` says which of the two."""


class FeedbackConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    store: StoreSettings
    """Where the event log lives."""
    privacy: PrivacySettings = PrivacySettings()
    """Pseudonyms of users."""


class ConsentSettings(Settings):
    """Which events need their user's consent."""

    required: list[EventName] = Field(default_factory=list)
    """Kinds that are kept only with a consent; the others always are."""
    default: Literal["granted", "denied"] = "denied"
    """What holds for an event that does not say."""


class FeedbackSettings(Settings):
    """The section `feedback` of a scenario file."""

    attribution_window_s: int = Field(default=24 * 3600, ge=1)
    """How long after an impression what a user does with the item still counts for it, in seconds."""
    attribution_windows_s: dict[EventName, int] = Field(default_factory=dict)
    """The same for single kinds of events, where they differ: {purchase: 604800}."""
    impression_wait_s: int = Field(default=600, ge=0)
    """How long an event without an impression waits for one that comes late, in seconds."""
    consent: ConsentSettings = ConsentSettings()
    """Which events need their user's consent."""
    late_arrival_s: int = Field(default=86_400, ge=0)
    """How long after its time an event may arrive and still label what was shown, in seconds. When that is over for all
    events that an answer's windows allow, the answer is closed and its examples move to Parquet."""
    close_interval_s: float = Field(default=3_600, gt=0)
    """How often answers are closed, in seconds. Each time gives a day that has some a file, so this bounds how many
    files there are."""
    max_queued_count: int = Field(default=20_000, ge=1_000)
    """Records that may wait to be written before calls get RESOURCE_EXHAUSTED."""
    retention_days: float | None = Field(default=None, ge=1e-5, le=36_500)
    """How long records and their examples are kept after their arrival, in days; none: until they are erased. An id is
    known as long as its record is kept."""


def feedback_settings(scenario: Scenario) -> FeedbackSettings:
    """The scenario's section `feedback`. SetupError names what is wrong in it."""
    settings = scenario.section("feedback", FeedbackSettings)
    for event in settings.consent.required:
        if event not in scenario.head.events:
            raise SetupError(
                f"{scenario.where}.feedback: consent.required: {event!r} is not in the scenario's events: "
                + ", ".join(scenario.head.events)
            )
    for event, window_s in settings.attribution_windows_s.items():
        where = f"{scenario.where}.feedback: attribution_windows_s.{event}"
        if event not in scenario.head.events:
            raise SetupError(f"{where}: is not in the scenario's events: {', '.join(scenario.head.events)}")
        if window_s < 1:
            raise SetupError(f"{where}: is {window_s}; give at least 1 second")
    return settings
