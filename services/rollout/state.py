"""What the controller remembers of a scenario: one document in the scenario's ConfigMap. Pure."""

from datetime import datetime
from typing import Any, Literal, get_args

import yaml
from pydantic import Field

from services.rollout.wish import Wish
from services.runtime.config import Settings, parse_settings
from services.runtime.errors import SetupError

Phase = Literal["stable", "loading", "canary", "promoting", "finishing", "rolling_back"]
"""stable: one version serves everybody. loading: the new one is brought into all pods. canary: a share of the users has
it. promoting: it becomes what answers whoever names none. finishing: the old one goes. rolling_back: it goes itself."""

PHASES: tuple[Phase, ...] = get_args(Phase)

Outcome = Literal["", "promoted", "rolled_back", "refused"]


class Condition(Settings):
    """One statement, in Kubernetes' form."""

    type: Literal["Accepted", "Progressing", "Complete"]
    """Accepted: the wish can be read. Progressing: a version is on its way. Complete: the wished version serves all."""
    status: Literal["True", "False", "Unknown"]
    reason: str
    """One word."""
    message: str = ""
    """One sentence."""
    lastTransitionTime: str  # noqa: N815 - Kubernetes' name
    """When the status last changed, ISO 8601, UTC."""


class State(Settings):
    """Everything that outlives a process."""

    phase: Phase
    current: str
    """The version that answers whoever names none; from `promoting`'s end on the new one."""
    target: str = ""
    """The version on its way, or that goes; empty when stable."""
    wish: Wish | None = None
    """The wish that is being fulfilled, as it was last right; none when stable."""
    number: int = Field(default=0, ge=0)
    """Rollouts begun so far."""
    transition: int = Field(default=0, ge=0)
    """Changes of phase or share so far; each has one Event."""
    experiment: str = ""
    """Name of the experiment that deals the users; empty when stable."""
    percent: float = Field(default=0.0, ge=0, le=100)
    """The new version's share of the users."""
    earlier: tuple[float, ...] = ()
    """Shares that it had before, oldest first."""
    began: str = ""
    """When the first users were dealt, ISO 8601, UTC."""
    since: str
    """When this phase or share began, ISO 8601, UTC."""
    reason: str = ""
    """Why it began, one sentence."""
    outcome: Outcome = ""
    """How the last rollout ended."""
    refused: str = ""
    """Digest of the wish that was refused or rolled back; it is not tried again."""
    conditions: tuple[Condition, ...] = ()
    """For people and tools."""
    looked: str = ""
    """When the conditions were last written, ISO 8601, UTC."""

    def since_s(self, now: datetime) -> float:
        """Seconds since this phase or share began."""
        return (now - datetime.fromisoformat(self.since)).total_seconds()


def write_state(state: State) -> str:
    """The document."""
    return yaml.safe_dump(state.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def read_state(text: str, where: str) -> State:
    """The document's content. SetupError when somebody changed it to what it cannot be."""
    try:
        content: Any = yaml.safe_load(text)
        return parse_settings(State, content, where)
    except (SetupError, yaml.YAMLError) as error:
        raise SetupError(f"{where}: {error}; correct it, or remove the key to begin anew") from None
