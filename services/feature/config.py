"""Settings of the feature service."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from services.runtime.config import ClientSettings, ServerSettings, Settings
from services.runtime.errors import SetupError
from services.runtime.pseudonym import PrivacySettings
from services.runtime.scenario import EventName, Scenario


class LmdbSettings(Settings):
    """Users and items in files of this machine: one process, no server."""

    engine: Literal["lmdb"] = "lmdb"
    """What keeps them."""
    path: Path
    """Folder; each scenario has a folder of its own in it."""
    map_bytes: int = Field(default=8 * 1024**3, ge=1024**2)
    """Most that one scenario's store may hold, in bytes. It takes address space now and disk only as it fills."""


class ValkeyTlsSettings(Settings):
    """TLS to the server."""

    ca_file: Path | None = None
    """The authority that the server's certificate must come from, PEM; none: those that the system trusts."""
    certificate_file: Path | None = None
    """This process's certificate chain, PEM, where the server asks for one."""
    key_file: Path | None = None
    """Its private key, PEM."""

    @model_validator(mode="after")
    def _check(self) -> "ValkeyTlsSettings":
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("give certificate_file and key_file, or neither")
        return self


class ValkeySettings(Settings):
    """Users and items in Valkey (7.2 or newer) or Redis (7.0 or newer): any number of processes of this service."""

    engine: Literal["valkey"]
    """What keeps them."""
    addresses: list[str] = Field(min_length=1)
    """host:port of the server; of a cluster, some of its nodes, the others are found through them."""
    cluster: bool = False
    """Whether the servers are a cluster."""
    tls: ValkeyTlsSettings | None = None
    """TLS; none: plaintext."""
    username: str | None = None
    """Who logs in; none: the server's default user."""
    password_file: Path | None = None
    """File that holds the password; read at start."""
    password_env: str | None = None
    """Environment variable that holds the password."""
    key_prefix: str = Field(default="recmesh", pattern=r"^[A-Za-z0-9_.:-]{1,64}$")
    """First part of every key, to share a server with others."""
    user_ttl_days: float | None = Field(default=None, gt=0, le=36_500)
    """Users of whom nothing came for this long are forgotten; none: never."""
    durable_replicas: int = Field(default=0, ge=0, le=16)
    """Replicas of each server that must have a write on disk before it counts as durable. Give at least 1 where a
    replica may take over, or what it had not received yet is lost."""
    timeout_ms: int = Field(default=1_000, ge=10)
    """Longest wait for a connection and for an answer; then the store counts as away."""
    durable_timeout_ms: int = Field(default=5_000, ge=100)
    """Longest wait for a write to be on disk; then the write gets UNAVAILABLE."""
    checkpoint_interval_ms: int = Field(default=1_000, ge=10)
    """How often the place in the event log is stored. After a crash, what came since is applied again, to no effect."""
    poll_interval_ms: int = Field(default=200, ge=10)
    """How often other processes' changes of items are looked for."""
    max_connections: int = Field(default=64, ge=2)
    """Most connections per scenario, to each server of a cluster; calls beyond them wait."""

    @field_validator("addresses")
    @classmethod
    def _check_addresses(cls, addresses: list[str]) -> list[str]:
        for address in addresses:
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise ValueError(f"{address!r} is not host:port, e.g. 'valkey:6379'")
        return addresses

    @model_validator(mode="after")
    def _check(self) -> "ValkeySettings":
        if not self.cluster and len(self.addresses) > 1:
            raise ValueError("addresses: one server has one address; for a cluster set cluster: true")
        if self.password_file is not None and self.password_env is not None:
            raise ValueError("give password_file or password_env, not both")
        if self.username is not None and self.password_file is None and self.password_env is None:
            raise ValueError("username needs password_file or password_env")
        return self


def _engine_of(value: Any) -> str | None:
    engine = value.get("engine", "lmdb") if isinstance(value, dict) else getattr(value, "engine", None)
    return engine if engine in ("lmdb", "valkey") else None


StoreSettings = Annotated[
    Annotated[LmdbSettings, Tag("lmdb")] | Annotated[ValkeySettings, Tag("valkey")],
    Discriminator(
        _engine_of, custom_error_type="engine", custom_error_message="engine: use lmdb (the default) or valkey"
    ),
]
"""Where users and items live, by engine."""


class FeatureConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens, reports and stops."""
    scenario_files: list[Path] = Field(min_length=1)
    """The scenarios it serves."""
    store: StoreSettings
    """Where users and items live."""
    feedback: ClientSettings
    """The event log that histories come from."""
    privacy: PrivacySettings = PrivacySettings()
    """Pseudonyms of users."""


class FeatureSettings(Settings):
    """The section `feature` of a scenario file."""

    history_events: list[EventName] | None = None
    """Kinds of events that enter a user's history; none: those that any task of the scenario counts."""
    history_max_events: int = Field(default=1_000, ge=1, le=10_000)
    """Newest events kept per user."""
    seen_max_items: int = Field(default=10_000, ge=1, le=100_000)
    """Items kept per user as seen, and as many as dismissed; the oldest go first."""
    interest_half_life_days: float = Field(default=30.0, gt=0, le=36_500)
    """A user's interest in a category wears off by half in this time. A change holds for what comes after it."""
    interest_max_categories: int = Field(default=100, ge=0, le=1_000)
    """Strongest categories kept per user; 0: interests are not kept."""
    interest_top_count: int = Field(default=20, ge=0, le=1_000)
    """Strongest categories that GetUserFeatures returns."""


def feature_settings(scenario: Scenario) -> FeatureSettings:
    """The scenario's section `feature`. SetupError names what is wrong in it."""
    settings = scenario.section("feature", FeatureSettings)
    for event in settings.history_events or []:
        if event not in scenario.head.events:
            raise SetupError(
                f"{scenario.where}.feature: history_events: {event!r} is not in the scenario's events: "
                + ", ".join(scenario.head.events)
            )
    return settings
