"""`recmesh adapt`: from a scenario's tables to the model that is served."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.scenarios import named_scenario
from services.runtime.bundle import PrivacyInfo, open_bundle
from services.training.config import TrainingSettings, settings_of_dump


def adapt(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
    from_manifest: Annotated[
        Path | None,
        typer.Option(
            "--from-manifest", help="Bundle to make again: its settings, and only on the data it was made of."
        ),
    ] = None,
) -> None:
    """Adapt the language model to a scenario and write a bundle. Steps that were done before are not repeated.

    Under `torchrun --nproc-per-node N -m services.cli adapt …` N processes share the work, a GPU each where there are
    any; the first of them writes.
    """
    started = time.monotonic()
    named = named_scenario(scenario, scenario_file)
    settings, manifest = named.section("training", TrainingSettings), None
    if from_manifest is not None:
        manifest = open_bundle(from_manifest).manifest
        settings = settings_of_dump(manifest.method["settings"], f"{from_manifest}: method.settings")
    # Before torch and numpy load their thread pools.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch

    from services.cli.adaptations import open_adaptation
    from services.training.assemble import build_bundle
    from services.training.distributed import is_main, leave
    from services.training.progress import Reporter
    from services.training.reproduce import check_inputs, differing_versions, largest_difference
    from services.training.tracking import final_metrics, track_run

    torch.set_num_threads(settings.threads)
    folder = state / "training" / scenario
    with track_run(folder, scenario, settings.model_dump(mode="json"), settings.trackers) as trackers:
        reporter = Reporter(Console(stderr=True, quiet=not is_main()), trackers)
        adaptation = open_adaptation(scenario, scenario_file, state, reporter, settings=settings)
        if manifest is not None:
            check_inputs(adaptation, manifest)
            for name, (then, now) in differing_versions(manifest).items():
                reporter.say(f"{name} was {then}, here it is {now}: figures may differ")
        if is_main():
            bundle = build_bundle(adaptation, state / "models")
            for tracker in trackers:
                tracker.finish(final_metrics(bundle.manifest))
            if manifest is not None:
                difference = largest_difference(manifest, bundle.manifest)
                reporter.say(f"figures differ from those of {manifest.model_version} by at most {difference:.1e}")
            if bundle.manifest.privacy is not None:
                reporter.say(describe_privacy(bundle.manifest.privacy))
            reporter.say(f"{bundle.path} is the current model ({time.monotonic() - started:.0f} s)")
        else:
            adaptation.do_all()
    leave()


def describe_privacy(info: PrivacyInfo) -> str:
    """What `recmesh adapt` prints of a private bundle."""
    counts = info.popularity_noise_multiplier
    return (
        f"differential privacy: ε = {info.epsilon:.2f} at δ = {info.delta:g}, unit: {info.unit} (all events of one), "
        f"{info.accountant} accountant over {info.steps} steps at sample rate {info.sample_rate:.3g}, noise multiplier "
        f"{info.noise_multiplier:.3g}, clip norm {info.clip_norm:g}"
        + (f", and item counts with noise multiplier {counts:.3g}" if counts is not None else "")
        + f"\nnot covered, in manifest.json: {', '.join(info.not_covered)}"
    )
