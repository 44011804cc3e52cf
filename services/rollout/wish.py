"""What somebody wants: the ConfigMap that names a scenario's model version, as a checked value. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import Field

from services.experiment.canary import CanaryStep
from services.experiment.guardrails import GuardrailSettings
from services.runtime.config import Settings, parse_settings
from services.runtime.errors import SetupError

VERSION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
"""What a version may be called: it is a folder's name, and part of one of Triton's models."""

DEFAULT_STEPS = (5.0, 25.0, 50.0, 100.0)
DEFAULT_IMPRESSIONS = 2_000

_KEYS = ("model_version", "steps", "min_impressions", "guardrails", "paused", "gate.json")


class Guardrails(Settings):
    """How much worse than the current version the new one may be; as in an experiment (docs/experiments.md)."""

    max_ctr_drop: float = Field(default=0.1, ge=0, lt=1)
    """Largest relative drop of the CTR."""
    max_p99_ratio: float = Field(default=1.5, ge=1)
    """Largest ratio of the 0.99 quantiles of latency."""
    max_error_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the shares of failed requests."""
    max_degraded_ratio: float = Field(default=2.0, ge=1)
    """Largest ratio of the shares of degraded answers."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Probability that a version which keeps all of this is ever rolled back."""
    resolution: float = Field(default=0.01, gt=0, lt=1)
    """Absolute difference of rates that is to be found soonest."""

    def limits(self) -> GuardrailSettings:
        """As the tests take them."""
        return GuardrailSettings(**self.model_dump())


class Gate(Settings):
    """What `recmesh promote --check-only --json` said of the version."""

    version: str
    """The version that was checked."""
    passed: bool
    """Whether the gate lets it pass."""
    reasons: tuple[str, ...] = ()
    """Why not."""


class Wish(Settings):
    """A version, and how users are to get it."""

    model_version: str = Field(pattern=VERSION_PATTERN)
    """The version to move to."""
    steps: tuple[float, ...] = DEFAULT_STEPS
    """Percent of the users, one share after the other; the last is 100."""
    min_impressions: tuple[int, ...] = (DEFAULT_IMPRESSIONS,) * (len(DEFAULT_STEPS) - 1)
    """Items that the version must have shown at each share below 100 before the next."""
    guardrails: Guardrails = Guardrails()
    """What rolls it back."""
    paused: bool = False
    """Whether it stays at the share it has; guardrails hold all the same."""
    gate: Gate | None = None
    """The gate's verdict, where it was handed over."""

    @property
    def canary_steps(self) -> tuple[CanaryStep, ...]:
        """The shares below 100, with the impressions counted from the beginning; empty: all users at once."""
        total, steps = 0, []
        for percent, least in zip(self.steps, self.min_impressions, strict=False):
            total += least
            steps.append(CanaryStep(percent=percent, min_impressions=total))
        return tuple(steps)

    @property
    def digest(self) -> str:
        """Of all that a refusal depends on: a wish with another one is tried anew."""
        text = json.dumps(self.model_dump(mode="json", exclude={"paused"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_wish(data: Mapping[str, str], where: str) -> Wish:
    """The wish in a ConfigMap's data. SetupError names `where`, the key and the fix."""
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise SetupError(f"{where}: {unknown[0]}: unknown key; give some of {', '.join(_KEYS)}")
    if not data.get("model_version", "").strip():
        raise SetupError(f"{where}: model_version: is missing; name the bundle to serve")
    values: dict[str, Any] = {"model_version": data["model_version"].strip()}
    steps = _steps(data["steps"], where) if "steps" in data else DEFAULT_STEPS
    values |= {"steps": steps, "min_impressions": _impressions(data.get("min_impressions"), len(steps) - 1, where)}
    if "guardrails" in data:
        values["guardrails"] = _mapping(data["guardrails"], f"{where}: guardrails")
    if "paused" in data:
        paused = data["paused"].strip().lower()
        if paused not in ("true", "false"):
            raise SetupError(f"{where}: paused: is {data['paused']!r}; give true or false, in quotes")
        values["paused"] = paused == "true"
    if "gate.json" in data:
        values["gate"] = _gate(data["gate.json"], f"{where}: gate.json")
    wish = parse_settings(Wish, values, where)
    if wish.gate is not None and wish.gate.version != wish.model_version:
        raise SetupError(
            f"{where}: gate.json: is about version {wish.gate.version!r}, not {wish.model_version!r}; check that one"
        )
    return wish


def _steps(text: str, where: str) -> tuple[float, ...]:
    steps = _numbers(text, f"{where}: steps", "5, 25, 50, 100")
    for place, percent in enumerate(steps):
        if not 0 < percent <= 100:
            raise SetupError(f"{where}: steps: {percent:g} is no share of the users; give percent over 0, at most 100")
        if abs(percent * 100 - round(percent * 100)) > 1e-6:
            raise SetupError(f"{where}: steps: {percent} has more than two decimals; round it")
        if place and percent <= steps[place - 1]:
            raise SetupError(f"{where}: steps: {percent:g} comes after {steps[place - 1]:g}; give shares that rise")
    if steps[-1] != 100:
        raise SetupError(f"{where}: steps: ends at {steps[-1]:g}; add 100, at which the version becomes the stable one")
    return steps


def _impressions(text: str | None, count: int, where: str) -> tuple[int, ...]:
    if text is None:
        return (DEFAULT_IMPRESSIONS,) * count
    name = f"{where}: min_impressions"
    numbers = _numbers(text, name, "2000")
    for number in numbers:
        if not 1 <= number <= 1e12 or number != int(number):
            raise SetupError(f"{name}: {number:g} is no number of impressions; give a whole number of at least 1")
    if len(numbers) not in (1, count):
        raise SetupError(
            f"{name}: has {len(numbers)} numbers; give one, or one for each of the {count} steps below 100"
        )
    least = tuple(int(number) for number in numbers)
    return least * count if len(least) == 1 else least


def _numbers(text: str, name: str, example: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.strip().strip("[]").split(","))
    except ValueError:
        raise SetupError(f"{name}: {text!r} is no list of numbers; write e.g. {example!r}") from None
    return numbers


def _mapping(text: str, name: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SetupError(f"{name}: cannot be read as YAML: {error}") from None
    if not isinstance(found, dict):
        raise SetupError(f"{name}: is no mapping; write e.g. 'max_ctr_drop: 0.05'")
    return found


def _gate(text: str, name: str) -> dict[str, Any]:
    found = _mapping(text, name)
    missing = [key for key in ("version", "passed") if key not in found]
    if missing:
        raise SetupError(f"{name}: has no {missing[0]!r}; give what `recmesh promote --check-only --json FILE` wrote")
    return {key: found[key] for key in ("version", "passed", "reasons") if key in found}
