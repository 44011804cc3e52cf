"""`recmesh experiment`: what runs, how it stands, and changing it."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.client import find_address
from services.cli.experiment import actions
from services.cli.experiment.counts import read_counts
from services.cli.experiment.files import ExperimentFiles
from services.cli.experiment.mirror import start_mirror, stop_mirror
from services.cli.experiment.standing import Standing, as_json, print_standing, standing
from services.cli.experiment.watch import WATCH_S, Sources, describe, watch_once
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder, read_up_info
from services.ranking.config import ExperimentSettings, ranking_settings
from services.ranking.mirror_settings import MirrorSettings
from services.runtime.config import parse_settings, read_yaml
from services.runtime.errors import InvalidFieldError, RecmeshError, SetupError
from services.runtime.scenario import Scenario

app = typer.Typer(no_args_is_help=True, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="SCENARIO", help="Scenario.")]
ScenarioFileOption = Annotated[
    list[Path] | None,
    typer.Option("--scenario-file", help="Scenario file; default: those that run here, else all of deploy/scenarios."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it is kept with the decision.")]


@app.command("status")
def status(
    name: Name,
    json_output: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with a plot of the lift over time.")] = None,
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """How the scenario's experiment stands; without one that runs, the last that did."""
    folder, console = StateFolder(state), open_console()
    scenario = find_scenario_file(name, folder, scenario_file)
    address = find_address("feedback", state, None)
    found = read_standing(folder, scenario, address)
    if json_output:
        typer.echo(json.dumps(as_json(found), indent=2, allow_nan=False))
    else:
        print_standing(found, console)
    if html is not None:
        html.write_text(_page(found, address))


def read_standing(folder: StateFolder, scenario: Scenario, feedback: str) -> Standing:
    """Read files and counts. SetupError when the scenario never had an experiment."""
    files = ExperimentFiles(folder, scenario)
    running, decisions = files.running(), files.decisions()
    if running is None and not decisions:
        raise SetupError(
            f"{scenario.name}: no experiment yet; start one: recmesh experiment start {scenario.name} FILE"
        )
    experiment = running or decisions[-1].settings
    counts = read_counts(feedback, scenario.name, experiment.name)
    return standing(scenario.name, experiment, running is not None, counts, decisions)


def _page(found: Standing, address: str) -> str:
    # They take a second to import.
    from services.cli.experiment.over_time import lifts_over_time, read_shown
    from services.cli.experiment.page import experiment_page

    variants = [variant.name for variant in found.experiment.variants]
    if found.experiment.interleave is not None:
        # What is shown in common says nothing for one of them.
        return experiment_page(found, [], {})
    shown = read_shown(address, found.scenario, found.experiment.name, 0)
    return experiment_page(found, *lifts_over_time(shown, variants, found.level))


@app.command("start")
def start(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="YAML document; default: the scenario file's experiment.")
    ] = None,
    reason: ReasonOption = "",
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Deal the scenario's users to variants. Ranking follows within a second."""
    folder = StateFolder(state)
    scenario = find_scenario_file(name, folder, scenario_file)
    if file is not None:
        experiment = parse_settings(ExperimentSettings, read_yaml(file), str(file))
    else:
        configured = ranking_settings(scenario).experiment
        if configured is None:
            raise SetupError(f"{scenario.where}.ranking: has no experiment; name a FILE with one")
        experiment = configured
    actions.start_experiment(folder, scenario, experiment, reason)
    _say_shares(experiment)


@app.command("set")
def set_(
    name: Name,
    shares: Annotated[list[str], typer.Argument(metavar="VARIANT=PERCENT...", help="Shares that change.")],
    reason: ReasonOption = "",
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Give variants other shares of the users; the control gets what is left, unless it is named."""
    folder = StateFolder(state)
    scenario = find_scenario_file(name, folder, scenario_file)
    _say_shares(actions.set_shares(folder, scenario, dict(map(_parse_share, shares)), reason))


@app.command("stop")
def stop(
    name: Name,
    reason: ReasonOption = "",
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """End the experiment: everybody gets what the scenario says."""
    folder = StateFolder(state)
    ended = actions.stop_experiment(folder, find_scenario_file(name, folder, scenario_file), reason)
    open_console().print(f"{ended.name} is over", highlight=False)


@app.command("mirror")
def mirror(
    name: Name,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Model version that ranks them; it must serve.")
    ] = None,
    percent: Annotated[float, typer.Option("--percent", help="Share of the requests.")] = 100.0,
    stop: Annotated[bool, typer.Option("--stop", help="End it.")] = False,
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Have requests ranked by another model version as well: measured, never shown. Ranking follows within a second."""
    folder, console = StateFolder(state), open_console()
    scenario = find_scenario_file(name, folder, scenario_file)
    if stop is (version is not None):
        raise SetupError("give either a VERSION or --stop")
    if version is None:
        stop_mirror(folder, scenario.name)
        console.print(f"{scenario.name}: no shadow requests", highlight=False)
        return
    settings = parse_settings(MirrorSettings, {"model_version": version, "percent": percent}, "mirror")
    start_mirror(folder, scenario.name, settings)
    console.print(f"{scenario.name}: {percent:g} % of the requests are ranked by {version} as well", highlight=False)


@app.command("watch")
def watch(
    name: Name,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = WATCH_S,
    scenario_file: ScenarioFileOption = None,
    state: StateOption = DEFAULT_STATE,
) -> None:
    """Roll back variants that cross a guardrail, until Ctrl-C. `recmesh up` does this for all its scenarios."""
    folder, console = StateFolder(state), open_console()
    scenario = find_scenario_file(name, folder, scenario_file)
    while True:
        try:
            sources = running_sources(folder)
            found = watch_once(folder, scenario, sources)
            lines = [describe(scenario.name, looked) for looked in found] or [f"{scenario.name}: no variant to watch"]
        except (RecmeshError, OSError) as error:
            # A service that is away now is back later.
            if once:
                raise
            lines = [f"{scenario.name}: not watched: {error}"]
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if once:
            return
        time.sleep(every)


def running_sources(folder: StateFolder) -> Sources:
    """Where the mesh of a state folder tells its counts. SetupError when nothing runs on it."""
    processes = read_up_info(folder).processes
    return Sources(processes["feedback"].address, processes["ranking"].metrics_address)


def find_scenario_file(name: str, folder: StateFolder, files: list[Path] | None) -> Scenario:
    """The scenario from `files`, from those that run on the state folder, or from deploy/scenarios."""
    if not files and folder.addresses.is_file():
        files = read_up_info(folder).scenario_files
    return named_scenario(name, files)


def _parse_share(text: str) -> tuple[str, float]:
    variant, separator, percent = text.partition("=")
    try:
        if separator:
            return variant, float(percent)
    except ValueError:
        pass
    raise InvalidFieldError("VARIANT=PERCENT", f"is {text!r}; write e.g. bold=10")


def _say_shares(experiment: ExperimentSettings) -> None:
    shares = ", ".join(f"{variant.name} {variant.percent:g} %" for variant in experiment.variants)
    open_console().print(f"{experiment.name}: {shares}", highlight=False)
