"""One harness for every method: the same queries, the same answer sets, the same resampled users.

Axes: Q queries, N items, D vector length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.runtime.bundle import MetricRow
from services.runtime.scenario import TasksSettings
from services.training.baselines import (
    BASELINE_STEPS,
    FloatArray,
    Method,
    Setting,
    fit_baselines,
    user_item_mean,
)
from services.training.metrics import (
    Estimate,
    UserBootstrap,
    label_metrics,
    list_diversity,
    rank_metrics,
    target_ranks,
    top_items,
)
from services.training.progress import Reporter
from services.training.split import BoolArray, Interactions, Queries, Split, build_queries

FULL = "full"
"""The method name of the whole model."""

ID_ONLY = ("popularity", "recent_popularity", "item_knn", "ease")
"""Baselines that know an item by its events alone."""

Values = npt.NDArray[np.floating]
Items = npt.NDArray[np.integer]

_LIST_LENGTH = 10
_BATCH = 256


class LabelledMethod(Protocol):
    """Anything that predicts what happens after the click."""

    @property
    def name(self) -> str:
        """Its name in rows."""

    def predictions(self, queries: Queries) -> Mapping[str, FloatArray]:
        """For each query's target, by task, [Q]: "conversion" a probability, "rating" in the scenario's scale."""


class DifferenceRow(MetricRow):
    """method − baseline, paired over resampled users. A win is an interval above zero."""

    baseline: str
    """What `method` is compared with."""


@dataclass(frozen=True)
class Evaluation:
    """What one run found."""

    rows: list[MetricRow]
    differences: list[DifferenceRow]
    """`full` against every other method; empty when it was not evaluated."""
    settings: dict[str, Setting]
    """What validation chose, by baseline."""
    query_counts: dict[str, int]
    """Queries by slice."""
    queries: Queries
    """What was asked."""
    ranks: dict[str, Values]
    """[Q] by method: each target's rank among all items, for curves over other groups of queries."""

    def row(self, method: str, slice_name: str, metric: str) -> MetricRow | None:
        """One figure; None when it was not measured."""
        wanted = (method, slice_name, metric)
        return next((row for row in self.rows if (row.method, row.slice, row.metric) == wanted), None)


@dataclass(frozen=True)
class _Slice:
    """Some of the queries, ranked among some of the items."""

    name: str
    rows: BoolArray  # [Q]
    among: BoolArray | None = None  # [N]; None: all


def _slices(queries: Queries, split: Split) -> list[_Slice]:
    cold = split.cold_items[queries.targets]
    slices = [
        _Slice("all", np.ones(len(queries), dtype=np.bool_)),
        _Slice("cold_items", cold),
        _Slice("cold_items_among_cold", cold, split.cold_items),
        _Slice("cold_users", split.cold_users[queries.users]),
    ]
    return [part for part in slices if part.rows.any()]


@dataclass(frozen=True)
class _Ranking:
    """Where a method put each target, and what it would have shown."""

    ranks: Values  # [Q]
    lists: Items  # [Q, K]


def _rank(
    method: Method, queries: Queries, slices: Sequence[_Slice], step: Callable[[str], None]
) -> dict[str, _Ranking]:
    """A method's ranking of each slice's queries, scoring every query once."""
    parts: dict[str, list[tuple[Values, Items]]] = {part.name: [] for part in slices}
    for start, batch in zip(range(0, len(queries), _BATCH), queries.batches(_BATCH), strict=True):
        scores, unseen = method.scores(batch), batch.unseen()
        whole = target_ranks(scores, batch.targets, unseen), top_items(scores, unseen, _LIST_LENGTH)
        for part in slices:
            rows = part.rows[start : start + _BATCH]
            if part.among is None:
                parts[part.name].append((whole[0][rows], whole[1][rows]))
            elif rows.any():
                answers = unseen[rows] & part.among
                ranks = target_ranks(scores[rows], batch.targets[rows], answers)
                parts[part.name].append((ranks, top_items(scores[rows], answers, _LIST_LENGTH)))
        step(method.name)
    return {
        name: _Ranking(*(np.concatenate(column) for column in zip(*found, strict=True)))
        for name, found in parts.items()
    }


def evaluate_methods(
    methods: Sequence[Method],
    queries: Queries,
    split: Split,
    text_vectors: FloatArray | None = None,
    step: Callable[[str], None] = lambda note: None,
) -> Evaluation:
    """Rows of every method and slice, and differences of `full` to every other method. Settings are left empty.

    Lists' diversity is measured between text_vectors [N, D] (unit length), and left out without them. A slice without
    queries has no rows. `step` is called `evaluation_steps` times.
    """
    slices = _slices(queries, split)
    bootstraps = {part.name: UserBootstrap(queries.users[part.rows]) for part in slices}
    rows: list[MetricRow] = []
    values: dict[str, dict[str, Mapping[str, Values]]] = {}
    ranks: dict[str, Values] = {}
    for method in methods:
        rankings = _rank(method, queries, slices, step)
        if "all" in rankings:
            ranks[method.name] = rankings["all"].ranks
        values[method.name] = {name: rank_metrics(ranking.ranks) for name, ranking in rankings.items()}
        for name, ranking in rankings.items():
            bootstrap = bootstraps[name]
            estimates = {metric: bootstrap.mean(per) for metric, per in values[method.name][name].items()}
            estimates["coverage@10"] = bootstrap.coverage(ranking.lists, len(split.cold_items))
            if text_vectors is not None:
                estimates["diversity@10"] = bootstrap.mean(list_diversity(ranking.lists, text_vectors))
            rows += _rows(method.name, name, estimates)
    differences = [
        DifferenceRow(baseline=baseline, **row.model_dump())
        for baseline in values
        if FULL in values and baseline != FULL
        for name, bootstrap in bootstraps.items()
        for row in _rows(
            FULL,
            name,
            {
                metric: bootstrap.mean(values[FULL][name][metric] - other)
                for metric, other in values[baseline][name].items()
            },
        )
    ]
    counts = {part.name: int(part.rows.sum()) for part in slices}
    return Evaluation(rows, differences, {}, counts, queries, ranks)


def evaluation_steps(methods: Sequence[Method], queries: Queries) -> int:
    """How often `evaluate_methods` calls its `step`."""
    return len(methods) * -(-len(queries) // _BATCH)


def evaluate_labels(
    methods: Sequence[LabelledMethod], queries: Queries, split: Split, tasks: TasksSettings
) -> list[MetricRow]:
    """AUC, log-loss and calibration error of conversion, mean absolute error of rating, for the items that came."""
    interactions = queries.interactions
    rows: list[MetricRow] = []
    for method in methods:
        predictions = method.predictions(queries)
        for part in _slices(queries, split):
            if part.among is not None:
                continue
            events, users = queries.events[part.rows], queries.users[part.rows]
            if tasks.conversion is not None and "conversion" in predictions:
                labels = interactions.followed_by(tasks.conversion)[events]
                found = label_metrics(labels, predictions["conversion"][part.rows], users)
                rows += _rows(method.name, part.name, {f"conversion_{name}": value for name, value in found.items()})
            if tasks.rating is not None and "rating" in predictions:
                rated = interactions.ratings(tasks.rating)[events]
                errors = np.abs(predictions["rating"][part.rows] - interactions.values[events])[rated]
                if rated.any():
                    rows += _rows(method.name, part.name, {"rating_mae": UserBootstrap(users[rated]).mean(errors)})
    return rows


def _rows(method: str, slice_name: str, estimates: Mapping[str, Estimate]) -> Iterator[MetricRow]:
    for metric, estimate in estimates.items():
        yield MetricRow(
            method=method,
            slice=slice_name,
            metric=metric,
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
        )


def compare(
    full: Method | None,
    interactions: Interactions,
    split: Split,
    tasks: TasksSettings,
    text_vectors: FloatArray,
    reporter: Reporter,
    events: int | None = None,
    labelled: Sequence[LabelledMethod] = (),
) -> Evaluation:
    """Fit and tune the baselines, then evaluate them and `full` on the same test queries (`events` of them, or all).

    text_vectors [N, D] are the frozen language model's, unit length. This is what `recmesh adapt` writes into the
    manifest and what `recmesh evaluate` prints.
    """
    queries = build_queries(interactions, split, tasks, "test").sample(events)
    with reporter.track("Baselines: tune", BASELINE_STEPS) as step:
        tuned = fit_baselines(interactions, split, tasks, text_vectors, step=step)
    methods = [*(baseline.method for baseline in tuned), *([full] if full is not None else [])]
    with reporter.track("Evaluate", evaluation_steps(methods, queries)) as step:
        found = evaluate_methods(methods, queries, split, text_vectors, step)
    means = user_item_mean(interactions, split, tasks)
    labels = evaluate_labels([*labelled, *([means] if means is not None else [])], queries, split, tasks)
    settings = {baseline.method.name: baseline.setting for baseline in tuned}
    return replace(found, rows=[*found.rows, *labels], settings=settings)


def best_baseline(
    rows: Sequence[MetricRow], slice_name: str, metric: str, among: Sequence[str] | None = None
) -> str | None:
    """The method with the highest value that is not `full`, of those in `among`; None when there is none."""
    found = [
        row
        for row in rows
        if row.slice == slice_name
        and row.metric == metric
        and row.method != FULL
        and (among is None or row.method in among)
    ]
    return max(found, key=lambda row: row.value).method if found else None
