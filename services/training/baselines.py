"""What the whole model must beat: methods that score every item from a user's history.

Each is fitted on train alone and tuned on validation queries, history length included, with the same number of trials.

Axes: Q queries of a batch, N items, D text vector length.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, lapack
from scipy.sparse import csr_matrix

from services.model.collaborative import ItemWeights, decayed_event_counts
from services.runtime.scenario import TasksSettings
from services.training.metrics import rank_metrics, target_ranks
from services.training.split import BoolArray, IntArray, Interactions, Queries, Split, build_queries

FloatArray = npt.NDArray[np.float32]

TRIALS = 12
"""Settings that each tuned baseline tries on validation."""

MAX_DENSE_ITEMS = 8_000
"""EASE inverts a matrix of items by items: beyond this many, only the most popular take part (half a minute each)."""

_BATCH = 512


class Method(Protocol):
    """Anything that can be evaluated."""

    @property
    def name(self) -> str:
        """Its name in tables and rows; "full" is the whole model."""

    def scores(self, queries: Queries) -> FloatArray:
        """A score for every item, higher is better, no NaN: [Q, N]. Items already had may score anything."""


@dataclass(frozen=True)
class FixedScores:
    """The same scores for everyone: popularity."""

    name: str
    item_scores: FloatArray  # [N]

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        return np.broadcast_to(self.item_scores, (len(queries), len(self.item_scores)))


@dataclass(frozen=True)
class HistorySum:
    """Sum of the item-to-item weights from the newest events, which is what item-based classics have in common."""

    name: str
    weights: "csr_matrix | DenseRows"  # [N, N]: row i is what item i says for the others
    history_events: int | None  # None: all

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]."""
        history = _history_matrix(queries, self.history_events)
        if isinstance(self.weights, DenseRows):
            return history[:, self.weights.items] @ self.weights.values
        return (history @ self.weights).toarray()


@dataclass(frozen=True)
class DenseRows:
    """Item-to-item weights of which whole rows are missing: items that say nothing for any other."""

    items: IntArray  # [M] whose rows are there, ascending
    values: FloatArray  # [M, N]


@dataclass(frozen=True)
class TextMean:
    """The frozen language model: cosine between the mean text vector of the newest events and every item's."""

    name: str
    vectors: FloatArray  # [N, D] unit length
    history_events: int | None

    def scores(self, queries: Queries) -> FloatArray:
        """[Q, N]; without history every item scores 0."""
        # The mean's length does not change the order, so the sum serves.
        return (_history_matrix(queries, self.history_events) @ self.vectors) @ self.vectors.T


def _history_matrix(queries: Queries, length: int | None) -> csr_matrix:
    """[Q, N]: how often each item occurs in the newest `length` events."""
    rows, items = queries.history_lists(length)
    shape = (len(queries), len(queries.interactions.item_ids))
    return csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, items)), shape=shape)


def train_matrix(interactions: Interactions, split: Split, tasks: TasksSettings) -> csr_matrix:
    """[U, N]: 1 where the user has a click-task event on the item in train."""
    train = split.period("train")
    clicks = interactions.positives(tasks.click)[train]
    users, items = interactions.users[train][clicks], interactions.items[train][clicks]
    shape = (len(interactions.user_ids), len(interactions.item_ids))
    matrix = csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix


def item_knn_weights(train: csr_matrix, shrinkage: float) -> csr_matrix:
    """Cosine between items, shrunk where few users had them: c_ij / (sqrt(c_ii c_jj) + shrinkage), 0 on the diagonal.

    Sarwar et al., 2001, with the shrinkage of Bell and Koren, 2007. train [U, N] → sparse [N, N].
    """
    together = (train.T @ train).tocoo()
    norms = np.sqrt(together.diagonal())
    data = together.data / (norms[together.row] * norms[together.col] + shrinkage)
    data[together.row == together.col] = 0.0
    return csr_matrix((data, (together.row, together.col)), shape=together.shape, dtype=np.float32)


def ease_weights(train: csr_matrix, regularisation: float, max_items: int = MAX_DENSE_ITEMS) -> DenseRows:
    """EASE in closed form: P = (XᵀX + λI)⁻¹, B_ij = -P_ij / P_jj, 0 on the diagonal (Steck, 2019).

    train [U, N]. Items without events, and those beyond the `max_items` most popular, have no weights.
    """
    counts = np.asarray(train.sum(axis=0)).ravel()
    kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
    kept = kept[counts[kept] > 0]
    gram = (train[:, kept].T @ train[:, kept]).toarray()
    gram[np.diag_indices_from(gram)] += regularisation
    factor, lower = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    inverse, _ = lapack.get_lapack_funcs("potri", (factor,))(factor, lower=lower, overwrite_c=True)
    # potri fills one triangle only.
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    values = np.zeros((len(kept), train.shape[1]), dtype=np.float32)
    values[:, kept] = weights
    return DenseRows(kept, values)


def fill_cold_items(
    weights: DenseRows, cold_items: BoolArray, vectors: FloatArray, neighbours: int, factor: float
) -> DenseRows:
    """`weights` in which each cold item's column is the mean of its nearest warm items' columns, times `factor`.

    Near is by cosine of text vectors [N, D], which also weighs the mean (negative cosines count 0). An item that the
    history holds may thus recommend a cold neighbour of what it recommends.
    """
    warm, cold = np.flatnonzero(~cold_items), np.flatnonzero(cold_items)
    if len(warm) == 0 or len(cold) == 0:
        return weights
    count = min(neighbours, len(warm))
    nearest, near = _nearest(vectors, cold, warm, count)
    near *= factor / np.maximum(near.sum(axis=1, keepdims=True), 1e-9)
    mix = csr_matrix(
        (near.ravel(), (np.repeat(np.arange(len(cold)), count), nearest.ravel())), shape=(len(cold), len(warm))
    )
    filled = weights.values.copy()
    filled[:, cold] = (mix @ weights.values[:, warm].T).T
    return DenseRows(weights.items, filled)


def _nearest(
    vectors: FloatArray, cold: IntArray, warm: IntArray, count: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """For each cold item the places in `warm` of its `count` nearest and their cosines, at least 0: [cold, count]."""
    places, cosines = [], []
    for start in range(0, len(cold), _BATCH):
        found = vectors[cold[start : start + _BATCH]] @ vectors[warm].T
        nearest = np.argpartition(-found, count - 1, axis=1)[:, :count]
        places.append(nearest)
        cosines.append(np.maximum(np.take_along_axis(found, nearest, axis=1), 0.0))
    return np.concatenate(places), np.concatenate(cosines)


def truncate_weights(weights: DenseRows, per_row: int) -> ItemWeights:
    """The `per_row` weights of greatest size of each row, without zeros: a bundle's collaborative table."""
    item_count = weights.values.shape[1]
    lengths = np.zeros(item_count, dtype=np.int64)
    indices, values = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.float32)]
    for item, row in zip(weights.items, weights.values, strict=True):
        kept = np.argpartition(-np.abs(row), min(per_row, item_count) - 1)[:per_row]
        kept = np.sort(kept[row[kept] != 0])
        indices.append(kept.astype(np.int32))
        values.append(row[kept])
        lengths[item] = len(kept)
    return ItemWeights(np.concatenate([[0], np.cumsum(lengths)]), np.concatenate(indices), np.concatenate(values))


M = TypeVar("M", bound=Method)
M_co = TypeVar("M_co", bound=Method, covariant=True)
Setting = dict[str, float | None]


@dataclass(frozen=True)
class Tuned(Generic[M_co]):
    """A baseline with the setting that validation chose."""

    method: M_co
    setting: Setting
    validation_ndcg: float  # NDCG@10; of the cold fill: plus NDCG@10 on cold targets


_LENGTHS = (5, 10, 30, None)
BASELINE_STEPS = 1 + 5 * TRIALS
"""How many trials `fit_baselines` reports."""


def fit_baselines(
    interactions: Interactions,
    split: Split,
    tasks: TasksSettings,
    text_vectors: FloatArray,
    tuning_queries: int | None = 3000,
    step: Callable[[str], None] = lambda note: None,
) -> list[Tuned[Method]]:
    """Fit on train, tune on a sample of the validation queries. text_vectors [N, D] are the frozen language model's.

    `step` is called BASELINE_STEPS times, with what was just tried.
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
    return [
        Tuned(popularity, {}, score(popularity)),
        best_of(_recent_trials(interactions, split, tasks), score),
        best_of(_item_knn_trials(train), score),
        ease,
        best_of(_text_trials(text_vectors), score),
        # It exists for cold items, which are too few to move the figure over all queries.
        best_of(_fill_trials(ease, split, text_vectors), lambda method: score(method) + mean_ndcg(method, cold)),
    ]


def mean_ndcg(method: Method, queries: Queries) -> float:
    """NDCG@10 over the queries; 0 when there are none."""
    gains = [
        rank_metrics(target_ranks(method.scores(batch), batch.targets, batch.unseen()))["ndcg@10"]
        for batch in queries.batches(_BATCH)
    ]
    return float(np.concatenate(gains).mean()) if gains else 0.0


def best_of(trials: Iterable[tuple[Setting, M]], score: Callable[[M], float]) -> Tuned[M]:
    """The trial of the highest score, the first of equals; made one after the other, since weights are large.

    ValueError when there is none.
    """
    best: Tuned[M] | None = None
    for setting, method in trials:
        value = score(method)
        if best is None or value > best.validation_ndcg:
            best = Tuned(method, setting, value)
    if best is None:
        raise ValueError("no trial to choose from")
    return best


def tune(candidates: Iterable[M], queries: Queries) -> tuple[M, float]:
    """The candidate of the highest NDCG@10 on the queries, the first of equals, and that figure."""
    best = best_of((({}, candidate) for candidate in candidates), lambda method: mean_ndcg(method, queries))
    return best.method, best.validation_ndcg


def _recent_trials(
    interactions: Interactions, split: Split, tasks: TasksSettings
) -> Iterator[tuple[Setting, FixedScores]]:
    train = split.period("train")
    clicks = interactions.positives(tasks.click)[train]
    items, times = interactions.items[train][clicks], interactions.times_ms[train][clicks]
    for days in (1, 2, 4, 7, 10, 14, 21, 30, 45, 60, 90, 180):
        scores = decayed_event_counts(items, times, len(interactions.item_ids), split.valid_time_ms, days)
        yield {"half_life_days": days}, FixedScores("recent_popularity", scores)


def _item_knn_trials(train: csr_matrix) -> Iterator[tuple[Setting, HistorySum]]:
    for shrinkage in (0, 10, 50):
        weights = item_knn_weights(train, shrinkage)
        for length in _LENGTHS:
            yield {"shrinkage": shrinkage, "history_events": length}, HistorySum("item_knn", weights, length)


def ease_trials(train: csr_matrix) -> Iterator[tuple[Setting, HistorySum]]:
    """EASE with each regularisation and history length that is tried."""
    for regularisation in (100, 500, 2000):
        weights = ease_weights(train, regularisation)
        for length in _LENGTHS:
            yield {"regularisation": regularisation, "history_events": length}, HistorySum("ease", weights, length)


def _text_trials(vectors: FloatArray) -> Iterator[tuple[Setting, TextMean]]:
    for length in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, None):
        yield {"history_events": length}, TextMean("frozen_text", vectors, length)


def _fill_trials(ease: Tuned[HistorySum], split: Split, vectors: FloatArray) -> Iterator[tuple[Setting, HistorySum]]:
    for neighbours in (3, 10, 30):
        for factor in (0.5, 1.0, 1.25, 1.5):
            weights = fill_cold_items(ease.method.weights, split.cold_items, vectors, neighbours, factor)
            setting = {**ease.setting, "neighbours": neighbours, "factor": factor}
            yield setting, HistorySum("ease_text_fill", weights, ease.method.history_events)


@dataclass(frozen=True)
class UserItemMean:
    """Damped means of a label over the user's history and over the item's train events, added to the overall mean.

    What a model must beat on "given the click, does it convert?".
    """

    name: str
    task: str
    overall: float
    item_offsets: npt.NDArray[np.float64]  # [N]
    user_offsets: npt.NDArray[np.float64]  # [E]: of the event's user, from the events before it

    def predictions(self, queries: Queries) -> dict[str, FloatArray]:
        """Probability of the label for each query's target, by task: [Q]."""
        total = self.overall + self.item_offsets[queries.targets] + self.user_offsets[queries.events]
        return {self.task: np.clip(total, 0.01, 0.99).astype(np.float32)}


def user_item_mean(
    interactions: Interactions, split: Split, tasks: TasksSettings, damping: float = 5.0
) -> UserItemMean | None:
    """Fit the conversion task's means; `damping` events of the overall mean are added to each. None without the task.

    Item means come from train, user means from all that the user did before the event: the model sees that too.
    """
    if tasks.conversion is None:
        return None
    clicks = interactions.positives(tasks.click).astype(np.float64)
    labels = interactions.followed_by(tasks.conversion, split.train_end) * clicks
    train = split.period("train")
    overall = float(labels[train].sum() / max(clicks[train].sum(), 1.0))

    item_count = len(interactions.item_ids)
    item_clicks = np.bincount(interactions.items[train], weights=clicks[train], minlength=item_count)
    item_labels = np.bincount(interactions.items[train], weights=labels[train], minlength=item_count)

    order, users = interactions.by_user, interactions.users[interactions.by_user]
    conversions = interactions.positives(tasks.conversion).astype(np.float64)
    offsets = np.empty(len(order))
    clicks_before = _sum_before(clicks[order], users, interactions.user_starts)
    conversions_before = _sum_before(conversions[order], users, interactions.user_starts)
    offsets[order] = (conversions_before - overall * clicks_before) / (clicks_before + damping)
    return UserItemMean(
        name="user_item_mean",
        task="conversion",
        overall=overall,
        item_offsets=(item_labels - overall * item_clicks) / (item_clicks + damping),
        user_offsets=offsets,
    )


def _sum_before(values: npt.NDArray[np.float64], users: IntArray, user_starts: IntArray) -> npt.NDArray[np.float64]:
    """Sum of a user's earlier values; values [E] and users [E] grouped by user."""
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    return before - before[user_starts[users]]
