"""Choosing a baseline's setting on validation queries."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from services.training.baselines.methods import Method
from services.training.metrics import ndcg_at_10
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
TRIALS = 16
"""Settings that each tuned baseline tries on validation."""

_BATCH = 512

M = TypeVar("M", bound=Method)
M_co = TypeVar("M_co", bound=Method, covariant=True)
Setting = dict[str, float | None]


@dataclass(frozen=True)
class Tuned(Generic[M_co]):
    """A baseline with the setting that validation chose."""

    method: M_co
    setting: Setting
    validation_ndcg: float  # NDCG@10; of the cold fill: plus NDCG@10 on cold targets
    trials: int  # how many settings were tried


def query_ndcg(method: Method, queries: Queries) -> FloatArray:
    """NDCG@10 of each query [Q]."""
    gains = [ndcg_at_10(method.scores(batch), batch.targets, batch.unseen()) for batch in queries.batches(_BATCH)]
    return np.concatenate([np.zeros(0, np.float32), *gains]).astype(np.float32)


def mean_ndcg(method: Method, queries: Queries) -> float:
    """NDCG@10 over the queries; 0 when there are none."""
    return float(query_ndcg(method, queries).mean()) if len(queries) else 0.0


def best_of(trials: Iterable[tuple[Setting, M]], score: Callable[[M], float]) -> Tuned[M]:
    """The trial of the highest score, the first of equals; made one after the other, since weights are large.

    ValueError when there is none.
    """
    best: Tuned[M] | None = None
    count = 0
    for setting, method in trials:
        value, count = score(method), count + 1
        if best is None or value > best.validation_ndcg:
            best = Tuned(method, setting, value, count)
    if best is None:
        raise ValueError("no trial to choose from")
    return replace(best, trials=count)


def tune(candidates: Iterable[M], queries: Queries) -> tuple[M, float]:
    """The candidate of the highest NDCG@10 on the queries, the first of equals, and that figure."""
    best = best_of((({}, candidate) for candidate in candidates), lambda method: mean_ndcg(method, queries))
    return best.method, best.validation_ndcg
