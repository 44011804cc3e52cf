"""What an update learns from, what it is joined and calibrated on, and what judges it.

    … what the bundle has learned | new to learn from | joins and calibrates | judges
                     replayed     | train             | valid                | test

Axes: N items, E events.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.bundle import LearningInfo
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.training.dataset import Dataset, event_gaps, item_texts, published_times
from services.training.online.reference import reference_queries, without
from services.training.settings.online import OnlineSettings
from services.training.split import TEMPORAL, Interactions, Queries, cut_at, encode_interactions
from services.training.tables import Tables, fingerprint_tables

_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True)
class Window:
    """The data of one update. Items are in the bundle's order, those that came later behind them."""

    dataset: Dataset
    """Everything that happened: histories, and the slice's queries."""
    learned: Dataset
    """The same without what the reference queries ask about: all that may be learned."""
    reference: Queries
    """On `dataset`."""
    start_ms: int
    """From here on events are new."""
    new_events: int
    """Events newer than the bundle."""
    known_items: int
    """Items of the bundle: rows 0 to this."""


def count_new(tables: Tables, learning: LearningInfo) -> int:
    """Events newer than the bundle."""
    end = pa.scalar(learning.data_end_ms, pa.int64())
    return int(pc.sum(pc.greater(tables.events["event_time"].cast(pa.int64()), end)).as_py() or 0)


def open_window(
    tables: Tables, scenario: Scenario, item_ids: list[str], learning: LearningInfo, learned_until_ms: int,
    settings: OnlineSettings,
) -> Window:  # fmt: skip
    """Cut the tables' events for an update of the bundle that has `item_ids` [N] and has learned from what came before
    `learned_until_ms`. SetupError when the tables lack one of its items, or when too little is new."""
    tasks = scenario.head.tasks
    ordered = replace(tables, items=_in_order(tables.items, item_ids))
    interactions = encode_interactions(ordered)
    times = interactions.times_ms
    newer = int(np.searchsorted(times, learning.data_end_ms, side="right"))
    fresh = len(times) - newer
    if fresh == 0:
        raise SetupError("no event is newer than the bundle; there is nothing to learn")
    cuts = [newer + int(fresh * (1.0 - share)) for share in (settings.slice_share, settings.slice_share / 2)]
    valid_ms, test_ms = (int(times[min(cut, len(times) - 1)]) for cut in cuts)
    start_ms = learned_until_ms
    if settings.window_hours is not None:
        start_ms = max(start_ms, int(times[-1]) - int(settings.window_hours * _MS_PER_HOUR))

    def cut(own: Interactions) -> Dataset:
        ends = [int(np.searchsorted(own.times_ms, time)) for time in (valid_ms, test_ms)]
        split = cut_at(own, tasks, TEMPORAL, (ends[0], ends[1]), (valid_ms, test_ms))
        return Dataset(fingerprint, own, split, texts, published, event_gaps(own))

    fingerprint = fingerprint_tables(tables)
    texts = item_texts(ordered.items, scenario.head.catalogue.item_text)
    published = published_times(ordered.items)
    dataset = cut(interactions)
    if not (times[: dataset.split.train_end] >= start_ms).any():
        raise SetupError(
            "online: nothing is left to learn between the window's start and the slice that judges; wait for more "
            "events, or raise online.window_hours"
        )
    reference = reference_queries(interactions, tasks, learning)
    learned = cut(without(interactions, reference.events))
    return Window(dataset, learned, reference, start_ms, fresh, len(item_ids))


def _in_order(items: pa.Table, item_ids: list[str]) -> pa.Table:
    """The items table with the rows `item_ids` first."""
    own = items["item_id"].combine_chunks()
    places = pc.index_in(pa.array(item_ids, pa.string()), value_set=own)
    if places.null_count:
        missing = item_ids[places.is_null().index(True).as_py()]
        raise SetupError(
            f"item {missing!r} of the bundle is not among the tables' items (and {places.null_count - 1} more are "
            "not); restore it, or adapt anew"
        )
    later = np.setdiff1d(np.arange(len(own)), places.to_numpy())
    return items.take(pa.array(np.concatenate([places.to_numpy(), later])))
