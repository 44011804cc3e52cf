"""What the controller writes for others: the experiment that ranking follows, and which versions a pod brings. Pure."""

import hashlib
import json
from dataclasses import dataclass

import yaml

from services.rollout.state import State

CONTROL, CANARY = "current", "canary"
"""The experiment's variants, as in the chart's own canary."""

_MAX_EARLIER = 100


@dataclass(frozen=True)
class Served:
    """The versions that a pod's init container brings."""

    current: str
    also: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The annotation's value (deploy/models reads it through the pod's environment)."""
        return json.dumps({"current": self.current, "also": list(self.also)}, sort_keys=True)


def served_annotation(scenario: str) -> str:
    """Name of the annotation, in the pod templates of all that bring the scenario's bundles."""
    return f"recmesh.io/served-{scenario}"


def pool_served(state: State) -> Served:
    """What the pool loads. It does not matter which is current there, so that a switch replaces no pod of it."""
    first, *rest = sorted({state.current, *both(state)})
    return Served(first, tuple(rest))


def servers_served(state: State) -> Served:
    """What scoring and candidate serve."""
    if state.phase == "promoting":
        return Served(state.target, (state.current,))
    return Served(state.current, tuple(version for version in both(state) if version != state.current))


def both(state: State) -> tuple[str, ...]:
    """The versions that are to be loaded."""
    if state.phase in ("loading", "canary", "promoting"):
        return (state.current, state.target)
    return (state.current,)


def experiment_name(scenario_uid: str, number: int, version: str) -> str:
    """No two rollouts have the same, since counts are kept by name."""
    digest = hashlib.sha256(f"{scenario_uid} {number} {version}".encode()).hexdigest()[:10]
    return f"rollout-{number}-{digest}"


def experiment_document(state: State) -> str | None:
    """The experiment of ranking in this phase; none: everybody gets the current version."""
    if state.phase not in ("canary", "promoting") or state.wish is None or not state.percent:
        return None
    document = {
        "name": state.experiment,
        # Any text will do: the name, which differs each time, is hashed with it.
        "salt": f"recmesh-{state.experiment}",
        "variants": [
            {"name": CONTROL, "percent": round(100 - state.percent, 2)},
            {"name": CANARY, "percent": state.percent, "model_version": state.target},
        ],
        "earlier": [{CONTROL: round(100 - old, 2), CANARY: old} for old in state.earlier[-_MAX_EARLIER:]],
        "guardrails": state.wish.guardrails.model_dump(),
    }
    return yaml.safe_dump(document, sort_keys=False)
