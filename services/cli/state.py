"""The state folder: where everything of one machine lies, and what a running `recmesh up` says of itself there."""

import json
import os
from pathlib import Path
from typing import Literal

from services.runtime.config import Settings, TlsSettings, parse_settings
from services.runtime.errors import SetupError

DEFAULT_STATE = Path(".recmesh")


class StateFolder:
    """Paths in a state folder (docs/architecture.md lists them)."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.models = self.root / "models"
        self.base_models = self.root / "base_models"
        self.run = self.root / "run"
        self.log = self.root / "log"
        self.spool = self.root / "spool"
        self.experiments = self.root / "experiments"
        self.seeds = self.root / "seed"
        self.engines = self.root / "engines.yaml"
        self.key = self.root / "pseudonym.key"
        self.erasures = self.root / "erasures"
        self.lock = self.run / "lock"
        self.addresses = self.run / "up.json"
        self.scrape_targets = self.run / "prometheus-targets.json"

    def data(self, scenario: str) -> Path:
        """Tables of a scenario."""
        return self.root / "data" / scenario

    def triton(self, scenario: str) -> Path:
        """Model repository of a scenario's pool."""
        return self.root / "triton" / scenario

    def seed_marker(self, scenario: str) -> Path:
        """What of the tables was sent to the services."""
        return self.seeds / f"{scenario}.json"

    def engine_data(self, name: str) -> Path:
        """Files of an engine's server that `recmesh up` starts."""
        return self.root / name

    def config(self, process: str, suffix: str = "yaml") -> Path:
        """Settings of a process that `recmesh up` starts."""
        return self.run / f"{process}.{suffix}"

    def log_file(self, process: str) -> Path:
        """Log of a process that `recmesh up` starts."""
        return self.log / f"{process}.log"


Protocol = Literal["grpc", "nats", "valkey", "none"]
"""How a process is talked to; "none": not at all, it works by itself."""


class ProcessInfo(Settings):
    """A process of a running `recmesh up`."""

    address: str
    """host:port of its protocol; empty for none."""
    metrics_address: str
    """HTTP, host:port of /metrics; empty for none."""
    health_service: str
    """Its name in gRPC health."""
    protocol: Protocol = "grpc"
    """How it is talked to."""
    scenario: str | None = None
    """The only scenario it works for; none: all."""
    pid: int | None
    """Its process; none while it is being restarted."""
    restart_count: int = 0
    """How often it was started again after it ended by itself."""


class UpInfo(Settings):
    """What <state>/run/up.json holds."""

    pid: int
    """The supervisor."""
    started_time: str
    """When it started, ISO 8601, UTC."""
    scenario_files: list[Path]
    """The scenarios it runs."""
    model_versions: dict[str, str]
    """Scenario → the bundle that was current at the start."""
    processes: dict[str, ProcessInfo]
    """Everything it runs, by name."""
    tls: TlsSettings | None = None
    """How `recmesh update` calls the processes where they ask for certificates, as on Kubernetes; none: plaintext."""


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a file's content; a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text)
    os.replace(scratch, path)


def write_up_info(state: StateFolder, info: UpInfo) -> None:
    """Say in the state folder what runs."""
    write_text_atomically(state.addresses, info.model_dump_json(indent=2) + "\n")


def read_up_info(state: StateFolder) -> UpInfo:
    """What runs on this state folder. SetupError when nothing does."""
    try:
        values = json.loads(state.addresses.read_text())
    except FileNotFoundError:
        raise SetupError(f"{state.root}: nothing runs on this state folder; start it with `recmesh up`") from None
    return parse_settings(UpInfo, values, str(state.addresses))
