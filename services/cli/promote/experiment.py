"""The canary's experiment: its file, which ranking follows, and a line for all that was decided."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from services.cli.state import StateFolder, write_text_atomically
from services.ranking.config import ExperimentSettings, ranking_settings
from services.runtime.config import parse_settings, read_yaml
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario


def _path(state: StateFolder, scenario: Scenario) -> Path:
    return state.root / "experiments" / f"{scenario.name}.yaml"


def running(state: StateFolder, scenario: Scenario) -> ExperimentSettings | None:
    """The experiment that runs: the state folder's; without one, the scenario file's."""
    path = _path(state, scenario)
    if not path.exists():
        return ranking_settings(scenario).experiment
    values = read_yaml(path)
    return None if values is None else parse_settings(ExperimentSettings, values, str(path))


def end_reason(state: StateFolder, scenario: Scenario, name: str) -> str | None:
    """Why an experiment that does not run any more was ended; none: it never began."""
    own = [decided for decided in _decisions(state, scenario) if decided["experiment"] == name]
    if not own:
        return None
    return str(own[-1]["reason"] if own[-1]["action"] == "end" else "") or "was ended by hand"


def roll_back_reason(state: StateFolder, scenario: Scenario, name: str) -> str:
    """Why the experiment's canary has no users any more."""
    for decided in reversed(_decisions(state, scenario)):
        if decided["experiment"] == name and decided["action"] == "roll back":
            return f"guardrail {decided['guardrail']}: {decided['reason']}"
    return "its share was set to 0 by hand"


def start_experiment(state: StateFolder, scenario: Scenario, settings: ExperimentSettings, reason: str) -> None:
    """Deal the scenario's users. SetupError when another experiment runs."""
    before = running(state, scenario)
    if before is not None:
        raise SetupError(f"{scenario.name}: experiment {before.name!r} runs; end it first")
    _write(state, scenario, "start", settings, reason)


def set_shares(state: StateFolder, scenario: Scenario, shares: Mapping[str, float], reason: str) -> None:
    """Give variants other percentages, and the control what is left."""
    settings = running(state, scenario)
    assert settings is not None
    _write(state, scenario, "step", _with_shares(settings, shares), reason)


def _with_shares(settings: ExperimentSettings, shares: Mapping[str, float]) -> ExperimentSettings:
    now = {variant.name: variant.percent for variant in settings.variants}
    control = settings.variants[0].name
    wanted = now | dict(shares)
    wanted[control] = round(100 - sum(percent for name, percent in wanted.items() if name != control), 2)
    variants = tuple(variant.model_copy(update={"percent": wanted[variant.name]}) for variant in settings.variants)
    return settings.model_copy(update={"variants": variants, "earlier": (*settings.earlier, now)})


def roll_back(state: StateFolder, scenario: Scenario, variant: str, guardrail: str, reason: str) -> None:
    """Give a variant's users to the control, for a guardrail that it crossed."""
    settings = running(state, scenario)
    assert settings is not None
    _write(state, scenario, "roll back", _with_shares(settings, {variant: 0.0}), reason, guardrail)


def stop_experiment(state: StateFolder, scenario: Scenario, reason: str) -> None:
    """Everybody gets what the scenario says."""
    settings = running(state, scenario)
    assert settings is not None
    write_text_atomically(_path(state, scenario), "# No experiment.\n")
    _record(state, scenario, "end", settings, reason)


def _write(
    state: StateFolder, scenario: Scenario, action: str, settings: ExperimentSettings, reason: str, guardrail: str = ""
) -> None:
    document = settings.model_dump(mode="json", exclude_unset=True)
    write_text_atomically(_path(state, scenario), yaml.safe_dump(document, sort_keys=False))
    _record(state, scenario, action, settings, reason, guardrail)


def _record(
    state: StateFolder, scenario: Scenario, action: str, settings: ExperimentSettings, reason: str, guardrail: str = ""
) -> None:
    shares = {} if action == "end" else {variant.name: variant.percent for variant in settings.variants}
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "action": action, "experiment": settings.name,
        "shares": shares, "guardrail": guardrail, "reason": reason,
        "settings": settings.model_dump(mode="json", exclude_unset=True),
    }  # fmt: skip
    with _path(state, scenario).with_suffix(".jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def _decisions(state: StateFolder, scenario: Scenario) -> list[dict[str, Any]]:
    path = _path(state, scenario).with_suffix(".jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []
