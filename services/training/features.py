"""The collaborative table and the popularity columns of a bundle, fitted on train.

Axes: N items, Q queries, F features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from services.model.collaborative import (
    FEATURES,
    ItemWeights,
    decayed_event_counts,
    dense_features,
    event_counts,
)
from services.runtime.scenario import TasksSettings
from services.training.baselines import (
    HistorySum,
    Setting,
    best_of,
    ease_weights,
    fill_cold_items,
    mean_ndcg,
    train_matrix,
    truncate_weights,
)
from services.training.config import CollaborativeSettings
from services.training.dataset import Dataset
from services.training.progress import Reporter
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FeatureTables:
    """What the dense features are computed from."""

    weights: ItemWeights
    history_events: int
    train_event_count: FloatArray  # [N]
    recent_popularity: FloatArray  # [N]

    def compute(self, queries: Queries) -> FloatArray:
        """Features of every item for each query: [Q, N, F], in the order of FEATURES."""
        rows, items = queries.history_lists(self.history_events)
        item_count = len(self.train_event_count)
        history = csr_matrix((np.ones(len(rows), np.float32), (rows, items)), shape=(len(queries), item_count))
        table = csr_matrix(
            (self.weights.weights, self.weights.indices, self.weights.indptr), shape=(item_count, item_count)
        )
        collaborative = (history @ table).toarray()
        everything = np.broadcast_to(np.arange(item_count), collaborative.shape)
        return dense_features(FEATURES, collaborative, self.train_event_count, self.recent_popularity, everything)


def fit_features(
    dataset: Dataset, tasks: TasksSettings, text_vectors: FloatArray, validation: Queries,
    settings: CollaborativeSettings, reporter: Reporter,
) -> FeatureTables:  # fmt: skip
    """EASE on train with its cold items filled from text neighbours; the history it sums over is tuned on validation.

    text_vectors [N, D], unit length, from text alone: those of cold items must lie near what they are like.
    """
    interactions, split = dataset.interactions, dataset.split
    matrix = train_matrix(interactions, split, tasks)
    trials = len(settings.regularisation) * len(settings.history_events)
    with reporter.track("Collaborative table", trials) as advance:

        def score(method: HistorySum) -> float:
            value = mean_ndcg(method, validation)
            advance(f"ndcg@10 {value:.3f}")
            return value

        best = best_of(_trials(matrix, settings), score)
    weights = ease_weights(matrix, best.setting["regularisation"] or 0.0)
    weights = fill_cold_items(weights, split.cold_items, text_vectors, settings.neighbours, settings.cold_factor)
    train = split.period("train")
    clicks = interactions.positives(tasks.click)[train]
    items, times = interactions.items[train][clicks], interactions.times_ms[train][clicks]
    count = dataset.item_count
    return FeatureTables(
        weights=truncate_weights(weights, settings.weights_per_item),
        history_events=int(best.setting["history_events"] or 0),
        train_event_count=event_counts(items, count),
        recent_popularity=decayed_event_counts(items, times, count, split.valid_time_ms, settings.half_life_days),
    )


def _trials(matrix: csr_matrix, settings: CollaborativeSettings) -> Iterator[tuple[Setting, HistorySum]]:
    for regularisation in settings.regularisation:
        weights = ease_weights(matrix, regularisation)
        for length in settings.history_events:
            yield {"regularisation": regularisation, "history_events": length}, HistorySum("ease", weights, length)
