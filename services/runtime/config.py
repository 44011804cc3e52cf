"""Settings: frozen, documented, checked on load. One file per process, YAML."""

import argparse
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.runtime.errors import SetupError


class Settings(BaseModel):
    """Base of every group of settings. Unknown names are refused; values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)


def parse_settings(kind: type[S], values: Any, where: str) -> S:
    """Check `values` against `kind`. Raises SetupError naming `where`, every wrong setting and its problem."""
    try:
        return kind.model_validate(values if values is not None else {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or '(root)'}: "
            + (
                "unknown setting; remove it or correct its name"
                if problem["type"] == "extra_forbidden"
                else problem["msg"]
            )
            for problem in error.errors()
        )
        raise SetupError(f"{where}: {problems}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises SetupError when it is missing or not YAML."""
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SetupError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SetupError(f"{path}: cannot be read as YAML: {error}") from None


class TlsSettings(Settings):
    """Mutual TLS between services. Files may be replaced while the process runs; the next connection uses them."""

    certificate_file: Path
    """This process's certificate chain, PEM."""
    key_file: Path
    """Its private key, PEM."""
    ca_file: Path
    """The authority that peers' certificates must come from, PEM."""


class ServerSettings(Settings):
    """How a process listens, reports and stops."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(ge=0, le=65535)
    """gRPC port; 0 picks a free one."""
    metrics_port: int = Field(ge=0, le=65535)
    """Port of /metrics; 0 picks a free one."""
    reflection: bool = True
    """Answer gRPC reflection requests."""
    max_message_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    """Largest message accepted; a larger one gets RESOURCE_EXHAUSTED."""
    max_concurrent_calls: int = Field(default=256, ge=1)
    """Calls in flight before new ones get RESOURCE_EXHAUSTED."""
    max_connection_age_s: int = Field(default=600, ge=10)
    """Connections are closed politely after this time so that clients rebalance."""
    drain_s: float = Field(default=5.0, ge=0)
    """After SIGTERM: how long calls in flight may take to finish."""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Least severe level that is logged."""
    otlp_endpoint: str | None = None
    """host:port of an OpenTelemetry collector (gRPC, plaintext); none: no traces."""
    tls: TlsSettings | None = None
    """Mutual TLS; none: plaintext."""
    allowed_clients: list[str] = Field(default_factory=list)
    """Identities that may call: names (DNS or URI) in the client's certificate. Empty: whoever has a certificate of the
    authority. Others get PERMISSION_DENIED. Needs `tls`."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Plaintext port that answers gRPC health checks and nothing else, for probes that have no certificate; 0 picks a
    free one; none: health is answered on `port` only."""

    @model_validator(mode="after")
    def _check(self) -> "ServerSettings":
        if self.allowed_clients and self.tls is None:
            raise ValueError("allowed_clients needs tls: without certificates nobody can be told apart")
        return self


class ClientSettings(Settings):
    """How a process calls another service."""

    address: str = Field(min_length=1)
    """gRPC target, e.g. "127.0.0.1:50051", "dns:///feature:50051", "ipv4:10.0.0.1:1,10.0.0.2:1"."""


def load_config(kind: type[S], program: str) -> S:
    """The process's settings from the file that `--config` names. SetupError names file, setting and problem."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with this process's settings")
    path: Path = parser.parse_args().config
    return parse_settings(kind, read_yaml(path), str(path))
