"""An evaluation as text: a table for each slice, and sentences on who leads."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from services.training.evaluation import FULL, ID_ONLY, DifferenceRow, Evaluation

ACCURACY = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "recall@50": "Recall@50",
    "mrr": "MRR",
    "coverage@10": "Coverage@10",
}
"""Metrics of each slice's table; --json holds all."""

BEYOND_ACCURACY = {
    "auc": "AUC",
    "diversity@10": "Diversity@10",
    "novelty@10": "Novelty@10",
    "popularity@10": "Popularity@10",
    "popularity_lift@10": "Pop. lift@10",
}
"""Metrics of a second table over all queries."""

LABELS = {
    "conversion_auc": "conv. AUC",
    "conversion_log_loss": "conv. log-loss",
    "conversion_ece": "conv. ECE",
    "rating_mae": "rating MAE",
    "rating_rmse": "rating RMSE",
}
"""Metrics of a third, where there are labels."""

SLICES = {
    "all": "All queries",
    "cold_items": "Cold items, ranked among all items",
    "cold_items_among_cold": "Cold items, ranked among cold items",
    "cold_users": "Cold users",
    "head_items": "Head items: the most popular, with half of the train events",
    "tail_items": "Tail items: neither head nor cold",
}


def print_report(console: Console, model: str, split: Mapping[str, Any], found: Evaluation) -> None:
    """Facts, the tables with 95 % intervals, and how the whole model compares with the best baselines."""
    host = machine()
    facts = [
        f"{model} · {host['cpu']}, {host['cores']} cores",
        f"{split['users']:,} users, {split['items']:,} items ({split['cold_items']:,} cold); events: "
        f"{split['train_events']:,} train, {split['valid_events']:,} validation, {split['test_events']:,} test",
        f"{split['protocol']}; every item ranked, models frozen at the split; 95 % intervals by bootstrap over users"
        + ("; ties in time shuffled" if split["ties_shuffled"] else ""),
        "full = scorer over every item"
        + (f", its best {split['reranked_items']} re-ranked" if split["reranked_items"] else ", without the re-ranker"),
        "settings tried on validation: " + ", ".join(f"{name} {count}" for name, count in found.trials.items()),
    ]
    console.print("\n".join(facts), highlight=False)
    for name, count in found.query_counts.items():
        console.print(_table(f"{SLICES[name]}: {count:,} queries", ACCURACY, name, found))
    console.print(_table("All queries, beyond accuracy", BEYOND_ACCURACY, "all", found))
    if any(row.metric in LABELS for row in found.rows):
        console.print(_table("Labels of the items that came", LABELS, "all", found))
    for line in comparison_lines(found):
        console.print(line, highlight=False)


def _table(title: str, columns: Mapping[str, str], slice_name: str, found: Evaluation) -> Table:
    # Without padding the table fits a terminal of 80 columns.
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("method", no_wrap=True)
    for column in columns.values():
        table.add_column(column, no_wrap=True, justify="right")
    for method in dict.fromkeys(row.method for row in found.rows if row.metric in columns):
        rows = [found.row(method, slice_name, metric) for metric in columns]
        cells = ["" if row is None else f"{row.value:.4f}\n[dim]{row.low:.3f}–{row.high:.3f}[/dim]" for row in rows]
        table.add_row(method, *cells, style="bold" if method == FULL else "")
    return table


def comparison_lines(found: Evaluation) -> list[str]:
    """The whole model against the best baseline of each slice, and against the best id-only one on cold items."""
    asked: list[tuple[str, Sequence[str] | None]] = [(name, None) for name in found.query_counts]
    if "cold_items" in found.query_counts:
        asked.append(("cold_items", ID_ONLY))
    lines = []
    for name, among in asked:
        lead = found.lead(name, among)
        if lead is not None:
            kind = "best baseline" if among is None else "best id-only baseline"
            ratio = "" if lead.ratio is None else f", {lead.ratio:.2f} times its figure"
            lines.append(
                f"{name}: full {_verdict(lead.difference)} {lead.baseline} ({kind}){_figures(lead.difference)}{ratio}"
            )
    return lines


def pair_lines(found: Evaluation, method: str, other: str) -> list[str]:
    """NDCG@10 of one method against another on each slice."""
    rows = [(name, found.pair(method, other, name)) for name in found.query_counts]
    return [f"{name}: {method} {_verdict(row)} {other}{_figures(row)}" for name, row in rows if row is not None]


def _verdict(row: DifferenceRow) -> str:
    return "is above" if row.low > 0 else "is below" if row.high < 0 else "is not told apart from"


def _figures(row: DifferenceRow) -> str:
    return f": NDCG@10 {row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"


def machine() -> dict[str, Any]:
    """The processor's name and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0))}
