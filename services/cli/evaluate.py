"""`recmesh evaluate`: a scenario's model against its baselines, on the test period of its tables."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from services.cli.options import DEFAULT_STATE, StateOption
from services.cli.scenarios import named_scenario
from services.cli.state import StateFolder
from services.runtime.bundle import Bundle, open_current_bundle
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.checkpoints import Checkpoints
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, event_gaps, load_dataset
from services.training.evaluate import FULL, ID_ONLY, Evaluation, best_baseline, compare
from services.training.full_model import bundle_texts, open_full_model
from services.training.pipeline import Adaptation
from services.training.progress import Reporter

COLUMNS = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "recall@50": "Recall@50",
    "mrr": "MRR",
    "coverage@10": "Coverage@10",
}
"""Metrics of the printed tables; --json holds all."""

SLICES = {
    "all": "All queries",
    "cold_items": "Cold items, ranked among all items",
    "cold_items_among_cold": "Cold items, ranked among cold items",
    "cold_users": "Cold users",
}

# Without a terminal rich assumes 80 columns and would break lines there.
_PLAIN_WIDTH = 120
_TIE_SEED = 1


def evaluate(
    scenario: Annotated[str, typer.Argument(help="Scenario.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    state: StateOption = DEFAULT_STATE,
    scenario_file: Annotated[
        list[Path] | None, typer.Option("--scenario-file", help="Scenario file; default: all of deploy/scenarios.")
    ] = None,
    events: Annotated[
        int | None, typer.Option("--events", min=1, help="Sample this many test events; default: all of them.")
    ] = None,
    rerank: Annotated[
        int,
        typer.Option(
            "--rerank", min=0, max=256, help="Re-rank the best so many of each query, as a request does; give --events."
        ),
    ] = 0,
    shuffle_ties: Annotated[
        bool, typer.Option("--shuffle-ties", help="Put events of equal time in random order before evaluating.")
    ] = False,
) -> None:
    """Compare a scenario's model with its baselines, by a temporal split, over all items."""
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise SetupError(f"--json {json_file}: there is no folder {json_file.absolute().parent}; make it first")
    chosen = named_scenario(scenario, scenario_file)
    folders = StateFolder(state)
    bundle = open_current_bundle(folders.models, scenario)
    dataset = open_dataset(folders.data(scenario), chosen, bundle)
    if shuffle_ties:
        shuffled = dataset.interactions.shuffle_ties(_TIE_SEED)
        dataset = replace(dataset, interactions=shuffled, gaps=event_gaps(shuffled))
    checkpoints = Checkpoints(folders.root / "training" / scenario)
    found = run(chosen, bundle, dataset, checkpoints, Reporter(Console(stderr=True)), events, rerank)
    split = {
        **dataset.split.facts(),
        "queries": found.query_counts,
        "ties_shuffled": shuffle_ties,
        "reranked_items": rerank,
    }
    console = Console()
    print_report(console if console.is_terminal else Console(width=_PLAIN_WIDTH), bundle, split, found)
    if json_file is not None:
        json_file.write_text(json.dumps(document(bundle, split, found), indent=2, allow_nan=False) + "\n")


def open_dataset(folder: Path, scenario: Scenario, bundle: Bundle) -> Dataset:
    """The scenario's tables. SetupError when the bundle was made from other tables."""
    dataset = load_dataset(folder, scenario)
    if dataset.fingerprint != bundle.manifest.data_fingerprint:
        raise SetupError(
            f"{folder}: the tables have changed since {bundle.manifest.model_version} was made, which may have seen "
            f"what is now the test period; run `recmesh adapt {scenario.name}`"
        )
    return dataset


def run(
    scenario: Scenario,
    bundle: Bundle,
    dataset: Dataset,
    checkpoints: Checkpoints,
    reporter: Reporter,
    events: int | None,
    rerank: int,
) -> Evaluation:
    """Evaluate the bundle's model and the baselines."""
    manifest = bundle.manifest
    settings = scenario.section("training", TrainingSettings).model_copy(
        update={"base_model": manifest.base_model.name, "item_tokens": manifest.item_tokens}
    )
    torch.set_num_threads(settings.threads)
    model_dataset = replace(dataset, texts=bundle_texts(bundle))
    full = open_full_model(bundle, model_dataset, scenario.head.blend, settings.threads, rerank)
    # An adaptation of the same settings has these vectors already.
    text_vectors = Adaptation(scenario, dataset, settings, checkpoints, reporter).frozen_vectors
    tasks = scenario.head.tasks
    return compare(
        full, dataset.interactions, dataset.split, tasks, text_vectors, reporter, events=events, labelled=[full]
    )


def document(bundle: Bundle, split: dict[str, Any], found: Evaluation) -> dict[str, Any]:
    """What --json writes."""
    return {
        "scenario": bundle.manifest.scenario,
        "model_version": bundle.manifest.model_version,
        "split": split,
        "rows": [row.model_dump() for row in found.rows],
        "differences": [row.model_dump() for row in found.differences],
        "baseline_settings": found.settings,
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """The processor's name and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0))}


def print_report(console: Console, bundle: Bundle, split: dict[str, Any], found: Evaluation) -> None:
    """Facts, one table per slice with 95 % intervals, and how the whole model compares with the best baselines."""
    manifest, host = bundle.manifest, machine()
    facts = [
        f"{manifest.scenario} · {manifest.model_version} · {host['cpu']}, {host['cores']} cores",
        f"{split['users']:,} users, {split['items']:,} items ({split['cold_items']:,} cold); events: "
        f"{split['train_events']:,} train, {split['valid_events']:,} validation, {split['test_events']:,} test",
        "temporal split, every item ranked, models frozen at the split; 95 % intervals by bootstrap over users"
        + ("; ties in time shuffled" if split["ties_shuffled"] else ""),
        "full = scorer over every item"
        + (f", its best {split['reranked_items']} re-ranked" if split["reranked_items"] else ", without the re-ranker"),
    ]
    console.print("\n".join(facts), highlight=False)
    for name, count in found.query_counts.items():
        console.print(_slice_table(name, count, found))
    for line in comparison_lines(found):
        console.print(line, highlight=False)


def _slice_table(name: str, count: int, found: Evaluation) -> Table:
    # Without padding the table fits a terminal of 80 columns.
    table = Table(title=f"{SLICES[name]}: {count:,} queries", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("method", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, no_wrap=True, justify="right")
    methods = dict.fromkeys(row.method for row in found.rows if row.metric == "ndcg@10")
    for method in methods:
        cells = []
        for metric in COLUMNS:
            row = found.row(method, name, metric)
            cells.append("" if row is None else f"{row.value:.4f}\n[dim]{row.low:.3f}–{row.high:.3f}[/dim]")
        table.add_row(method, *cells, style="bold" if method == FULL else "")
    return table


def comparison_lines(found: Evaluation) -> list[str]:
    """The whole model against the best baseline of each slice, and against the best id-only one on cold items."""
    pairs: list[tuple[str, Sequence[str] | None]] = [(name, None) for name in found.query_counts]
    if "cold_items" in found.query_counts:
        pairs.append(("cold_items", ID_ONLY))
    lines = []
    for name, among in pairs:
        best = best_baseline(found.rows, name, "ndcg@10", among)
        row = next(
            (row for row in found.differences if (row.baseline, row.slice, row.metric) == (best, name, "ndcg@10")), None
        )
        if row is not None:
            verdict = "is above" if row.low > 0 else "is below" if row.high < 0 else "is not told apart from"
            kind = "best baseline" if among is None else "best id-only baseline"
            lines.append(
                f"{name}: full {verdict} {best} ({kind}): NDCG@10 {row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
            )
    return lines
