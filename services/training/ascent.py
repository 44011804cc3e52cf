"""Weights of a linear ranking that NDCG@10 itself chooses: coordinate ascent (Metzler and Croft, 2007).

A likelihood weighs every query, most those whose item nobody could have foreseen; what is shown is the first ten
places. Where the parts are not what the likelihood takes them for (logits), its weights can order these worse than one
part alone. NDCG has no gradient, but with a few weights it needs none.

Axes: Q queries, H items near the top, K parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IntArray = npt.NDArray[np.int64]

_PLACES = 10
_STEPS = (-1.0, -0.5, -0.25, -0.1, -0.05, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Changes of a weight that are tried, as shares of the largest part's."""
_MOST_ROUNDS = 4
_FOLDS = 2


@dataclass(frozen=True)
class TopItems:
    """What may come first: the items near the top by any part."""

    parts: Tensor  # [Q, H, K]
    wanted: Tensor  # [Q, K] those of the item that came
    others: Tensor  # [Q, H] false for the item that came, for items that the user has had, and for padding

    @cached_property
    def differences(self) -> Tensor:
        """[Q, H, K]: parts of each item − those of the item that came."""
        return self.parts - self.wanted.unsqueeze(1)

    def take(self, rows: IntArray) -> "TopItems":
        """These queries only."""
        return TopItems(self.parts[rows], self.wanted[rows], self.others[rows])

    def ndcg(self, scores: Tensor) -> Tensor:
        """NDCG@10 [Q] of an order by scores [Q, H], relative to the score of the item that came; ties count against
        it."""
        places = ((scores >= 0) & self.others).sum(dim=1)
        return torch.where(places < _PLACES, 1.0 / torch.log2(places + 2.0), torch.zeros(()))

    def value(self, weights: Tensor) -> Tensor:
        """NDCG@10 [Q] of the weights [K]."""
        return self.ndcg(self.differences @ weights)


def ascend(start: Tensor, free: Tensor, items: TopItems, least: Tensor) -> Tensor:
    """The weights [K] that coordinate ascent reaches from `start`; those that are not `free` [K] stay, and none moves
    below its `least` [K].

    A weight moves only where NDCG@10 rises by more than the standard error of the difference: what is found by chance
    on these queries is lost on others.
    """
    weights = start.clone()
    spread = items.differences.flatten(0, 1).std(dim=0).clamp(min=1e-6)
    scores = items.differences @ weights
    best = items.ndcg(scores)
    for _ in range(_MOST_ROUNDS):
        before = best
        for part in torch.nonzero(free).flatten().tolist():
            column = items.differences[..., part]
            reach = (weights.abs() * spread * free).max() / spread[part]
            others, now = scores - column * weights[part], best
            steps = torch.cat([torch.zeros(1), weights[part] + reach * torch.tensor(_STEPS)])
            for value in steps[steps >= least[part]]:
                values = items.ndcg(others + column * value)
                if _clearly_better(values, now) and values.mean() > best.mean():
                    best, weights[part] = values, value
            scores = others + column * weights[part]
        if best is before:
            break
    return weights


def _clearly_better(values: Tensor, others: Tensor) -> bool:
    """Whether the mean difference of NDCG@10 [Q] is more than its standard error."""
    gains = values - others
    return bool(gains.mean() > gains.std() / len(gains) ** 0.5)


def pays(
    fit: Callable[[IntArray], Tensor], refine: Callable[[IntArray, Tensor], Tensor], items: TopItems, users: IntArray
) -> bool:
    """Whether refined weights rank better than fitted ones for users [Q] that neither saw. `fit` gives weights [K] from
    some of the queries, `refine` better ones from these. Neither is the simpler, so that neither needs to be clearly
    better."""
    fold = np.random.default_rng(0).permutation(users.max() + 1)[users] % _FOLDS
    fitted_values, refined_values = torch.zeros(len(users)), torch.zeros(len(users))
    for number in range(_FOLDS):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if len(inside) == 0 or len(outside) == 0:
            return False
        fitted = fit(inside)
        held_out = items.take(outside)
        fitted_values[outside] = held_out.value(fitted)
        refined_values[outside] = held_out.value(refine(inside, fitted))
    return bool(refined_values.mean() > fitted_values.mean())


def best_alone(start: Tensor, free: Tensor, items: TopItems) -> Tensor:
    """`start` [K] with one of the `free` [K] parts in place of all, the one that ranks best, as wide as all were."""
    wide = (items.differences @ (start * free)).std()
    spread = items.differences.flatten(0, 1).std(dim=0)
    best, best_value = start, -1.0
    for part in torch.nonzero(free * (spread > 0)).flatten().tolist():
        weights = start * (1.0 - free)
        weights[part] = wide / spread[part]
        value = items.value(weights).mean().item()
        if value > best_value:
            best, best_value = weights, value
    return best
