"""Splits and evaluation queries: who had what before which event.

    temporal          train < T1 ≤ valid < T2 ≤ test, for all users alike
    leave-last-out    each user's last item is test, the one before it validation, for comparison with published tables

Models learn from train alone and are frozen; histories are not: a test query's input is everything its user did before
it, events of the validation and test periods included.

Axes: E events, Q queries, L history length, N items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.runtime.errors import SetupError
from services.runtime.scenario import EVENT_NUMBERS, RatingSettings, TaskSettings, TasksSettings
from services.training.tables import Tables

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
Period = Literal["train", "valid", "test"]
Protocol = Literal["temporal", "leave-last-out"]
TEMPORAL: Protocol = "temporal"
LEAVE_LAST_OUT: Protocol = "leave-last-out"

COLD_EVENTS = 5
"""Items with fewer click-task events in train, and users with fewer events in train, are cold."""
_UNSEEN_BATCH = 64


@dataclass(frozen=True)
class Interactions:
    """A scenario's events as integers, ordered by time; a user's events of equal time by event id.

    By leave-last-out they are ordered by period first, so that a user's events stay in order and periods are ranges.

    An item's index is its row in the items table; a user's index is its place in `user_ids`.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: IntArray  # [E]
    items: IntArray  # [E]
    kinds: IntArray  # [E] numbers of the proto enum EventKind
    times_ms: IntArray  # [E] not falling for a user, nor over all before a split of another protocol than temporal
    values: FloatArray  # [E] NaN where the event has none

    @cached_property
    def by_user(self) -> IntArray:
        """[E]: event positions grouped by user, each user's events in order."""
        return np.argsort(self.users, kind="stable")

    @cached_property
    def user_starts(self) -> IntArray:
        """[U + 1]: user u's events are by_user[user_starts[u] : user_starts[u + 1]]."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.users, minlength=len(self.user_ids)))])

    @cached_property
    def places(self) -> IntArray:
        """[E]: where each event stands in `by_user`."""
        places = np.empty(len(self.by_user), dtype=np.int64)
        places[self.by_user] = np.arange(len(places))
        return places

    def user_events(self, user: int) -> IntArray:
        """Positions of a user's events, oldest first."""
        return self.by_user[self.user_starts[user] : self.user_starts[user + 1]]

    def positives(self, task: TaskSettings) -> BoolArray:
        """[E]: whether each event counts for `task`."""
        wanted = np.isin(self.kinds, [EVENT_NUMBERS[event] for event in task.events])
        if task.min_value is not None:
            wanted &= np.nan_to_num(self.values, nan=-np.inf) >= task.min_value
        return wanted

    def followed_by(self, task: TaskSettings, end: int | None = None) -> BoolArray:
        """[E]: whether the event, or a later one of the same user on the same item, counts for `task`.

        Only events before position `end` count: the end of train, for labels that training may know.
        """
        positive = np.flatnonzero(self.positives(task)[:end])
        _, pairs = np.unique(self.users * len(self.item_ids) + self.items, return_inverse=True)
        last = np.full(len(pairs), -1, dtype=np.int64)
        np.maximum.at(last, pairs[positive], positive)
        return last[pairs] >= np.arange(len(pairs))

    def ratings(self, task: RatingSettings) -> BoolArray:
        """[E]: whether each event carries a rating."""
        return np.isin(self.kinds, [EVENT_NUMBERS[event] for event in task.events]) & np.isfinite(self.values)

    def shuffle_ties(self, seed: int) -> "Interactions":
        """The same events with those of equal time in random order.

        People who rate a list in one sitting leave neighbours in the catalogue as neighbours in time; what a method
        gains from that order it loses here.
        """
        return self.take(np.lexsort((np.random.default_rng(seed).random(len(self.users)), self.times_ms)))

    def take(self, order: IntArray) -> "Interactions":
        """The events at these positions, in this order."""
        return replace(
            self,
            users=self.users[order],
            items=self.items[order],
            kinds=self.kinds[order],
            times_ms=self.times_ms[order],
            values=self.values[order],
        )


def encode_interactions(tables: Tables) -> Interactions:
    """The tables' events as integers. Read tables are validated and in order, so nothing is checked again."""
    items = tables.items["item_id"].combine_chunks()
    events = tables.events
    user_ids = pa.array(sorted(events["user_id"].unique().to_pylist()), pa.string())
    return Interactions(
        user_ids=user_ids.to_pylist(),
        item_ids=items.to_pylist(),
        users=_integers(pc.index_in(events["user_id"], value_set=user_ids)),
        items=_integers(pc.index_in(events["item_id"], value_set=items)),
        kinds=np.array([EVENT_NUMBERS[event] for event in events["event"].to_pylist()], dtype=np.int64),
        times_ms=_integers(events["event_time"].cast(pa.int64())),
        values=np.asarray(events["value"].to_numpy(), dtype=np.float32),
    )


def _integers(column: Any) -> IntArray:
    return np.asarray(column.to_numpy(), dtype=np.int64)


_FACTS: dict[Protocol, str] = {
    TEMPORAL: "global temporal split: train < T1 <= valid < T2 <= test",
    LEAVE_LAST_OUT: "leave-last-out: each user's last item is test, the one before it validation",
}


@dataclass(frozen=True)
class Split:
    """Where the events are cut. Since they are ordered, each period is one range of positions."""

    protocol: Protocol
    train_end: int
    valid_end: int
    event_count: int
    valid_time_ms: int  # T1: the first time that is not train; by leave-last-out the time after the last of train
    test_time_ms: int  # T2: the first time that is not valid; by leave-last-out the time after the last of valid
    item_events: IntArray  # [N] click-task events in train
    cold_items: BoolArray  # [N]
    cold_users: BoolArray  # [U]

    @cached_property
    def head_items(self) -> BoolArray:
        """[N]: the fewest items that have half of the train events, those of most events; not cold."""
        order = np.argsort(-self.item_events, kind="stable")
        before = np.cumsum(self.item_events[order]) - self.item_events[order]
        head = np.zeros(len(order), dtype=np.bool_)
        head[order[2 * before < self.item_events.sum()]] = True
        return head & ~self.cold_items

    def period(self, period: Period) -> slice:
        """The period's range of event positions."""
        ends = (0, self.train_end, self.valid_end, self.event_count)
        number = ("train", "valid", "test").index(period)
        return slice(ends[number], ends[number + 1])

    def facts(self) -> dict[str, Any]:
        """What a manifest and `recmesh evaluate --json` say of the split."""
        return {
            "protocol": _FACTS[self.protocol],
            "valid_time_ms": self.valid_time_ms,
            "test_time_ms": self.test_time_ms,
            "train_events": self.train_end,
            "valid_events": self.valid_end - self.train_end,
            "test_events": self.event_count - self.valid_end,
            "items": len(self.cold_items),
            "cold_items": int(self.cold_items.sum()),
            "users": len(self.cold_users),
            "cold_users": int(self.cold_users.sum()),
        }


def temporal_split(
    interactions: Interactions, tasks: TasksSettings, train_share: float = 0.8, valid_share: float = 0.1
) -> Split:
    """Cut at the times that `train_share`, and then `valid_share` more, of the events precede; equal times stay
    together, in the later period. SetupError when a period would be empty."""
    times = interactions.times_ms
    count = len(times)
    if count == 0:
        raise SetupError("events: the table is empty; import events before training or evaluating")
    valid_time = int(times[min(int(count * train_share), count - 1)])
    test_time = int(times[min(int(count * (train_share + valid_share)), count - 1)])
    train_end = int(np.searchsorted(times, valid_time))
    valid_end = int(np.searchsorted(times, test_time))
    if not 0 < train_end < valid_end < count:
        raise SetupError(
            f"events: {count} events cannot be cut by time into train, validation and test (first cut at {valid_time} "
            f"ms, second at {test_time} ms); they need at least three different times, spread over the period"
        )
    return cut_at(interactions, tasks, TEMPORAL, (train_end, valid_end), (valid_time, test_time))


def leave_last_out(interactions: Interactions, tasks: TasksSettings) -> tuple[Interactions, Split]:
    """Each user's last query event (`build_queries`) begins their test period, the one before it their validation.

    A user's events of equal time are ordered by item id (a shorter one first, so that numbers are in order), as
    published tables have them: half of MovieLens-100K's events share their time with another, and popularity finds
    5.0 % of the last items so, but 8.7 % in random order.

    Users with fewer than three of them are all train. Train events of some are later than test events of others: models
    know the future, which is why this protocol only serves comparison with published tables. The interactions come
    back ordered by period. SetupError when nobody has three.
    """
    ids = np.array(interactions.item_ids)
    rank = np.argsort(np.lexsort((ids, np.strings.str_len(ids))))
    interactions = interactions.take(np.lexsort((rank[interactions.items], interactions.times_ms)))
    places = interactions.places - interactions.user_starts[interactions.users]
    queries = interactions.by_user[first_clicks(interactions, tasks)[interactions.by_user]]
    counts = np.bincount(interactions.users[queries], minlength=len(interactions.user_ids))
    ends, enough = np.cumsum(counts), np.flatnonzero(counts >= 3)
    if len(enough) == 0:
        raise SetupError("events: leave-last-out needs a user with three items of the click task, and there is none")
    # [2, U]: the place among the user's events at which validation and test begin.
    begins = np.full((2, len(counts)), np.iinfo(np.int64).max)
    begins[:, enough] = places[queries[[ends[enough] - 2, ends[enough] - 1]]]
    periods = (places >= begins[:, interactions.users]).sum(axis=0)
    moved = interactions.take(np.argsort(periods, kind="stable"))
    train_end, valid_end = np.cumsum(np.bincount(periods, minlength=3))[:2].tolist()
    times = (int(moved.times_ms[:train_end].max()) + 1, int(moved.times_ms[:valid_end].max()) + 1)
    return moved, cut_at(moved, tasks, LEAVE_LAST_OUT, (train_end, valid_end), times)


def make_split(
    interactions: Interactions, tasks: TasksSettings, protocol: Protocol = TEMPORAL
) -> tuple[Interactions, Split]:
    """The interactions in the protocol's order, and where it cuts them. SetupError when they cannot be cut, or when a
    period then holds nothing to learn from, to tune on or to measure on."""
    if protocol == LEAVE_LAST_OUT:
        interactions, split = leave_last_out(interactions, tasks)
    else:
        split = temporal_split(interactions, tasks)
    _check_periods(interactions, split, tasks)
    return interactions, split


def _check_periods(interactions: Interactions, split: Split, tasks: TasksSettings) -> None:
    kinds = ", ".join(tasks.click.events)
    asked = first_clicks(interactions, tasks)
    if not (asked & (interactions.places > interactions.user_starts[interactions.users]))[split.period("train")].any():
        raise SetupError(
            f"events: nobody in train had two items, the later by {kinds}, so nothing tells which items go together; "
            "import more events per user, or name other kinds in tasks.click.events"
        )
    names: tuple[tuple[Period, str], ...] = (("valid", "validation"), ("test", "test"))
    for period, name in names:
        if not asked[split.period(period)].any():
            raise SetupError(
                f"events: in the {name} period nobody had an item for the first time by {kinds}, so there is nothing "
                "to measure on; import events of a longer time, or name other kinds in tasks.click.events"
            )


def cut_at(
    interactions: Interactions, tasks: TasksSettings, protocol: Protocol, ends: tuple[int, int], times: tuple[int, int]
) -> Split:
    """The split whose train and validation end at these positions (`ends`) and times."""
    clicks = interactions.positives(tasks.click)[: ends[0]]
    item_events = np.bincount(interactions.items[: ends[0]][clicks], minlength=len(interactions.item_ids))
    user_events = np.bincount(interactions.users[: ends[0]], minlength=len(interactions.user_ids))
    return Split(
        protocol=protocol,
        train_end=ends[0],
        valid_end=ends[1],
        event_count=len(interactions.items),
        valid_time_ms=times[0],
        test_time_ms=times[1],
        item_events=item_events,
        cold_items=item_events < COLD_EVENTS,
        cold_users=user_events < COLD_EVENTS,
    )


@dataclass(frozen=True)
class Queries:
    """Evaluation queries: "which item comes next for this user?", asked just before each of `events`."""

    interactions: Interactions
    events: IntArray  # [Q] positions of the target events

    def __len__(self) -> int:
        return len(self.events)

    @property
    def users(self) -> IntArray:
        """[Q]: who is asked about."""
        return self.interactions.users[self.events]

    @property
    def targets(self) -> IntArray:
        """[Q]: the item that came."""
        return self.interactions.items[self.events]

    @cached_property
    def _bounds(self) -> tuple[IntArray, IntArray]:
        """[Q], [Q]: query q's history is by_user[starts[q] : ends[q]]."""
        return self.interactions.user_starts[self.users], self.interactions.places[self.events]

    def take(self, rows: IntArray | BoolArray | slice) -> "Queries":
        """Some of the queries."""
        return Queries(self.interactions, self.events[rows])

    def batches(self, size: int) -> Iterator["Queries"]:
        """All queries in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    def sample(self, count: int | None, seed: int = 0) -> "Queries":
        """`count` of the queries, drawn without replacement, in order; all when there are no more or count is None."""
        if count is None or count >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)))

    def history_lengths(self) -> IntArray:
        """[Q]: events before each query."""
        starts, ends = self._bounds
        return ends - starts

    def with_history(self) -> "Queries":
        """Those before which their user did something."""
        return self.take(self.history_lengths() > 0)

    def history(self, query: int) -> IntArray:
        """Event positions of a query's whole history, oldest first."""
        starts, ends = self._bounds
        return self.interactions.by_user[starts[query] : ends[query]]

    def newest(self, length: int) -> IntArray:
        """[Q, L]: event positions of the newest `length` events, right-aligned, -1 for padding."""
        starts, ends = self._bounds
        places = ends[:, None] + np.arange(-length, 0)
        positions = self.interactions.by_user[np.maximum(places, 0)]
        return np.where(places >= starts[:, None], positions, -1)

    def history_lists(self, length: int | None) -> tuple[IntArray, IntArray]:
        """Histories flattened: (query row, item) of the newest `length` events of each query (None: of all)."""
        starts, ends = self._bounds
        if length is not None:
            starts = np.maximum(starts, ends - length)
        counts = ends - starts
        rows = np.repeat(np.arange(len(self)), counts)
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.repeat(starts, counts) + offsets
        return rows, self.interactions.items[self.interactions.by_user[places]]

    def unseen(self) -> BoolArray:
        """[Q, N]: the answer set of each query: every item that its user has not had."""
        unseen = np.ones((len(self), len(self.interactions.item_ids)), dtype=np.bool_)
        # Some queries at a time: histories of tens of thousands of events are long lists.
        for start in range(0, len(self), _UNSEEN_BATCH):
            rows, items = self.take(slice(start, start + _UNSEEN_BATCH)).history_lists(None)
            unseen[start + rows, items] = False
        return unseen


def build_queries(interactions: Interactions, split: Split, tasks: TasksSettings, period: Period) -> Queries:
    """One query for each click-task event of the period whose item its user has not had before.

    By leave-last-out that is one per user in validation and in test.
    """
    span = split.period(period)
    return Queries(interactions, np.flatnonzero(first_clicks(interactions, tasks)[span]) + span.start)


def first_clicks(interactions: Interactions, tasks: TasksSettings) -> BoolArray:
    """[E]: whether the event counts for the click task and is its user's first on its item, as an answer must be."""
    keys = interactions.users * len(interactions.item_ids) + interactions.items
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first & interactions.positives(tasks.click)
