"""`recmesh tune`: a search for a scenario's training settings."""

import os
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.scenarios import named_scenario
from services.runtime.errors import SetupError
from services.training.config import TrainingSettings

# Results of steps that trials may share again.
MOST_KEPT_BYTES = 4 * 2**30


def tune(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs included.")] = 20,
    cold_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of cold items' NDCG@10 in what is maximised.")
    ] = 0.2,
    write: Annotated[Path | None, typer.Option(help="Write the best settings to this YAML file.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Search for the training settings that rank best on validation; the test period is not looked at.

    A search that was interrupted goes on; several processes may share one. The best settings are printed as a fragment
    of a scenario file.
    """
    settings = named_scenario(scenario, scenario_file).section("training", TrainingSettings)
    if settings.privacy is not None:
        raise SetupError("training.privacy: every trial would learn from the users once more; remove it to search")
    # Before torch and numpy load their thread pools.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch

    from services.cli.adaptations import open_adaptation
    from services.training.checkpoints import KeyedCheckpoints
    from services.training.pipeline import Adaptation
    from services.training.progress import Recorder, Reporter
    from services.training.search_space import nested
    from services.training.tune import open_study, search, validation_quality

    torch.set_num_threads(settings.threads)
    console = Console(stderr=True)
    opened = open_adaptation(scenario, scenario_file, state, Reporter(console))
    folder = state / "training" / scenario / "tune"
    checkpoints = KeyedCheckpoints(folder)

    def objective(tried: TrainingSettings, recorder: Recorder) -> float:
        reporter = Reporter(console, [recorder])
        trial = Adaptation(opened.scenario, opened.dataset, tried, checkpoints, reporter, opened.source)
        quality = validation_quality(trial)
        cold = "" if quality.cold is None else f", {quality.cold:.4f} on cold items"
        reporter.say(f"NDCG@10 on validation {quality.all:.4f}{cold}")
        checkpoints.prune(MOST_KEPT_BYTES)
        return quality.value(cold_share)

    study = open_study(folder, settings, [opened.key(), cold_share])
    for trial in search(study, settings, trials, objective):
        value = "" if trial.value is None else f" {trial.value:.4f}"
        console.print(f"trial {trial.number}: {trial.state.name.lower()}{value}", highlight=False)
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if not finished:
        raise SetupError(f"{folder}: every trial was pruned; raise --trials")
    finished.sort(key=lambda trial: trial.value or 0.0, reverse=True)
    table = Table("trial", "value", *finished[0].params)
    for trial in finished[:5]:
        shown = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in trial.params.values())
        table.add_row(str(trial.number), f"{trial.value:.4f}", *shown)
    out = open_console()
    out.print(table)
    fragment = yaml.safe_dump({"training": nested(finished[0].params)}, sort_keys=False)
    out.print(fragment, highlight=False, markup=False)
    if write is not None:
        write.write_text(fragment)
