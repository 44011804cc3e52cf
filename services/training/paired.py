"""Figures of methods on the same queries, from the ranks that they gave, and paired differences between any two.

Axes: Q queries, N items.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from services.runtime.bundle import MetricRow
from services.training.bootstrap import Estimate, UserBootstrap
from services.training.evaluation import DifferenceRow
from services.training.metrics import rank_metrics, ranking_auc
from services.training.split import Queries

Values = npt.NDArray[np.floating]
FIGURE_TITLES = {"auc": "AUC", "ndcg@10": "NDCG@10"}
"""What is told of a ranking here, and how tables call it. AUC: share of the other answers below the item that came."""

_BATCH = 256


def answer_counts(queries: Queries) -> npt.NDArray[np.int64]:
    """[Q]: how many items each query ranks."""
    return np.concatenate([np.zeros(0, np.int64), *(batch.unseen().sum(axis=1) for batch in queries.batches(_BATCH))])


def rank_figures(ranks: Mapping[str, Values], answers: npt.NDArray[np.int64]) -> dict[str, dict[str, Values]]:
    """Per-query figures [Q] of each method's ranks [Q] among answers [Q]."""
    return {
        method: {"auc": ranking_auc(found, answers), "ndcg@10": rank_metrics(found)["ndcg@10"]}
        for method, found in ranks.items()
    }


def figure_rows(
    figures: Mapping[str, Mapping[str, Values]], bootstrap: UserBootstrap, slice_name: str = "all"
) -> list[MetricRow]:
    """Means of per-query figures, by method, with intervals over users."""
    return [
        MetricRow(method=method, slice=slice_name, metric=metric, **vars(bootstrap.mean(values)))
        for method, by_metric in figures.items()
        for metric, values in by_metric.items()
    ]


def difference_rows(
    figures: Mapping[str, Mapping[str, Values]],
    bootstrap: UserBootstrap,
    pairs: Iterable[tuple[str, str]],
    slice_name: str = "all",
) -> list[DifferenceRow]:
    """First − second of each pair of methods, paired over the same resampled users."""
    rows = []
    for method, other in pairs:
        for metric, values in figures[method].items():
            estimate: Estimate = bootstrap.mean(values - figures[other][metric])
            rows.append(DifferenceRow(method=method, baseline=other, slice=slice_name, metric=metric, **vars(estimate)))
    return rows
