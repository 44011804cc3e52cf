"""Item-to-item weights of the classics, fitted on train.

Axes: U users, N items, M items with weights, D text vector length.
"""

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, lapack
from scipy.sparse import csr_matrix

from services.runtime.scenario import TasksSettings
from services.training.baselines.methods import DenseRows, FloatArray
from services.training.split import BoolArray, IntArray, Interactions, Split

MAX_DENSE_ITEMS = 8_000
"""EASE inverts a matrix of items by items: beyond this many, only the most popular take part (half a minute each)."""

_BATCH = 512


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

    Sarwar et al., 2001, with the shrinkage of Bell and Koren, 2007. Not by implicit's CosineRecommender, which has no
    shrinkage: on MovieLens-100K tuning chooses some. train [U, N] → sparse [N, N].
    """
    together = (train.T @ train).tocoo()
    norms = np.sqrt(together.diagonal())
    data = together.data / (norms[together.row] * norms[together.col] + shrinkage)
    data[together.row == together.col] = 0.0
    return csr_matrix((data, (together.row, together.col)), shape=together.shape, dtype=np.float32)


def ease_weights(
    train: csr_matrix, regularisation: float, max_items: int = MAX_DENSE_ITEMS, dropout: float = 0.0
) -> DenseRows:
    """EASE in closed form: P = (XᵀX + λI)⁻¹, B_ij = -P_ij / P_jj, 0 on the diagonal (Steck, 2019).

    With a share of `dropout`, below 1, the weights of one that learns to make good what was dropped from its input
    (EDLAE; Steck, 2020): to each λ comes dropout / (1 − dropout) of the item's events. train [U, N]. Items without
    events, and those beyond the `max_items` most popular, have no weights.
    """
    counts = np.asarray(train.sum(axis=0)).ravel()
    kept = np.sort(np.argsort(-counts, kind="stable")[:max_items])
    kept = kept[counts[kept] > 0]
    gram = (train[:, kept].T @ train[:, kept]).toarray()
    gram[np.diag_indices_from(gram)] += regularisation + dropout / (1.0 - dropout) * np.diag(gram)
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
