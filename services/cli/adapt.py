"""`recmesh adapt`: from a scenario's tables to the model that is served."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.progress import progress_bars
from services.cli.scenarios import named_scenario
from services.training.config import TrainingSettings
from services.training.dataset_source import ensure_tables, tables_folder


def adapt(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Adapt the language model to a scenario and write a bundle. Steps that were done before are not repeated."""
    started = time.monotonic()
    named = named_scenario(scenario, scenario_file)
    settings = named.section("training", TrainingSettings)
    # Before torch and numpy load their thread pools.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch

    from services.training.assemble import build_bundle
    from services.training.checkpoints import Checkpoints
    from services.training.dataset import load_dataset
    from services.training.pipeline import Adaptation
    from services.training.progress import Reporter

    torch.set_num_threads(settings.threads)
    reporter = Reporter(Console(stderr=True))
    with progress_bars() as progress:
        ensure_tables(named, state, progress)
    dataset = load_dataset(tables_folder(state, scenario), named)
    adaptation = Adaptation(named, dataset, settings, Checkpoints(state / "training" / scenario), reporter)
    bundle = build_bundle(adaptation, state / "models")
    reporter.say(f"{bundle.path} is the current model ({time.monotonic() - started:.0f} s)")
