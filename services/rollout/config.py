"""Settings of the rollout controller."""

from pathlib import Path

from pydantic import Field, model_validator

from services.rollout.observed import Limits
from services.rollout.wish import VERSION_PATTERN
from services.runtime.config import ServerSettings, Settings


class PrometheusSettings(Settings):
    """Where the counts come from."""

    address: str = Field(pattern=r"^https?://[^/\s]+")
    """Base URL of Prometheus' HTTP API, e.g. "http://prometheus.monitoring:9090"."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that tell this mesh's series from others', e.g. {namespace: recmesh}."""
    token_file: Path | None = None
    """File with a bearer token; none: no Authorization header."""
    timeout_s: float = Field(default=10.0, gt=0)
    """How long an answer may take."""


class LeaseSettings(Settings):
    """Which of several controllers works."""

    name: str = Field(min_length=1)
    """The Lease; it must exist."""
    duration_s: int = Field(default=15, ge=3)
    """A leader that has not renewed it for so long may be followed by another one."""
    renew_deadline_s: int = Field(default=10, ge=2)
    """A leader that could not renew it for so long stops."""
    retry_s: int = Field(default=2, ge=1)
    """How often it is renewed, or tried for."""

    @model_validator(mode="after")
    def _check(self) -> "LeaseSettings":
        if not self.retry_s * 1.2 < self.renew_deadline_s < self.duration_s:
            raise ValueError("needs retry_s · 1.2 < renew_deadline_s < duration_s, so that no two lead at once")
        return self


class ScenarioObjects(Settings):
    """A scenario, and the names of its objects."""

    initial: str = Field(pattern=VERSION_PATTERN)
    """The version that the chart's values name; it counts until the first rollout."""
    state: str = Field(min_length=1)
    """ConfigMap that the controller keeps its state in; it must exist."""
    pool: str = Field(min_length=1)
    """Deployment of the Triton pool."""
    servers: tuple[str, ...] = Field(min_length=1)
    """Deployments that serve its versions: scoring and candidate."""


class RolloutConfig(Settings):
    """The process."""

    server: ServerSettings
    """How it listens (health alone), reports and stops."""
    namespace: str = Field(min_length=1)
    """Namespace of the mesh."""
    kubeconfig: Path | None = None
    """How to reach the API; none: as a pod does."""
    identity: str = ""
    """Its name in the Lease; empty: the host's, which is the pod's."""
    lease: LeaseSettings
    """Leader election."""
    experiments: str = Field(min_length=1)
    """ConfigMap with the experiments that ranking follows; it must exist."""
    scenarios: dict[str, ScenarioObjects] = Field(min_length=1)
    """By name."""
    prometheus: PrometheusSettings
    """Where the counts come from."""
    interval_s: float = Field(default=5.0, gt=0)
    """How often it looks."""
    request_timeout_s: float = Field(default=5.0, gt=0)
    """How long an answer of the API may take."""
    load_timeout_s: float = Field(default=1_800.0, gt=0)
    """How long pods may take to bring and load a version before it is rolled back."""
    settle_s: float = Field(default=120.0, ge=0)
    """How long ranking may take to follow an experiment's end; less where Prometheus tells that it did."""
    refresh_s: float = Field(default=30.0, ge=0)
    """How often a message that changes is written to the status."""
    require_gate: bool = False
    """Whether a version needs a verdict of the gate (key gate.json) to be begun."""

    @property
    def limits(self) -> Limits:
        """What decisions depend on."""
        return Limits(self.load_timeout_s, self.settle_s, self.refresh_s, self.require_gate)
