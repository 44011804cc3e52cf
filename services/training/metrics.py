"""How good an order, a list or a probability is.

Axes: Q queries, N items, K list length, D vector length.
"""

import numpy as np
import numpy.typing as npt
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


def ndcg_at_10(scores: FloatArray, targets: IntArray, answers: BoolArray) -> FloatArray:
    """NDCG@10 [Q] of the order by `scores`. Shapes and errors as in target_ranks."""
    return rank_metrics(target_ranks(scores, targets, answers))["ndcg@10"]


def ranking_auc(ranks: FloatArray, answer_counts: IntArray) -> FloatArray:
    """Share of a query's other answers that rank below its target, ties counting half: ranks, answer_counts [Q] → [Q].

    With one relevant item this is the area under the ROC curve over the answer set. 0.5 where there is no other answer.
    """
    others = answer_counts - 1
    return np.where(others > 0, (answer_counts - ranks) / np.maximum(others, 1), 0.5)


def list_mean(lists: IntArray, item_values: FloatArray) -> FloatArray:
    """Mean of item_values [N] over the items of each list: lists [Q, K] → [Q].

    -1 entries do not count; an empty list has mean 0.
    """
    present = lists >= 0
    values = np.where(present, item_values[np.maximum(lists, 0)], 0.0)
    return values.sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def item_novelty(train_events: IntArray) -> FloatArray:
    """-log2 of each item's share of the train events [N], in bits: how little known it is [N].

    Self-information (Zhou et al., 2010; Vargas and Castells, 2011). An item without events counts as one with one.
    """
    return -np.log2(np.maximum(train_events, 1) / max(int(train_events.sum()), 1))


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
