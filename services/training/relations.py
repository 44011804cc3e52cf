"""Which items go together, by what users had close to each other: what the language model learns from.

Axes: M pairs, N items, B items of a batch, D vector length.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from services.runtime.errors import SetupError
from services.training.dataset import Dataset
from services.training.distributed import place
from services.training.metrics import target_ranks
from services.training.settings.item_adaptation import ItemAdaptationSettings

IntArray = npt.NDArray[np.int64]
_PAIRS_PER_HELD_OUT = 10


class Relations:
    """One scenario's relations between items, and how well vectors find those that are kept out."""

    def __init__(self, dataset: Dataset, settings: ItemAdaptationSettings, seed: int) -> None:
        """SetupError when no two items go together."""
        pairs = _co_consumed_pairs(dataset, settings.window_events)
        self.held_out = _HeldOut(pairs, settings.held_out_share, seed)
        self._pairs = pairs[~self.held_out.chosen[pairs].any(axis=1)]
        if len(self._pairs) == 0:
            raise SetupError(
                "training.item_adaptation: no user had two different items within window_events in train; set method "
                "to frozen and projection_steps to 0"
            )
        count = dataset.item_count
        ones = np.ones(len(self._pairs), dtype=np.float32)
        self._together = csr_matrix((ones, (self._pairs[:, 0], self._pairs[:, 1])), shape=(count, count))
        self._log_counts = np.log(np.maximum(np.asarray(self._together.sum(axis=1)).ravel(), 1e-9)).astype(np.float32)
        self._items = np.unique(self._pairs)
        self._temperature = settings.temperature

    def draw_pairs(self, count: int, generator: np.random.Generator) -> IntArray:
        """[B] different items: those of `count` pairs, so that each has one that it goes with."""
        return np.unique(self._pairs[generator.integers(len(self._pairs), size=count)])

    def draw_items(self, count: int, generator: np.random.Generator) -> IntArray:
        """[B] different items, each as likely as the others; B is `count`, or as many as there are."""
        return np.sort(generator.choice(self._items, min(count, len(self._items)), replace=False))

    def loss(self, vectors: Tensor, items: IntArray) -> Tensor:
        """How far the vectors [B, D] (unit length) of different `items` [B] are from telling what goes with what.

        Cross-entropy between the softmax of the similarities and the share in which an item went with each other item
        of the batch, so that every pair of the batch teaches, not only those drawn. The logarithm of how often an item
        goes with any is added to its logits (logit adjustment; Menon et al., 2021): vectors need not learn what is
        popular.
        """
        weights = place(self._together[items][:, items].toarray())
        own = torch.eye(len(items), dtype=torch.bool, device=weights.device)
        weights = weights.masked_fill(own, 0.0)
        total = weights.sum(dim=1)
        logits = vectors @ vectors.T / self._temperature + place(self._log_counts[items])
        likelihoods = torch.log_softmax(logits.masked_fill(own, float("-inf")), dim=1).masked_fill(own, 0.0)
        known = total > 0
        return -((weights[known] / total[known, None]) * likelihoods[known]).sum(dim=1).mean()


class _HeldOut:
    """Items that are kept out of the pairs: how well are their partners found from their texts alone?

    That is what a new item will need, and what fine-tuning loses first when it learns titles by heart.
    """

    def __init__(self, pairs: IntArray, share: float, seed: int) -> None:
        """pairs [M, 2]; `share` of the items is held out."""
        generator = np.random.default_rng(seed)
        self.chosen = np.zeros(pairs.max() + 1 if len(pairs) else 0, dtype=np.bool_)
        self.chosen[np.flatnonzero(generator.random(len(self.chosen)) < share)] = True
        usable = pairs[~self.chosen[pairs[:, 0]] & self.chosen[pairs[:, 1]]]
        order = generator.permutation(len(usable))
        # The same number of pairs for each item, however popular it is.
        ranks = _rank_within(usable[order, 1])
        self.pairs = usable[order[ranks < _PAIRS_PER_HELD_OUT]]

    @torch.inference_mode()
    def loss(self, encode: Callable[[IntArray], Tensor]) -> float:
        """Minus the mean reciprocal rank of the held-out partner among all held-out items."""
        items, places = np.unique(self.pairs, return_inverse=True)
        vectors = encode(items).cpu().numpy()
        anchors, partners = places.reshape(-1, 2).T
        scores = vectors[anchors] @ vectors.T
        answers = np.broadcast_to(self.chosen[items], scores.shape)
        return -float((1.0 / target_ranks(scores, partners, answers)).mean())


def _rank_within(groups: IntArray) -> IntArray:
    """[n]: how many entries of the same group stand before each entry."""
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(groups)) - np.repeat(starts, counts)
    return ranks


def _co_consumed_pairs(dataset: Dataset, window: int) -> IntArray:
    """[M, 2] pairs of different items, at most `window` training events apart in one user's history, both ways."""
    interactions, end = dataset.interactions, dataset.split.train_end
    order = interactions.by_user[interactions.by_user < end]
    users, items = interactions.users[order], interactions.items[order]
    found = []
    for distance in range(1, window + 1):
        same = (users[:-distance] == users[distance:]) & (items[:-distance] != items[distance:])
        pairs = np.stack([items[:-distance][same], items[distance:][same]], axis=1)
        found += [pairs, pairs[:, ::-1]]
    return np.concatenate(found)
