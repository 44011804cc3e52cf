"""What an evaluation found, as rows and as answers to the questions that are asked of it.

Axes: Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.runtime.bundle import MetricRow
from services.training.baselines import Setting
from services.training.slices import Axis
from services.training.split import Queries

FULL = "full"
"""The method name of the whole model."""

ID_ONLY = ("popularity", "recent_popularity", "item_knn", "ease", "ials", "bpr", "sasrec", "bert4rec", "hstu")
"""Baselines that know an item by its events alone."""

PAIRED = "ndcg@10"
"""The metric in which every two methods are compared."""

Values = npt.NDArray[np.floating]


class DifferenceRow(MetricRow):
    """method − baseline, paired over resampled users. A win is an interval above zero."""

    baseline: str
    """What `method` is compared with."""


class CurveRow(MetricRow):
    """One point of a curve: a figure over the queries that have so many events."""

    axis: Axis
    """What is counted: click-task events of the target in train, or events before the query."""
    events_from: int
    """Fewest events of the group."""
    events_to: int | None
    """Most events; none: any number."""
    queries: int
    """Queries of the group."""


@dataclass(frozen=True)
class Lead:
    """The whole model against the best of some baselines on one slice."""

    slice: str
    baseline: str
    ratio: float | None
    """full / baseline; None when the baseline has 0."""
    difference: DifferenceRow


@dataclass(frozen=True)
class Evaluation:
    """What one run found."""

    rows: list[MetricRow]
    differences: list[DifferenceRow]
    """`full` against every other method; empty when it was not evaluated."""
    pairs: list[DifferenceRow]
    """NDCG@10 of every two methods, each pair once: the earlier method − the later one."""
    curves: list[CurveRow]
    """Quality by events of the target and by length of the history."""
    settings: dict[str, Setting]
    """What validation chose, by baseline."""
    trials: dict[str, int]
    """How many settings were tried, by baseline."""
    query_counts: dict[str, int]
    """Queries by slice."""
    queries: Queries
    """What was asked."""
    ranks: dict[str, Values]
    """[Q] by method: each target's rank among all items, for curves over other groups of queries."""

    def row(self, method: str, slice_name: str, metric: str) -> MetricRow | None:
        """One figure; None when it was not measured."""
        wanted = (method, slice_name, metric)
        return next((row for row in self.rows if (row.method, row.slice, row.metric) == wanted), None)

    def pair(self, method: str, other: str, slice_name: str) -> DifferenceRow | None:
        """NDCG@10 of `method` − that of `other`; None when one was not measured."""
        for row in self.pairs:
            if row.slice == slice_name and (row.method, row.baseline) == (method, other):
                return row
            if row.slice == slice_name and (row.baseline, row.method) == (method, other):
                turned = {"value": -row.value, "low": -row.high, "high": -row.low}
                return row.model_copy(update={"method": method, "baseline": other, **turned})
        return None

    def lead(self, slice_name: str, among: Sequence[str] | None = None) -> Lead | None:
        """NDCG@10 of the whole model against the best baseline of those in `among` (None: of all); None without."""
        best = best_baseline(self.rows, slice_name, PAIRED, among)
        if best is None:
            return None
        own, other = self.row(FULL, slice_name, PAIRED), self.row(best, slice_name, PAIRED)
        difference = self.pair(FULL, best, slice_name)
        if own is None or other is None or difference is None:
            return None
        return Lead(slice_name, best, own.value / other.value if other.value > 0 else None, difference)


def best_baseline(
    rows: Sequence[MetricRow], slice_name: str, metric: str, among: Sequence[str] | None = None
) -> str | None:
    """The method with the highest value that is not `full`, of those in `among`; None when there is none."""
    found = [
        row
        for row in rows
        if row.slice == slice_name
        and row.metric == metric
        and row.method != FULL
        and (among is None or row.method in among)
    ]
    return max(found, key=lambda row: row.value).method if found else None
