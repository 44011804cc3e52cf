"""Which queries a figure is over, and among which items they are ranked.

Axes: Q queries, N items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from services.training.split import BoolArray, IntArray, Queries, Split

Axis = Literal["item_train_events", "history_events"]
"""What a curve's groups are told apart by: click-task events of the target in train, events before the query."""

CURVE_EDGES = (0, 1, 3, 5, 10, 20, 50, 100, 200)
"""Where each group of a curve begins; the last is open."""


@dataclass(frozen=True)
class Slice:
    """Some of the queries, ranked among some of the items."""

    name: str
    rows: BoolArray  # [Q]
    among: BoolArray | None = None  # [N]; None: all


@dataclass(frozen=True)
class Group:
    """The queries of one point of a curve: those whose number of events is in [low, high)."""

    axis: Axis
    low: int
    high: int | None  # None: open
    rows: BoolArray  # [Q]


def slices(queries: Queries, split: Split) -> list[Slice]:
    """The slices that have queries (docs/evaluation.md)."""
    targets = queries.targets
    cold, head = split.cold_items[targets], split.head_items[targets]
    found = [
        Slice("all", np.ones(len(queries), dtype=np.bool_)),
        Slice("cold_items", cold),
        Slice("cold_items_among_cold", cold, split.cold_items),
        Slice("cold_users", split.cold_users[queries.users]),
        Slice("head_items", head),
        Slice("tail_items", ~head & ~cold),
    ]
    return [part for part in found if part.rows.any()]


def curve_groups(queries: Queries, split: Split) -> list[Group]:
    """The groups that have queries, of each axis from few events to many."""
    axes: dict[Axis, IntArray] = {
        "item_train_events": split.item_events[queries.targets],
        "history_events": queries.history_lengths(),
    }
    return [group for axis, counts in axes.items() for group in _groups(axis, counts)]


def _groups(axis: Axis, counts: IntArray) -> Iterator[Group]:
    for low, high in zip(CURVE_EDGES, (*CURVE_EDGES[1:], None), strict=True):
        rows = (counts >= low) & (counts < high if high is not None else True)
        if rows.any():
            yield Group(axis, low, high, rows)
