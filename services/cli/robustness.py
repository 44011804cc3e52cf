"""`recmesh evaluate --robustness`: what attacks on item texts cost."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from services.runtime.bundle import Bundle
from services.runtime.scenario import Scenario
from services.training.config import TrainingSettings
from services.training.dataset import Dataset
from services.training.progress import Reporter
from services.training.robustness import AS_SERVED, CLEAN, RobustnessRow, measure_robustness
from services.training.split import build_queries

_TITLES = {"all": "all queries", "cold_items": "cold items"}


def attack_texts(
    scenario: Scenario, bundle: Bundle, dataset: Dataset, reporter: Reporter, events: int | None
) -> list[RobustnessRow]:
    """Measure the bundle under each attack, on `events` test queries (None: all)."""
    queries = build_queries(dataset.interactions, dataset.split, scenario.head.tasks, "test").sample(events)
    threads = scenario.section("training", TrainingSettings).threads
    return measure_robustness(bundle, dataset, queries, scenario.head.blend, threads, reporter)


def robustness_table(rows: Sequence[RobustnessRow]) -> Table:
    """A line per attack, two columns per slice: NDCG@10, and the share of it that is lost with its interval."""
    table = Table(
        title="Robustness: item texts attacked, every item by its text alone",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
    )
    table.add_column("texts", no_wrap=True)
    slices = dict.fromkeys(row.slice for row in rows)
    for name in slices:
        queries = next(row.queries for row in rows if row.slice == name)
        table.add_column(f"NDCG@10, {_TITLES[name]} ({queries:,})", justify="right")
        table.add_column("lost", no_wrap=True, justify="right")
    for attack in dict.fromkeys(row.attack for row in rows):
        cells = []
        for row in (row for row in rows if row.attack == attack):
            cells += [f"{row.ndcg:.4f}", "" if attack in (AS_SERVED, CLEAN) else _loss(row)]
        table.add_row(attack, *cells)
    return table


def _loss(row: RobustnessRow) -> str:
    return f"{row.loss_share:.1%} [dim]({row.low:+.4f} to {row.high:+.4f})[/dim]"
