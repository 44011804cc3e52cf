"""`recmesh bench train`: how fast a language model learns here, against the plain textbook loop."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services.cli.bench.machine import describe_machine
from services.cli.options import DEFAULT_STATE, StateOption, open_console
from services.cli.scenarios import named_scenario
from services.training.config import TrainingSettings
from services.training.dataset_source import tables_folder
from services.training.tables import has_tables


def train(
    scenario: Annotated[str, typer.Option(help="Scenario whose tables and settings are used.")] = "video",
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long the loops take turns, all in all.")] = 60,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures as JSON.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
) -> None:
    """Samples per second of fine-tuning: recmesh's loops and the plain textbook loop, taking turns on the same pairs.

    The textbook loop: one pair of texts per row, tokenised in every step and padded to 128 tokens, float32, AdamW over
    all weights. Without tables it learns from a made-up catalogue.
    """
    named = named_scenario(scenario, scenario_file)
    settings = named.section("training", TrainingSettings)
    # Before torch and numpy load their thread pools.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    import torch

    from services.cli.bench.generated import generated_dataset
    from services.cli.bench.training_speed import (
        TEXTBOOK_PAIRS,
        TEXTBOOK_TOKENS,
        measure_language_model,
        measure_reranker,
    )
    from services.training.base_model import uses_bfloat16
    from services.training.dataset import load_dataset
    from services.training.distributed import device
    from services.training.split import build_queries

    torch.set_num_threads(settings.threads)
    folder, console = tables_folder(state, scenario), open_console()
    generated = not has_tables(folder)
    read, dataset = generated_dataset() if generated else (named, load_dataset(folder, named))
    found: dict[str, Any] = {
        "machine": describe_machine(),
        "device": str(device()),
        "threads": torch.get_num_threads(),
        "base_model": settings.base_model,
        "precision": "bfloat16" if uses_bfloat16(settings.precision) else "float32",
        "method": settings.item_adaptation.method,
        "textbook": f"float32, padded to {TEXTBOOK_TOKENS} tokens, one pair per row, {TEXTBOOK_PAIRS} pairs a step, "
        "AdamW over all weights",
        "data": f"{dataset.item_count} texts, " + ("made up" if generated else f"those of {folder}"),
    }
    with console.status(f"measuring for about {seconds:.0f} s"):
        share = 2 if settings.reranker.enabled else 1
        found["language_model"] = measure_language_model(dataset, settings, seconds / share)
        if settings.reranker.enabled:
            queries = build_queries(dataset.interactions, dataset.split, read.head.tasks, "train").with_history()
            found["reranker"] = measure_reranker(dataset, queries, settings, seconds / share)
    found["speedup"] = found["language_model"]["speedup"]
    print_speeds(found, console)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")


def print_speeds(found: dict[str, Any], console: Console) -> None:
    """The figures as a table."""
    head = ("machine", "device", "threads", "base_model", "precision", "method", "data")
    console.print(" · ".join(f"{name} {found[name]}" for name in head), style="dim", highlight=False)
    table = Table("training", "a sample", "loop", "samples", "samples/s", "× textbook")
    for part in ("language_model", "reranker"):
        if part not in found:
            continue
        figures = found[part]
        for loop, rate in figures["samples_per_second"].items():
            times = figures["times_textbook"][loop]
            table.add_row(part, figures["sample"], loop, str(figures["samples"][loop]), f"{rate:.1f}", f"{times:.2f}")
    console.print(table)
    console.print(f"textbook: {found['textbook']}", style="dim", highlight=False)
    if "reranker" in found:
        shared = found["reranker"]
        console.print(
            f"the shared history makes the re-ranker's training [bold]{shared['shared_history_speedup']:.2f}×[/] as "
            f"fast; scores differ by at most {shared['shared_history_largest_difference']:.1e}",
            highlight=False,
        )
    console.print(f"fine-tuning: [bold]{found['speedup']:.2f}×[/] the textbook loop", highlight=False)
