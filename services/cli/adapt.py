"""`recmesh adapt`: from a scenario's tables to the model that is served."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.scenarios import named_scenario
from services.training.config import TrainingSettings


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

    from services.cli.adaptations import open_adaptation
    from services.training.assemble import build_bundle
    from services.training.progress import Reporter

    torch.set_num_threads(settings.threads)
    reporter = Reporter(Console(stderr=True))
    adaptation = open_adaptation(scenario, scenario_file, state, reporter)
    bundle = build_bundle(adaptation, state / "models")
    reporter.say(f"{bundle.path} is the current model ({time.monotonic() - started:.0f} s)")
