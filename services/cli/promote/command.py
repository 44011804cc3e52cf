"""`recmesh promote`: a new version reaches users through the gate, then as a canary whose share grows."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from services.cli.experiment.command import running_sources
from services.cli.experiment.files import ExperimentFiles
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.promote.canary import ReadCounts, Turn, alone, describe, experiment_name, take_turn
from services.cli.promote.counts import counts_reader
from services.cli.promote.report import as_json, check_table, refusals
from services.cli.scenarios import named_scenario, scenario_files
from services.cli.state import StateFolder
from services.ranking.config import ranking_settings
from services.runtime.bundle import Bundle, model_versions, open_current_bundle, open_version, served_versions
from services.runtime.errors import RecmeshError, SetupError
from services.runtime.promotions import Check, Outcome, Promotion, append_promotion, open_promotion, read_promotions
from services.runtime.scenario import Scenario
from services.scoring.config import scoring_settings
from services.training.config import TrainingSettings
from services.training.settings.promotion import PromotionSettings

if TYPE_CHECKING:
    from services.training.progress import Reporter

REFUSED_STATUS = 3
"""Exit status when the gate refuses the version."""
ROLLED_BACK_STATUS = 4
"""Exit status when the canary was rolled back."""


def promote(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Default: the newest version that is not current.")
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Check and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Start the canary even where the gate refuses.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Take the running canary's next turn: a larger share, its end, or neither.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option("--every", min=0.1, help="With --finish: a turn every so many seconds, until its end."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write verdicts and figures as JSON.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Check a new version against the current one and, if it passes, start its canary.

    Status 3: the gate refuses it. Status 4: --finish rolled the canary back.
    """
    _check_options(version, check_only, force, finish, every, json_file)
    named = named_scenario(scenario, scenario_file)
    settings = named.section("promotion", PromotionSettings)
    folders = StateFolder(state)
    if finish:
        _finish(folders, named, settings, every)
        return
    os.environ["OMP_NUM_THREADS"] = str(named.section("training", TrainingSettings).threads)
    with alone(folders, named):
        _promote(folders, named, settings, scenario_files(scenario_file), version, check_only, force, json_file)


def _check_options(
    version: str | None, check_only: bool, force: bool, finish: bool, every: float | None, json_file: Path | None
) -> None:
    if check_only and force:
        raise SetupError("--check-only and --force contradict each other; give one of them")
    if every is not None and not finish:
        raise SetupError("--every belongs to --finish; give both or neither")
    if finish and (version is not None or check_only or force or json_file is not None):
        raise SetupError(
            "--finish goes on with the canary that runs; give it no VERSION, --check-only, --force or --json"
        )


def _promote(
    folders: StateFolder, scenario: Scenario, settings: PromotionSettings, files: list[Path], version: str | None,
    check_only: bool, force: bool, json_file: Path | None,
) -> None:  # fmt: skip
    console = open_console()
    incumbent = open_current_bundle(folders.models, scenario.name)
    candidate = _candidate(folders, scenario, incumbent, version)
    names = candidate.manifest.model_version, incumbent.manifest.model_version
    if not check_only and _goes_on(folders, scenario, candidate):
        _print_turn(take_turn(folders, scenario, settings, _counts(folders, scenario)), console)
        return
    checks = run_checks(folders, scenario, files, candidate, incumbent, settings)
    reasons = refusals(checks, settings.required)
    console.print(check_table(checks, *names))
    if json_file is not None:
        found = as_json(scenario.name, *names, checks, reasons)
        json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    for reason in reasons:
        console.print(f"[bold red]refused[/]: {reason}", highlight=False, soft_wrap=True)
    if check_only:
        if reasons:
            raise typer.Exit(REFUSED_STATUS)
        console.print(f"[green]{names[0]} would pass[/]", highlight=False)
        return
    begun = datetime.now(UTC)
    outcome: Outcome = "passed" if not reasons else "forced" if force else "refused"
    line = Promotion(
        time=begun.isoformat(timespec="milliseconds"),
        version=names[0],
        base=names[1],
        outcome=outcome,
        reason="; ".join(reasons) or "all checks that decide pass",
        checks=checks,
        experiment="" if outcome == "refused" else experiment_name(begun),
    )
    append_promotion(folders.models, scenario.name, line)
    if outcome == "refused":
        raise typer.Exit(REFUSED_STATUS)
    if outcome == "forced":
        console.print(
            f"[bold white on red] FORCED [/] {names[0]} goes to users although the gate refuses it", highlight=False
        )
    _print_turn(take_turn(folders, scenario, settings, _counts(folders, scenario)), console)


def run_checks(
    folders: StateFolder, scenario: Scenario, files: list[Path], candidate: Bundle, incumbent: Bundle,
    settings: PromotionSettings,
) -> list[Check]:  # fmt: skip
    """All checks of the gate. SetupError when something is missing, CallError when a running service is away."""
    from services.cli.promote.evidence import gather
    from services.training.progress import Reporter

    reporter = Reporter(Console(stderr=True))
    checks = gather(scenario, folders, candidate, incumbent, settings, reporter).checks(reporter)
    return [*checks, asyncio.run(_time(folders, scenario, files, candidate, incumbent, settings, reporter))]


async def _time(
    folders: StateFolder, scenario: Scenario, files: list[Path], candidate: Bundle, incumbent: Bundle,
    settings: PromotionSettings, reporter: "Reporter",
) -> Check:  # fmt: skip
    from services.cli.promote.pool import open_pool
    from services.cli.promote.timing import time_answers
    from services.training.gate.latency import check_latency

    ranking, scoring = ranking_settings(scenario), scoring_settings(scenario)
    async with open_pool(scenario, files, folders) as (server, where):
        reporter.say(f"{settings.latency.requests} answers of each version {where}")
        served = served_versions(folders.models, scenario.name)
        found = await time_answers(candidate, incumbent, server, ranking, scoring, settings.latency.requests, served)
    return check_latency(*found, settings.latency, where)


def _candidate(folders: StateFolder, scenario: Scenario, incumbent: Bundle, version: str | None) -> Bundle:
    """SetupError when there is none, or when it is the current one."""
    name, current = scenario.name, incumbent.manifest.model_version
    known = model_versions(folders.models, name)
    others = [one for one in known if one != current]
    if version is None:
        if not others:
            raise SetupError(
                f"{folders.models / name}: {current} is the only version; make another one: `recmesh update {name}` or "
                f"`recmesh adapt {name}`"
            )
        version = others[-1]
    if version == current:
        raise SetupError(f"{version} is the current version already")
    if version not in known:
        raise SetupError(f"{folders.models / name}: no version {version!r}; there are: {', '.join(known)}")
    return open_version(folders.models, name, version)


def _goes_on(folders: StateFolder, scenario: Scenario, candidate: Bundle) -> bool:
    """Whether the candidate passed the gate already and is on its way. SetupError when something else stands in its
    way."""
    name, version = scenario.name, candidate.manifest.model_version
    before = open_promotion(read_promotions(folders.models, name))
    if before is not None and before.version != version:
        raise SetupError(
            f"{before.version} is on its way to users; see it through (recmesh promote {name} --finish) or end its "
            f"experiment {before.experiment}"
        )
    if before is not None:
        return True
    other = ExperimentFiles(folders, scenario).running()
    if other is not None:
        raise SetupError(f"{name}: experiment {other.name!r} runs, and a canary is one, too; end it first")
    return False


def _finish(folders: StateFolder, scenario: Scenario, settings: PromotionSettings, every: float | None) -> None:
    console, begun = open_console(), open_promotion(read_promotions(folders.models, scenario.name))
    while True:
        try:
            with alone(folders, scenario):
                turn = _ended(folders, scenario, begun) or take_turn(
                    folders, scenario, settings, _counts(folders, scenario)
                )
        except (RecmeshError, OSError) as error:
            if every is None or begun is None:
                raise
            # A service that is away now is back later.
            console.print(f"[yellow]no turn: {escape(str(error))}[/]", highlight=False, soft_wrap=True)
        else:
            _print_turn(turn, console)
            if turn.action == "roll back":
                raise typer.Exit(ROLLED_BACK_STATUS)
            if every is None or turn.over:
                return
        time.sleep(every)


def _ended(folders: StateFolder, scenario: Scenario, begun: Promotion | None) -> Turn | None:
    """How the canary ended that was on its way when this command began: `recmesh up` takes its turns, too."""
    if begun is None:
        return None
    for line in reversed(read_promotions(folders.models, scenario.name)):
        if line.experiment == begun.experiment and line.outcome == "promoted":
            return Turn("promote", line.version, 100.0, line.reason)
        if line.experiment == begun.experiment and line.outcome == "rolled_back":
            return Turn("roll back", line.version, 0.0, line.reason)
    return None


def _print_turn(turn: Turn, console: Console) -> None:
    colour = {"promote": "green", "roll back": "bold red"}.get(turn.action, "default")
    console.print(escape(describe(turn)), style=colour, highlight=False, soft_wrap=True)


def _counts(folders: StateFolder, scenario: Scenario) -> ReadCounts:
    return counts_reader(scenario, lambda: running_sources(folders))
