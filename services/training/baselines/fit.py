"""What the whole model must beat: every baseline fitted on train alone and tuned on validation.

Each tries the same number of settings, history length included.

Axes: U users, N items, D text vector length.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from services.model.collaborative import decayed_event_counts
from services.runtime.scenario import TasksSettings
from services.training.baselines.factors import fit_bpr, fit_ials
from services.training.baselines.item_weights import ease_weights, fill_cold_items, item_knn_weights, train_matrix
from services.training.baselines.methods import FixedScores, FloatArray, HistorySum, Method, TextMean
from services.training.baselines.tuning import TRIALS, Setting, Tuned, best_of, mean_ndcg
from services.training.split import Interactions, Split, build_queries

BaselineSet = Literal["quick", "all"]
"""quick: what is fitted in closed form, in seconds; all: factor models too."""

BASELINES: dict[BaselineSet, tuple[str, ...]] = {
    "quick": ("popularity", "recent_popularity", "item_knn", "ease", "frozen_text", "ease_text_fill"),
    "all": ("popularity", "recent_popularity", "item_knn", "ease", "ials", "bpr", "frozen_text", "ease_text_fill"),
}
"""The names of each set, in the order of the tables."""

_LENGTHS = (5, 10, 30, None)


def baseline_steps(chosen: BaselineSet) -> int:
    """How many trials `fit_baselines` reports: popularity has nothing to tune."""
    return 1 + (len(BASELINES[chosen]) - 1) * TRIALS


def fit_baselines(
    interactions: Interactions,
    split: Split,
    tasks: TasksSettings,
    text_vectors: FloatArray,
    chosen: BaselineSet,
    *,
    threads: int = 1,
    seed: int = 0,
    tuning_queries: int | None = 3000,
    step: Callable[[str], None] = lambda note: None,
) -> list[Tuned[Method]]:
    """Fit on train, tune on a sample of the validation queries. text_vectors [N, D] are the frozen language model's.

    `step` is called baseline_steps(chosen) times, with what was just tried.
    """
    valid = build_queries(interactions, split, tasks, "valid").sample(tuning_queries)
    cold = valid.take(split.cold_items[valid.targets])
    train = train_matrix(interactions, split, tasks)
    popularity = FixedScores("popularity", np.asarray(train.sum(axis=0)).ravel())

    def score(method: Method) -> float:
        value = mean_ndcg(method, valid)
        step(method.name)
        return value

    ease = best_of(ease_trials(train), score)
    found: list[Tuned[Method]] = [
        Tuned(popularity, {}, score(popularity), 1),
        best_of(_recent_trials(interactions, split, tasks), score),
        best_of(_item_knn_trials(train), score),
        ease,
        best_of(_text_trials(text_vectors), score),
        # It exists for cold items, which are too few to move the figure over all queries.
        best_of(_fill_trials(ease, split, text_vectors), lambda method: score(method) + mean_ndcg(method, cold)),
    ]
    if chosen == "all":
        found += [fit_ials(train, score, threads, seed), fit_bpr(train, score, seed)]
    return sorted(found, key=lambda tuned: BASELINES[chosen].index(tuned.method.name))


def _recent_trials(
    interactions: Interactions, split: Split, tasks: TasksSettings
) -> Iterator[tuple[Setting, FixedScores]]:
    train = split.period("train")
    clicks = interactions.positives(tasks.click)[train]
    items, times = interactions.items[train][clicks], interactions.times_ms[train][clicks]
    for days in (1, 2, 3, 4, 5, 7, 10, 14, 21, 30, 45, 60, 90, 120, 180, 365):
        scores = decayed_event_counts(items, times, len(interactions.item_ids), split.valid_time_ms, days)
        yield {"half_life_days": days}, FixedScores("recent_popularity", scores)


def _item_knn_trials(train: csr_matrix) -> Iterator[tuple[Setting, HistorySum]]:
    for shrinkage in (0, 3, 10, 50):
        weights = item_knn_weights(train, shrinkage)
        for length in _LENGTHS:
            yield {"shrinkage": shrinkage, "history_events": length}, HistorySum("item_knn", weights, length)


def ease_trials(train: csr_matrix) -> Iterator[tuple[Setting, HistorySum]]:
    """EASE with each regularisation and history length that is tried."""
    for regularisation in (30, 100, 500, 2000):
        weights = ease_weights(train, regularisation)
        for length in _LENGTHS:
            yield {"regularisation": regularisation, "history_events": length}, HistorySum("ease", weights, length)


def _text_trials(vectors: FloatArray) -> Iterator[tuple[Setting, TextMean]]:
    for length in (1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 40, 50, 75, 100, None):
        yield {"history_events": length}, TextMean("frozen_text", vectors, length)


def _fill_trials(ease: Tuned[HistorySum], split: Split, vectors: FloatArray) -> Iterator[tuple[Setting, HistorySum]]:
    for neighbours in (1, 3, 10, 30):
        for factor in (0.5, 1.0, 1.25, 1.5):
            weights = fill_cold_items(ease.method.weights, split.cold_items, vectors, neighbours, factor)
            setting = {**ease.setting, "neighbours": neighbours, "factor": factor}
            yield setting, HistorySum("ease_text_fill", weights, ease.method.history_events)
