"""What the controller sees of a scenario, and what it can do about it. Values without behaviour."""

from dataclasses import dataclass
from datetime import datetime

from services.experiment.canary import CanaryCounts
from services.rollout.documents import Served
from services.rollout.state import State
from services.rollout.wish import Wish


@dataclass(frozen=True)
class Workload:
    """A Deployment that brings bundles when its pods start."""

    name: str
    serves: str | None
    """The annotation of its pod template; none: as the chart says."""
    rolled_out: bool
    """Whether all its pods are of the newest template and available."""
    problem: str = ""
    """Why new pods cannot bring their bundles; empty: nothing is known to be wrong."""


@dataclass(frozen=True)
class Wished:
    """What somebody wants now."""

    wish: Wish | None = None
    """None: nothing, or it cannot be read."""
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Limits:
    """The controller's own settings that decisions depend on."""

    load_timeout_s: float = 1_800.0
    """How long pods may take to bring and load a version."""
    settle_s: float = 120.0
    """How long ranking may take to follow an experiment's end, where Prometheus does not tell."""
    refresh_s: float = 30.0
    """How often a message that changes is written."""
    require_gate: bool = False
    """Whether a wish needs the gate's verdict."""


@dataclass(frozen=True)
class Observed:
    """One look at a scenario."""

    scenario: str
    uid: str
    """Of the ConfigMap with the state."""
    initial: str
    """The version that the chart's values name."""
    now: datetime
    """UTC."""
    state: State | None
    """None: nothing was done yet."""
    told: bool
    """Whether the last change has its Event."""
    wished: Wished
    dealt: str | None
    """The scenario's document among ranking's experiments."""
    pool: Workload
    servers: tuple[Workload, ...]
    """Scoring and candidate."""
    loaded: bool | None = None
    """Whether all scoring pods serve the target; none: not known."""
    dealing: bool | None = None
    """Whether a ranking pod still deals users by the experiment; none: not known."""
    counts: CanaryCounts | None = None
    """None: not known."""
    blind: str = ""
    """Why Prometheus does not tell."""


@dataclass(frozen=True)
class Save:
    """Remember this."""

    state: State


@dataclass(frozen=True)
class Deal:
    """Give ranking this experiment; none: no experiment."""

    document: str | None


@dataclass(frozen=True)
class Serve:
    """Have a Deployment replace its pods by ones that bring these versions."""

    workload: str
    served: Served


@dataclass(frozen=True)
class Tell:
    """Record the state's last change as an Event."""

    state: State


@dataclass(frozen=True)
class Wait:
    """Nothing to do now."""

    message: str
    """For what."""


Action = Save | Deal | Serve | Tell | Wait
