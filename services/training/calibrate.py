"""Step 6: outputs of the exported parts as probabilities and ratings, and the re-ranker's weight. On validation only.

Axes: Q queries, C candidates, K re-ranked.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from services.runtime.bundle import Calibration
from services.training.bootstrap import UserBootstrap
from services.training.metrics import ndcg_at_10

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Fusion:
    """Fused logit = scorer_weight · scorer logit + reranker_weight · re-ranker logit + offset."""

    scorer_weight: float
    reranker_weight: float
    offset: float

    def apply(self, scorer: FloatArray, reranker: FloatArray) -> FloatArray:
        """The fused logit of equal-shaped logits."""
        fused = self.scorer_weight * scorer + self.reranker_weight * reranker + self.offset
        return fused.astype(np.float32)


def platt(logits: FloatArray, labels: BoolArray) -> Calibration:
    """The scale and offset that maximise the likelihood of `labels` (Platt, 1999, with his smoothed targets)."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    targets = torch.where(torch.from_numpy(labels.ravel()), high, low).double()
    values = torch.from_numpy(logits.ravel().astype(np.float64))
    # A common size for scale and offset makes the fit well conditioned; it is undone below.
    mean, deviation = values.mean(), values.std(correction=0).clamp(min=1e-9)
    unit = (values - mean) / deviation
    share = targets.mean()
    parameters = torch.stack([torch.ones((), dtype=torch.double), torch.log(share / (1 - share))]).requires_grad_()

    def loss() -> Tensor:
        return F.binary_cross_entropy_with_logits(parameters[0] * unit + parameters[1], targets)

    _minimise(parameters, loss)
    scale, offset = parameters.detach()
    return Calibration(scale=float(scale / deviation), offset=float(offset - scale * mean / deviation))


def linear(outputs: FloatArray, ratings: FloatArray) -> Calibration:
    """Least squares: rating ≈ scale · output + offset. One value everywhere gives scale 0 and the mean."""
    outputs = outputs.astype(np.float64)
    centred = outputs - outputs.mean()
    variance = float((centred**2).mean())
    scale = float((centred * ratings).mean()) / variance if variance > 1e-12 else 0.0
    return Calibration(scale=scale, offset=float(ratings.mean()) - scale * float(outputs.mean()))


def fuse(scorer: FloatArray, reranker: FloatArray, labels: BoolArray, known: BoolArray, users: IntArray) -> Fusion:
    """Weights that best find the item that came among K, then a calibration of their sum. All [Q, K] but users [Q];
    `known` is false where a query has fewer than K candidates.

    Queries without the item among the K tell nothing about the order, but they do about the probability. The re-ranker
    gets a weight only if it pays: if a weight fitted on one half of the users raises NDCG@10 of the other half, the
    95 % interval over users above zero. It never gets a negative one: an order that it worsens does not become better
    by turning it round.
    """
    weights = (1.0, 0.0)
    if _pays(scorer, reranker, labels, known, users):
        weights = _order_weights(scorer, reranker, labels, known)
    first, second = weights
    calibration = platt((first * scorer + second * reranker).astype(np.float32)[known], labels[known])
    return Fusion(first * calibration.scale, second * calibration.scale, calibration.offset)


def _pays(scorer: FloatArray, reranker: FloatArray, labels: BoolArray, known: BoolArray, users: IntArray) -> bool:
    """Whether a re-ranked order is better, out of sample. Shapes as in `fuse`."""
    told = labels.any(axis=1)
    first = np.isin(users, np.unique(users)[::2])
    lead = np.zeros(len(users))
    for fitted, judged in ((first, ~first), (~first, first)):
        rows = judged & told
        if not rows.any() or not (fitted & told).any():
            return False
        own, other = _order_weights(scorer[fitted], reranker[fitted], labels[fitted], known[fitted])
        targets = labels[rows].argmax(axis=1)
        fused = ndcg_at_10(own * scorer[rows] + other * reranker[rows], targets, known[rows])
        alone = ndcg_at_10(scorer[rows], targets, known[rows])
        lead[rows] = fused - alone
    return UserBootstrap(users).mean(lead).low > 0


def _order_weights(
    scorer: FloatArray, reranker: FloatArray, labels: BoolArray, known: BoolArray
) -> tuple[float, float]:
    """The weights of both under which the items that came are most likely. Shapes as in `fuse`."""
    told = labels.any(axis=1)
    both = torch.from_numpy(np.stack([scorer, reranker], axis=-1).astype(np.float64))[torch.from_numpy(told)]
    targets = torch.from_numpy(labels[told].argmax(axis=1))
    weights = torch.tensor([1.0, 0.1], dtype=torch.double, requires_grad=True)

    def loss() -> Tensor:
        logits = (both @ weights).masked_fill(torch.from_numpy(~known[told]), float("-inf"))
        return F.cross_entropy(logits, targets)

    if told.any():
        _minimise(weights, loss)
    first, second = weights.detach().tolist()
    return (first, second) if second > 0 else (1.0, 0.0)


def _minimise(parameters: Tensor, loss: Callable[[], Tensor]) -> None:
    optimiser = torch.optim.LBFGS([parameters], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
