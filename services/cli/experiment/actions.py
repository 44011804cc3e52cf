"""What may be done to a scenario's experiment: start, other shares, roll back, end. Ranking follows within a second.

Each is written to the file first and to the decisions after it: where a process is killed in between, users are dealt
as the file says.
"""

from collections.abc import Mapping

from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.shares import rolled_back, with_shares
from services.cli.state import StateFolder
from services.ranking.config import ExperimentSettings, check_experiment
from services.runtime.bundle import served_versions
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario


def start_experiment(state: StateFolder, scenario: Scenario, settings: ExperimentSettings, reason: str = "") -> None:
    """Deal the scenario's users to the experiment's variants.

    SetupError when it does not fit the scenario, names a model version that does not serve, has a name that another one
    had, or when one of the state folder runs.
    """
    check_experiment(settings, scenario, f"experiment {settings.name!r}")
    _check_versions(state, scenario, settings)
    files = ExperimentFiles(state, scenario)
    with files.locked():
        running = files.running() if files.path.exists() else None
        if running is not None:
            raise SetupError(
                f"{files.path}: experiment {running.name!r} runs; end it first: recmesh experiment stop {scenario.name}"
            )
        if any(decided.experiment == settings.name for decided in files.decisions()):
            raise SetupError(
                f"{files.decisions_path}: there was an experiment {settings.name!r}, whose counts would be mixed with "
                "this one's; give it another name"
            )
        files.write(settings)
        files.record("start", settings, reason=reason)


def set_shares(
    state: StateFolder, scenario: Scenario, shares: Mapping[str, float], reason: str = ""
) -> ExperimentSettings:
    """Give variants of the running experiment other percentages, and the control what is left unless it is named.

    Returns the experiment as it is now. SetupError when none runs; InvalidFieldError names a wrong share.
    """
    files = ExperimentFiles(state, scenario)
    with files.locked():
        changed = with_shares(_running(files, scenario), shares)
        files.write(changed)
        files.record("step", changed, reason=reason)
    return changed


def roll_back(
    state: StateFolder, scenario: Scenario, experiment: str, variant: str, guardrail: str, reason: str
) -> ExperimentSettings | None:
    """Give a variant's users to the control, for a guardrail that it crossed. None: the experiment is over, or the
    variant has no users any more."""
    files = ExperimentFiles(state, scenario)
    with files.locked():
        running = files.running()
        if running is None or running.name != experiment:
            return None
        if not any(entry.name == variant and entry.percent > 0 for entry in running.variants):
            return None
        changed = rolled_back(running, variant, reason)
        files.write(changed)
        files.record("roll back", changed, variant, guardrail, reason)
    return changed


def stop_experiment(state: StateFolder, scenario: Scenario, reason: str = "") -> ExperimentSettings:
    """End the running experiment: everybody gets what the scenario says. Returns it as it was. SetupError when none
    runs."""
    files = ExperimentFiles(state, scenario)
    with files.locked():
        running = _running(files, scenario)
        files.write(None)
        files.record("end", running, reason=reason)
    return running


def _running(files: ExperimentFiles, scenario: Scenario) -> ExperimentSettings:
    running = files.running()
    if running is None:
        raise SetupError(
            f"{scenario.name}: no experiment runs; start one: recmesh experiment start {scenario.name} FILE"
        )
    return running


def _check_versions(state: StateFolder, scenario: Scenario, settings: ExperimentSettings) -> None:
    served = served_versions(state.models, scenario.name)
    for variant in settings.variants:
        if variant.model_version is not None and variant.model_version not in served:
            raise SetupError(
                f"experiment {settings.name!r}: variant {variant.name!r}: model_version {variant.model_version!r} does "
                f"not serve (served: {', '.join(served) or 'none'}); run `recmesh models serve`"
            )
