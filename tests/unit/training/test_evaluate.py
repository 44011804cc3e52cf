"""The harness: every method answers the same queries, slices are what they say, differences are paired."""

import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from rich.console import Console

from services.runtime.errors import SetupError
from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.training.baselines import BASELINES, TRIALS
from services.training.evaluate import CURVE_METRICS, compare, evaluate_labels, evaluate_methods, evaluation_steps
from services.training.evaluation import FULL, ID_ONLY, best_baseline
from services.training.progress import Reporter
from services.training.split import Queries, build_queries, temporal_split
from tests.unit.training.test_split import RATING, TASKS, interactions

RANK_METRICS = {"ndcg@10", "recall@10", "recall@50", "mrr", "auc"}
METRICS = RANK_METRICS | {"coverage@10", "popularity@10", "popularity_lift@10", "novelty@10"}


@dataclass
class Oracle:
    """Scores the target highest; with `half` only for events of even position, and lowest for others."""

    name: str = FULL
    half: bool = False
    asked: list[int] = field(default_factory=list)

    def scores(self, queries: Queries) -> np.ndarray:
        self.asked += queries.events.tolist()
        scores = np.zeros((len(queries), len(queries.interactions.item_ids)), np.float32)
        sign = np.where(queries.events % 2, -1, 1) if self.half else 1
        scores[np.arange(len(queries)), queries.targets] = sign
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


@dataclass
class Favourites:
    """The same order for everyone."""

    item_scores: np.ndarray
    name: str = "favourites"

    def scores(self, queries: Queries) -> np.ndarray:
        return np.broadcast_to(self.item_scores, (len(queries), len(self.item_scores)))


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
    assert set(counts) == {"all", "head_items", "tail_items"}


def test_without_queries_or_methods_there_is_nothing_to_evaluate(world):
    data, split, queries = world
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_methods([], queries, split)
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate_methods([Constant()], Queries(data, np.zeros(0, np.int64)), split)


def test_every_two_methods_are_compared_and_either_way_round(world):
    _, split, queries = world
    found = evaluate_methods([Constant(), Constant("other"), Oracle("oracle")], queries, split)
    assert not found.differences
    assert {(row.method, row.baseline) for row in found.pairs} == {
        ("constant", "other"), ("constant", "oracle"), ("other", "oracle")
    }  # fmt: skip
    forth, back = found.pair("constant", "oracle", "all"), found.pair("oracle", "constant", "all")
    assert forth is not None
    assert back is not None
    assert (forth.value, back.value) == (-1, 1)
    assert (back.method, back.baseline, back.low, back.high) == ("oracle", "constant", 1, 1)
    assert found.pair("constant", "nobody", "all") is None


def test_the_lead_names_the_best_baseline_and_how_many_times_it_is(world):
    _, split, queries = world
    halves = Oracle("halves", half=True)
    found = evaluate_methods([Constant(), halves, Oracle()], queries, split)
    lead = found.lead("all")
    assert lead is not None
    assert lead.baseline == "halves"
    share = np.mean(queries.events % 2 == 0)
    assert lead.ratio == pytest.approx(1 / share)
    assert lead.difference.value == pytest.approx(1 - share)
    nothing = found.lead("all", among=["constant"])
    assert nothing is not None
    assert nothing.ratio is None
    assert found.lead("all", among=[]) is None
    assert evaluate_methods([Constant()], queries, split).lead("all") is None


def test_curves_cover_every_query_once_on_each_axis(world):
    _, split, queries = world
    found = evaluate_methods([Constant(), Oracle()], queries, split)
    for axis, counts in {
        "item_train_events": split.item_events[queries.targets],
        "history_events": queries.history_lengths(),
    }.items():
        rows = [row for row in found.curves if (row.axis, row.method, row.metric) == (axis, FULL, "ndcg@10")]
        assert sum(row.queries for row in rows) == len(queries)
        assert all(row.value == 1 for row in rows)
        for row in rows:
            inside = (counts >= row.events_from) & (counts <= (row.events_to if row.events_to is not None else np.inf))
            assert inside.sum() == row.queries
    assert {row.metric for row in found.curves} == set(CURVE_METRICS)


def test_popularity_lift_is_relative_to_the_histories():
    # Item 0 has 30 train events, items 1 to 5 have 10 each. Everyone has had item 0 before the test period.
    rows = [(user, 0, user) for user in range(30)]
    rows += [(user, 1 + user % 5, 100 + user) for user in range(50)]
    rows += [(user, 6, 200 + user) for user in range(10)] + [(user, 7, 300 + user) for user in range(10)]
    data = interactions(rows, users=50, items=8)
    split = temporal_split(data, TASKS)
    queries = build_queries(data, split, TASKS, "test")
    favourite = Favourites(np.array([0, 9, 8, 7, 6, 5, 4, 3], np.float32))
    found = evaluate_methods([favourite], queries, split)
    values = {row.metric: row.value for row in found.rows if row.slice == "all"}
    events = split.item_events.astype(float)
    assert events.tolist() == [30, 10, 10, 10, 10, 10, 0, 0]
    # Lists hold every unseen item, since there are fewer than ten.
    unseen = queries.unseen()
    shown = (unseen * events).sum(axis=1) / unseen.sum(axis=1)
    had = np.array([events[data.items[queries.history(row)]].mean() for row in range(len(queries))])
    assert values["popularity@10"] == pytest.approx(shown.mean())
    assert values["popularity_lift@10"] == pytest.approx(shown.mean() / had.mean() - 1)


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
    assert value["all", "rating_rmse"] == pytest.approx(0.5)
    assert ("cold_items_among_cold", "conversion_auc") not in value
    assert evaluate_labels([Oracle()], queries, split, TasksSettings(click=tasks.click)) == []


def run_compare(world, full=None, **options):
    data, split, _ = world
    vectors, reporter = np.eye(60, dtype=np.float32), Reporter(Console(file=io.StringIO()))
    return compare(full, data, split, TASKS, vectors, reporter, threads=1, seed=7, events=20, **options)


def test_compare_runs_every_baseline_on_the_same_queries(world):
    _, _, queries = world
    full = Oracle()
    found = run_compare(world, full, baselines="quick")
    assert len(full.asked) == 20
    assert set(full.asked) <= set(queries.events.tolist())
    assert found.query_counts["all"] == 20
    assert list(found.ranks) == [*BASELINES["quick"], FULL]
    assert set(found.settings) == set(BASELINES["quick"])
    assert found.trials == dict.fromkeys(BASELINES["quick"], TRIALS) | {"popularity": 1}
    best = found.row(FULL, "all", "ndcg@10")
    assert best is not None
    assert best.value == 1
    assert found.row("nobody", "all", "ndcg@10") is None
    name = best_baseline(found.rows, "all", "ndcg@10", ID_ONLY)
    assert name in ID_ONLY
    assert best_baseline(found.rows, "no slice", "ndcg@10") is None


def test_all_baselines_are_tuned_as_often_and_come_out_alike_twice(world):
    found, again = run_compare(world, baselines="all"), run_compare(world, baselines="all")
    assert list(found.ranks) == list(BASELINES["all"])
    assert set(found.trials.values()) == {1, TRIALS}
    assert found.settings == again.settings
    for name, ranks in found.ranks.items():
        assert (ranks == again.ranks[name]).all()


def test_a_test_period_without_questions_is_an_error(world):
    data, split, _ = world
    nothing = TasksSettings(click=TaskSettings(events=["dismiss"]))
    with pytest.raises(SetupError, match="events: "):
        compare(
            None, data, split, nothing, np.eye(60, dtype=np.float32), Reporter(Console(file=io.StringIO())),
            baselines="quick", threads=1, seed=7,
        )  # fmt: skip
