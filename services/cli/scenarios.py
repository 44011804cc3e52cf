"""Finding a scenario by its name."""

from pathlib import Path

from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario, load_scenarios

FOLDER = Path("deploy/scenarios")
"""Where scenario files lie, relative to the working folder."""


def scenario_files(files: list[Path] | None = None) -> list[Path]:
    """`files`, or those of deploy/scenarios. SetupError when there are none."""
    searched = files or sorted(FOLDER.glob("*.yaml"))
    if not searched:
        raise SetupError(
            f"no scenario files in {FOLDER.absolute()}; run in the project's folder or name --scenario-file"
        )
    return searched


def named_scenario(name: str, files: list[Path] | None = None) -> Scenario:
    """The scenario `name` from `files`, or from deploy/scenarios/*.yaml. SetupError names the scenarios there are."""
    scenarios = load_scenarios(scenario_files(files))
    if name not in scenarios:
        raise SetupError(
            f"no scenario {name!r} (there are: {', '.join(sorted(scenarios))}); write {FOLDER / f'{name}.yaml'} or "
            "name its file with --scenario-file"
        )
    return scenarios[name]
