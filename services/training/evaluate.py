"""One harness for every method: the same queries, the same answer sets, the same resampled users.

Axes: Q queries, N items, K list length, D vector length.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from services.runtime.bundle import MetricRow
from services.runtime.errors import SetupError
from services.runtime.scenario import TasksSettings
from services.training.baselines import (
    BaselineSet,
    FloatArray,
    Method,
    Tuned,
    baseline_steps,
    fit_baselines,
    user_item_mean,
)
from services.training.bootstrap import Estimate, UserBootstrap, label_metrics
from services.training.evaluation import FULL, PAIRED, CurveRow, DifferenceRow, Evaluation
from services.training.metrics import (
    item_novelty,
    list_diversity,
    list_mean,
    rank_metrics,
    ranking_auc,
    target_ranks,
    top_items,
)
from services.training.progress import Reporter
from services.training.slices import Group, Slice, curve_groups, slices
from services.training.split import Interactions, Queries, Split, build_queries

CURVE_METRICS = ("ndcg@10", "recall@10", "auc")
"""Metrics of the curves."""

Values = npt.NDArray[np.floating]
Items = npt.NDArray[np.integer]

_LIST_LENGTH = 10
_RANK_METRICS = ("ndcg@10", "recall@10", "recall@50", "mrr", "auc")
_BATCH = 256


class LabelledMethod(Protocol):
    """Anything that predicts what happens after the click."""

    @property
    def name(self) -> str:
        """Its name in rows."""

    def predictions(self, queries: Queries) -> Mapping[str, FloatArray]:
        """For each query's target, by task, [Q]: "conversion" a probability, "rating" in the scenario's scale."""


@dataclass(frozen=True)
class _Ranking:
    """Where a method put the targets of some queries, and what it would have shown. Axis: R of the Q queries."""

    values: dict[str, Values]  # [R] by metric
    lists: Items  # [R, K]


@dataclass(frozen=True)
class _ListFigures:
    """What is measured of the lists themselves."""

    popularity: FloatArray  # [N] events in train
    novelty: FloatArray  # [N] bits
    text_vectors: FloatArray | None  # [N, D]

    def __call__(self, lists: Items) -> dict[str, Values]:
        """[Q] by metric, of lists [Q, K]."""
        found = {
            "popularity@10": list_mean(lists, self.popularity),
            "novelty@10": list_mean(lists, self.novelty),
        }
        if self.text_vectors is not None:
            found["diversity@10"] = list_diversity(lists, self.text_vectors)
        return found


def _rank(
    method: Method, queries: Queries, parts: Sequence[Slice], figures: _ListFigures, step: Callable[[str], None]
) -> dict[str, _Ranking]:
    """A method's ranking of each part's queries, scoring every query once and keeping nothing of size [Q, N]."""
    found: dict[str, list[tuple[dict[str, Values], Items]]] = {part.name: [] for part in parts}
    for start, batch in zip(range(0, len(queries), _BATCH), queries.batches(_BATCH), strict=True):
        scores, unseen = method.scores(batch), batch.unseen()
        for part in parts:
            rows = part.rows[start : start + _BATCH]
            answers = unseen[rows] if part.among is None else unseen[rows] & part.among
            ranks = target_ranks(scores[rows], batch.targets[rows], answers)
            lists = top_items(scores[rows], answers, _LIST_LENGTH)
            auc = ranking_auc(ranks, answers.sum(axis=1))
            found[part.name].append(({"rank": ranks, **rank_metrics(ranks), "auc": auc, **figures(lists)}, lists))
        step(method.name)
    return {name: _join(batches) for name, batches in found.items()}


def _join(batches: Sequence[tuple[dict[str, Values], Items]]) -> _Ranking:
    names = batches[0][0]
    values = {name: np.concatenate([values[name] for values, _ in batches]) for name in names}
    return _Ranking(values, np.concatenate([lists for _, lists in batches]))


def _history_popularity(queries: Queries, popularity: FloatArray) -> Values:
    """[Q]: mean popularity [N] of the items of each query's whole history; 0 without history."""
    means = []
    for batch in queries.batches(_BATCH):
        rows, items = batch.history_lists(None)
        sums = np.bincount(rows, weights=popularity[items], minlength=len(batch))
        means.append(sums / np.maximum(np.bincount(rows, minlength=len(batch)), 1))
    return np.concatenate(means)


def evaluate_methods(
    methods: Sequence[Method],
    queries: Queries,
    split: Split,
    text_vectors: FloatArray | None = None,
    step: Callable[[str], None] = lambda note: None,
) -> Evaluation:
    """Figures of every method and slice, and the differences of every two methods. Settings are left empty.

    Lists' diversity is measured between text_vectors [N, D] (unit length), and left out without them. A slice without
    queries has no rows. `step` is called `evaluation_steps` times. ValueError without queries or without methods.
    """
    if len(queries) == 0 or not methods:
        raise ValueError("nothing to evaluate: no queries or no methods")
    found = slices(queries, split)
    # Ranked anew only where the answer set is another one.
    ranked = [part for part in found if part.name == "all" or part.among is not None]
    popularity = split.item_events.astype(np.float32)
    figures = _ListFigures(popularity, item_novelty(split.item_events), text_vectors)
    rankings: dict[str, dict[str, _Ranking]] = {}
    for method in methods:
        own = _rank(method, queries, ranked, figures, step)
        rankings[method.name] = {
            part.name: own[part.name] if part.name in own else _part(own["all"], part.rows) for part in found
        }
    histories = _history_popularity(queries, popularity)
    rows: list[MetricRow] = []
    differences: list[DifferenceRow] = []
    pairs: list[DifferenceRow] = []
    for part in found:
        bootstrap = UserBootstrap(queries.users[part.rows])
        values = {name: own[part.name].values for name, own in rankings.items()}
        for name, own in rankings.items():
            estimates = _estimates(own[part.name], bootstrap, histories[part.rows], len(popularity))
            rows += _rows(name, part.name, estimates)
        pairs += _differences(combinations(values, 2), part.name, (PAIRED,), bootstrap, values)
        if FULL in values:
            others = [(FULL, name) for name in values if name != FULL]
            differences += _differences(others, part.name, _RANK_METRICS, bootstrap, values)
    whole = {name: own["all"].values for name, own in rankings.items()}
    return Evaluation(
        rows=rows,
        differences=differences,
        pairs=pairs,
        curves=[row for group in curve_groups(queries, split) for row in _curve_rows(group, queries, whole)],
        settings={},
        trials={},
        query_counts={part.name: int(part.rows.sum()) for part in found},
        queries=queries,
        ranks={name: values["rank"] for name, values in whole.items()},
    )


def _part(whole: _Ranking, rows: npt.NDArray[np.bool_]) -> _Ranking:
    return _Ranking({name: values[rows] for name, values in whole.values.items()}, whole.lists[rows])


def _estimates(
    ranking: _Ranking, bootstrap: UserBootstrap, histories: Values, item_count: int
) -> Iterator[tuple[str, Estimate]]:
    for metric, values in ranking.values.items():
        if metric != "rank":
            yield metric, bootstrap.mean(values)
    yield "coverage@10", bootstrap.coverage(ranking.lists, item_count)
    # Of queries with a history: without one there is nothing to compare with.
    shown = np.where(histories > 0, ranking.values["popularity@10"], 0.0)
    lift = bootstrap.ratio(shown, histories)
    if lift is not None:
        yield "popularity_lift@10", Estimate(lift.value - 1, lift.low - 1, lift.high - 1)


def _differences(
    pairs: Iterable[tuple[str, str]], slice_name: str, metrics: Sequence[str], bootstrap: UserBootstrap,
    values: Mapping[str, Mapping[str, Values]],
) -> Iterator[DifferenceRow]:  # fmt: skip
    for method, baseline in pairs:
        estimates = ((metric, bootstrap.mean(values[method][metric] - values[baseline][metric])) for metric in metrics)
        for row in _rows(method, slice_name, estimates):
            yield DifferenceRow(baseline=baseline, **row.model_dump())


def _curve_rows(group: Group, queries: Queries, values: Mapping[str, Mapping[str, Values]]) -> Iterator[CurveRow]:
    bootstrap = UserBootstrap(queries.users[group.rows])
    for method, own in values.items():
        estimates = ((metric, bootstrap.mean(own[metric][group.rows])) for metric in CURVE_METRICS)
        for row in _rows(method, "all", estimates):
            yield CurveRow(
                axis=group.axis,
                events_from=group.low,
                events_to=None if group.high is None else group.high - 1,
                queries=int(group.rows.sum()),
                **row.model_dump(),
            )


def _rows(method: str, slice_name: str, estimates: Iterable[tuple[str, Estimate]]) -> Iterator[MetricRow]:
    for metric, estimate in estimates:
        yield MetricRow(method=method, slice=slice_name, metric=metric, **vars(estimate))


def evaluation_steps(methods: Sequence[Method], queries: Queries) -> int:
    """How often `evaluate_methods` calls its `step`."""
    return len(methods) * -(-len(queries) // _BATCH)


def evaluate_labels(
    methods: Sequence[LabelledMethod], queries: Queries, split: Split, tasks: TasksSettings
) -> list[MetricRow]:
    """AUC, log-loss and calibration error of conversion, absolute and squared error of rating, for the items that came.

    The click task has no such labels: that an item did not come is not known to be a refusal.
    """
    interactions = queries.interactions
    rows: list[MetricRow] = []
    for method in methods:
        predictions = method.predictions(queries)
        for part in slices(queries, split):
            if part.among is not None:
                continue
            events, users = queries.events[part.rows], queries.users[part.rows]
            if tasks.conversion is not None and "conversion" in predictions:
                labels = interactions.followed_by(tasks.conversion)[events]
                found = label_metrics(labels, predictions["conversion"][part.rows], users)
                named = ((f"conversion_{name}", value) for name, value in found.items())
                rows += _rows(method.name, part.name, named)
            if tasks.rating is not None and "rating" in predictions:
                rated = interactions.ratings(tasks.rating)[events]
                errors = (predictions["rating"][part.rows] - interactions.values[events])[rated]
                if rated.any():
                    bootstrap = UserBootstrap(users[rated])
                    figures = {
                        "rating_mae": bootstrap.mean(np.abs(errors)),
                        "rating_rmse": bootstrap.root_mean(np.square(errors)),
                    }
                    rows += _rows(method.name, part.name, figures.items())
    return rows


def compare(
    full: Method | None,
    interactions: Interactions,
    split: Split,
    tasks: TasksSettings,
    text_vectors: FloatArray,
    reporter: Reporter,
    *,
    baselines: BaselineSet,
    threads: int,
    seed: int,
    events: int | None = None,
    labelled: Sequence[LabelledMethod] = (),
    more: Sequence[Tuned[Method]] = (),
) -> Evaluation:
    """Fit and tune the baselines, then evaluate them, `more` and `full` on the same test queries (`events` of them, or
    all), on at most `threads` threads.

    text_vectors [N, D] are the frozen language model's, unit length. `more` are baselines that were tuned before.
    SetupError when nothing can be asked of the test period.
    """
    queries = build_queries(interactions, split, tasks, "test").sample(events)
    if len(queries) == 0:
        raise SetupError("events: no user has an item of the click task for the first time in the test period")
    with threadpool_limits(threads):
        with reporter.track("Baselines: tune", baseline_steps(baselines)) as step:
            tuned = fit_baselines(
                interactions, split, tasks, text_vectors, baselines, threads=threads, seed=seed, step=step
            )
        tuned += more
        methods = [*(baseline.method for baseline in tuned), *([full] if full is not None else [])]
        with reporter.track("Evaluate", evaluation_steps(methods, queries)) as step:
            found = evaluate_methods(methods, queries, split, text_vectors, step)
        means = user_item_mean(interactions, split, tasks)
        labels = evaluate_labels([*labelled, *([means] if means is not None else [])], queries, split, tasks)
    return replace(
        found,
        rows=[*found.rows, *labels],
        settings={baseline.method.name: baseline.setting for baseline in tuned},
        trials={baseline.method.name: baseline.trials for baseline in tuned},
    )
