"""How good an order, a list or a probability is, and how sure that figure is.

Axes: Q queries, N items, K list length, D vector length, U users, R bootstrap resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.integer]
BoolArray = npt.NDArray[np.bool_]


def target_ranks(scores: FloatArray, targets: IntArray, answers: BoolArray) -> FloatArray:
    """Each target's rank in its answer set, 1 is best: scores [Q, N], targets [Q], answers [Q, N] → [Q].

    Equal scores share the mean of their ranks, so a method that scores everything alike ranks every target in the
    middle. Targets must be answers. ValueError when a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    own = scores[np.arange(len(targets)), targets][:, None]
    better = ((scores > own) & answers).sum(axis=1)
    equal = ((scores == own) & answers).sum(axis=1)
    return better + (equal + 1) / 2.0


def top_items(scores: FloatArray, answers: BoolArray, count: int) -> IntArray:
    """The `count` best answers of each query, best first: [Q, K]; -1 where a query has fewer answers."""
    masked = np.where(answers, scores, -np.inf)
    count = min(count, masked.shape[1])
    best = np.argpartition(-masked, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(masked, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    return np.where(np.take_along_axis(answers, best, axis=1), best, -1)


def rank_metrics(ranks: FloatArray) -> dict[str, FloatArray]:
    """Per-query NDCG@10, Recall@10, Recall@50 and reciprocal rank for one relevant item each: ranks [Q] → [Q] each.

    With one relevant item the ideal gain is 1, so NDCG@k = 1 / log2(1 + rank) within the first k (Järvelin and
    Kekäläinen, 2002).
    """
    return {
        "ndcg@10": np.where(ranks <= 10, 1.0 / np.log2(1.0 + ranks), 0.0),
        "recall@10": (ranks <= 10).astype(np.float64),
        "recall@50": (ranks <= 50).astype(np.float64),
        "mrr": 1.0 / ranks,
    }


def list_diversity(lists: IntArray, vectors: FloatArray) -> FloatArray:
    """Mean cosine distance between the items of each list: lists [Q, K] of rows of unit-length vectors [N, D] → [Q].

    -1 entries are left out; a list of fewer than two items has diversity 0.
    """
    present = lists >= 0
    members = np.where(present[..., None], vectors[np.maximum(lists, 0)], 0.0)
    # The sum of all pairwise cosines is the squared length of the vectors' sum; the diagonal adds each item's own.
    total = np.square(members.sum(axis=1)).sum(axis=-1) - np.square(members).sum(axis=(1, 2))
    pairs = present.sum(axis=1) * (present.sum(axis=1) - 1)
    return np.where(pairs > 0, 1.0 - total / np.maximum(pairs, 1), 0.0)


def area_under_curve(labels: BoolArray, predictions: FloatArray) -> float:
    """Probability that a positive is predicted above a negative, ties counting half (Mann and Whitney, 1947).

    ValueError unless both labels occur.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        raise ValueError("AUC needs positive and negative labels")
    ranks = rankdata(predictions)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_losses(labels: BoolArray, probabilities: FloatArray) -> FloatArray:
    """Negative log-likelihood of each label, probabilities kept 1e-7 away from 0 and 1: [Q] → [Q]."""
    inside = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return -np.log(np.where(labels, inside, 1 - inside))


def expected_calibration_error(labels: BoolArray, probabilities: FloatArray, bins: int = 15) -> float:
    """Mean gap between predicted and observed share over equally filled bins (Nguyen and O'Connor, 2015)."""
    order = np.argsort(probabilities, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [abs(float(probabilities[part].mean()) - float(labels[part].mean())) * len(part) for part in parts]
    return sum(gaps) / len(order)


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class UserBootstrap:
    """Resamples users with replacement (Efron, 1979): a user's queries depend on each other, users do not.

    The same resamples serve every statistic, so differences between methods are paired.
    """

    def __init__(self, users: IntArray, resamples: int = 2000, seed: int = 0) -> None:
        """users [Q]: who each query is about; at least one."""
        _, self._rows = np.unique(users, return_inverse=True)
        self._counts = np.bincount(self._rows).astype(np.float64)
        user_count = len(self._counts)
        draws = np.random.default_rng(seed).multinomial(user_count, np.full(user_count, 1 / user_count), resamples)
        self._weights = draws.astype(np.float64)  # [R, U]: how often each user was drawn

    @property
    def user_count(self) -> int:
        """U."""
        return len(self._counts)

    def mean(self, values: FloatArray) -> Estimate:
        """The mean over queries of values [Q]."""
        sums = np.bincount(self._rows, weights=values)
        resampled = (self._weights @ sums) / (self._weights @ self._counts)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return Estimate(float(values.mean()), float(low), float(high))

    def coverage(self, lists: IntArray, item_count: int) -> Estimate:
        """The share of the catalogue that occurs in any of lists [Q, K] of item rows (-1: none).

        A resample holds fewer different users and so fewer items than the sample: its spread is meant, not its level.
        """
        rows, items = np.repeat(self._rows, lists.shape[1]), lists.ravel()
        shown = csr_matrix(
            (np.ones(int((items >= 0).sum())), (rows[items >= 0], items[items >= 0])),
            shape=(self.user_count, item_count),
        )
        value = float(np.count_nonzero(shown.sum(axis=0)) / item_count)
        # A few hundred resamples at a time bound the [R, N] intermediate.
        shares = np.concatenate(
            [np.count_nonzero(part @ shown, axis=1) / item_count for part in np.array_split(self._weights, 10)]
        )
        return _moved_interval(value, shares)


def _moved_interval(value: float, resampled: FloatArray) -> Estimate:
    """The resamples' interval, moved to the value: for shares of which resamples are biased, so only spread counts."""
    low, high = np.quantile(resampled, [0.025, 0.975]) - resampled.mean()
    return Estimate(value, max(0.0, value + float(low)), min(1.0, value + float(high)))


def label_metrics(
    labels: BoolArray, probabilities: FloatArray, users: IntArray, resamples: int = 200, seed: int = 0
) -> Mapping[str, Estimate]:
    """AUC, log-loss and calibration error of probabilities [Q] for labels [Q], resampling users [Q].

    AUC is left out when only one label occurs; resamples in which only one does are not counted for it.
    """
    generator = np.random.default_rng(seed)
    _, user_rows = np.unique(users, return_inverse=True)
    grouped = np.split(np.argsort(user_rows, kind="stable"), np.cumsum(np.bincount(user_rows))[:-1])
    samples: dict[str, list[float]] = {"auc": [], "ece": []}
    for _ in range(resamples):
        drawn = np.concatenate([grouped[user] for user in generator.integers(len(grouped), size=len(grouped))])
        samples["ece"].append(expected_calibration_error(labels[drawn], probabilities[drawn]))
        if 0 < labels[drawn].sum() < len(drawn):
            samples["auc"].append(area_under_curve(labels[drawn], probabilities[drawn]))
    estimates = {
        "log_loss": UserBootstrap(users, seed=seed).mean(log_losses(labels, probabilities)),
        # Resampling repeats labels and so widens the gaps in every bin.
        "ece": _moved_interval(expected_calibration_error(labels, probabilities), np.array(samples["ece"])),
    }
    if samples["auc"]:
        low, high = np.quantile(samples["auc"], [0.025, 0.975])
        estimates["auc"] = Estimate(area_under_curve(labels, probabilities), float(low), float(high))
    return estimates
