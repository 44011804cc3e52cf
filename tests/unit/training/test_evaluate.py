"""The harness: every method answers the same queries, slices are what they say, differences are paired."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from rich.console import Console

from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.training.evaluate import (
    FULL,
    ID_ONLY,
    best_baseline,
    compare,
    evaluate_labels,
    evaluate_methods,
    evaluation_steps,
)
from services.training.progress import Reporter
from services.training.split import Queries, build_queries, temporal_split
from tests.unit.training.test_split import RATING, TASKS, interactions

METRICS = {"ndcg@10", "recall@10", "recall@50", "mrr", "coverage@10"}


@dataclass
class Oracle:
    """Scores the target highest, or lowest."""

    name: str = FULL
    factor: float = 1.0
    asked: list[int] = field(default_factory=list)

    def scores(self, queries: Queries) -> np.ndarray:
        self.asked += queries.events.tolist()
        scores = np.zeros((len(queries), len(queries.interactions.item_ids)), np.float32)
        scores[np.arange(len(queries)), queries.targets] = self.factor
        return scores

    def predictions(self, queries: Queries) -> dict[str, np.ndarray]:
        data = queries.interactions
        return {
            "conversion": np.where(data.values[queries.events] >= 4, 0.99, 0.01).astype(np.float32),
            "rating": data.values[queries.events] + np.float32(0.5),
        }


@dataclass
class Constant:
    """Knows nothing."""

    name: str = "constant"

    def scores(self, queries: Queries) -> np.ndarray:
        return np.zeros((len(queries), len(queries.interactions.item_ids)), np.float32)


def data_with_cold_items():
    """Items 0 to 29 are met all the time; 30 to 59 only in the test period. Users 0 to 9 are old, 10 to 19 new."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(10):
        rows += [(user, int(item), 100 * place + user) for place, item in enumerate(generator.permutation(30)[:25])]
    for user in range(20):
        rows += [(user, 30 + int(item), 10_000 + place) for place, item in enumerate(generator.permutation(30)[:5])]
    return interactions(rows, users=20, items=60)


@pytest.fixture(name="world")
def _world():
    data = data_with_cold_items()
    split = temporal_split(data, TASKS)
    return data, split, build_queries(data, split, TASKS, "test")


def test_knowing_the_answer_wins_and_knowing_nothing_does_not(world):
    _, split, queries = world
    evaluation = evaluate_methods([Constant(), Oracle()], queries, split)
    rows, differences, counts = evaluation.rows, evaluation.differences, evaluation.query_counts
    assert (evaluation.ranks["full"] == 1).all()
    assert evaluation.ranks["constant"].shape == (len(queries),)
    assert {row.metric for row in rows} == METRICS
    value = {(row.method, row.slice, row.metric): row.value for row in rows}
    assert counts["all"] == len(queries)
    assert counts["cold_items"] == counts["cold_items_among_cold"] > 0
    for name in counts:
        assert value[FULL, name, "ndcg@10"] == 1
        assert value["constant", name, "ndcg@10"] == 0
    for row in differences:
        assert (row.method, row.baseline) == (FULL, "constant")
        if row.metric == "ndcg@10":
            assert (row.value, row.low, row.high) == (1, 1, 1)
    # Ranked in the middle of the cold items only, not of all items.
    assert value["constant", "cold_items_among_cold", "mrr"] > value["constant", "cold_items", "mrr"]


def test_each_query_is_scored_once_by_each_method(world):
    _, split, queries = world
    oracle, steps = Oracle(), []
    evaluate_methods([oracle], queries, split, step=steps.append)
    assert oracle.asked == queries.events.tolist()
    assert len(steps) == evaluation_steps([oracle], queries)


def test_without_the_whole_model_there_are_no_differences(world):
    _, split, queries = world
    evaluation = evaluate_methods([Constant()], queries, split)
    rows, differences = evaluation.rows, evaluation.differences
    assert rows
    assert not differences


def test_slices_without_queries_have_no_rows(world):
    data, split, _ = world
    warm = ~split.cold_items[data.items] & ~split.cold_users[data.users]
    counts = evaluate_methods([Constant()], Queries(data, np.flatnonzero(warm)), split).query_counts
    assert set(counts) == {"all"}


def test_diversity_needs_vectors(world):
    _, split, queries = world
    rows = evaluate_methods([Oracle()], queries, split, np.eye(60, dtype=np.float32)).rows
    assert {row.metric for row in rows} == METRICS | {"diversity@10"}


def test_labels_are_measured_where_there_are_any():
    tasks = TasksSettings(
        click=TaskSettings(events=["rating"]),
        conversion=TaskSettings(events=["rating"], min_value=4),
        rating=RatingSettings(events=["rating"], min=1, max=5),
    )
    data = data_with_cold_items()
    data.kinds[:] = RATING
    data.values[:] = 1 + np.arange(len(data.values)) % 5
    split = temporal_split(data, tasks)
    queries = build_queries(data, split, tasks, "test")
    value = {(row.slice, row.metric): row.value for row in evaluate_labels([Oracle()], queries, split, tasks)}
    assert value["all", "conversion_auc"] == 1
    assert value["all", "conversion_log_loss"] == pytest.approx(-np.log(0.99))
    assert value["all", "conversion_ece"] == pytest.approx(0.01)
    assert value["all", "rating_mae"] == pytest.approx(0.5)
    assert ("cold_items_among_cold", "conversion_auc") not in value
    assert evaluate_labels([Oracle()], queries, split, TasksSettings(click=tasks.click)) == []


def test_compare_runs_every_baseline_on_the_same_queries(world):
    data, split, queries = world
    full, console = Oracle(), Console(file=io.StringIO())
    found = compare(full, data, split, TASKS, np.eye(60, dtype=np.float32), Reporter(console), events=20)
    assert len(full.asked) == 20
    assert set(full.asked) <= set(queries.events.tolist())
    assert found.query_counts["all"] == 20
    methods = {row.method for row in found.rows if row.metric == "ndcg@10"}
    assert methods == {*ID_ONLY, "frozen_text", "ease_text_fill", FULL}
    assert set(found.settings) == methods - {FULL}
    best = found.row(FULL, "all", "ndcg@10")
    assert best is not None
    assert best.value == 1
    assert found.row("nobody", "all", "ndcg@10") is None
    name = best_baseline(found.rows, "all", "ndcg@10", ID_ONLY)
    assert name in ID_ONLY
    assert best_baseline(found.rows, "no slice", "ndcg@10") is None
