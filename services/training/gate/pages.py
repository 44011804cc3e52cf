"""Logged pages, seen again by the candidate: the rows of its off-policy estimate.

Axes: P pages, N items, X shown items of all pages, R of them at places where the log drew by lot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from services.experiment.off_policy import OffPolicyResult, OffPolicySettings, evaluate
from services.ranking.config import RankingSettings
from services.training.dataset import Dataset
from services.training.exported import FullModel
from services.training.gate.policy import Lot, lot_at, page_order
from services.training.online.impressions import Examples
from services.training.split import BoolArray, IntArray, Interactions, Queries

FloatArray = npt.NDArray[np.floating]
_BATCH = 64


@dataclass(frozen=True)
class Moments(Queries):
    """Queries that are asked at a time, not before an event: `events` [Q] holds each user's newest event before it."""

    @cached_property
    def _bounds(self) -> tuple[IntArray, IntArray]:
        return self.interactions.user_starts[self.users], self.interactions.places[self.events] + 1

    def take(self, rows: IntArray | BoolArray | slice) -> "Moments":
        """Some of them."""
        return Moments(self.interactions, self.events[rows])


@dataclass(frozen=True)
class Pages:
    """Pages whose user and items are known, each with its place in the examples."""

    moments: Moments
    """[P]: what each user had done when the page was made."""
    rows: list[IntArray]
    """[P]: the page's rows of the examples, first place first."""


def open_pages(interactions: Interactions, examples: Examples, most: int) -> Pages:
    """The newest `most` pages of users who had done something before."""
    user_of = {user: row for row, user in enumerate(interactions.user_ids)}
    by_request: dict[str, list[int]] = {}
    for row, request_id in enumerate(examples.request_ids):
        by_request.setdefault(request_id, []).append(row)
    newest = sorted(by_request.values(), key=lambda page: -int(examples.served_times_ms[page[0]]))
    events: list[int] = []
    kept: list[IntArray] = []
    for page in newest:
        user = user_of.get(examples.user_ids[page[0]], -1)
        if user < 0 or len(kept) == most:
            continue
        own = interactions.user_events(user)
        before = int(np.searchsorted(interactions.times_ms[own], examples.served_times_ms[page[0]]))
        if before:
            events.append(int(own[before - 1]))
            rows = np.array(page, dtype=np.int64)
            kept.append(rows[np.argsort(examples.positions[rows], kind="stable")])
    return Pages(Moments(interactions, np.array(events, dtype=np.int64)), kept)


@dataclass(frozen=True)
class LoggedRows:
    """Shown items at places where the log drew by lot. [R] each."""

    rewards: FloatArray
    logged: FloatArray
    target: FloatArray
    """The candidate's probability of the same item, given those above it."""
    places: IntArray
    users: IntArray
    predicted: FloatArray
    """Click probability of the item by the incumbent, places aside."""
    expected: FloatArray
    """Its mean over what the candidate would show there."""


def replay(
    pages: Pages, examples: Examples, dataset: Dataset, models: tuple[FullModel, FullModel], vectors: FloatArray,
    categories: Sequence[str], settings: RankingSettings,
) -> LoggedRows:  # fmt: skip
    """The rows of all pages for the candidate, the first of `models`; the incumbent, the second, predicts rewards.

    vectors [N, D]: the candidate's; categories [N]: each item's first one.
    """
    candidate, incumbent = models
    row_of = {item: row for row, item in enumerate(dataset.interactions.item_ids)}
    found: list[tuple[float, ...]] = []
    start = 0
    for batch in pages.moments.batches(_BATCH):
        scores, unseen = candidate.scores(batch), batch.unseen()
        clicks = incumbent.click_probabilities(batch)
        for place, rows in enumerate(pages.rows[start : start + len(batch)]):
            order = page_order(scores[place], unseen[place], vectors, categories, len(rows), settings)
            above: list[int] = []
            for row in rows.tolist():
                item, logged = row_of.get(examples.item_ids[row], -1), float(examples.propensities[row])
                # Where the log could show one item only, it says nothing of what another would have earned.
                if logged < 1.0 and item >= 0:
                    lot = lot_at(order, above, settings.exploration)
                    found.append(_row(examples, row, item, lot, clicks[place], int(batch.users[place])))
                above.append(item)
        start += len(batch)
    columns = np.array(found, dtype=np.float64).reshape(-1, 7).T
    rewards, propensities, target, places, users, predicted, expected = columns
    return LoggedRows(
        rewards, propensities, target, places.astype(np.int64), users.astype(np.int64), predicted, expected
    )


def _row(examples: Examples, row: int, item: int, lot: Lot, clicks: FloatArray, user: int) -> tuple[float, ...]:
    return (
        float(examples.clicked[row]),
        float(examples.propensities[row]),
        lot.probability(item),
        float(examples.positions[row]),
        float(user),
        float(clicks[item]),
        float(lot.probabilities @ clicks[lot.items]) if len(lot.items) else 0.0,
    )


def estimate(rows: LoggedRows, settings: OffPolicySettings) -> OffPolicyResult:
    """The candidate's value per shown item, by users. Predictions are scaled place by place to the clicks there, since
    a model of clicks does not know how far down a page people look."""
    factors = place_factors(rows.places, rows.rewards, rows.predicted)[rows.places]
    return evaluate(
        rows.rewards, rows.logged, rows.target, rows.users, settings,
        predicted=np.minimum(factors * rows.predicted, 1.0), expected=np.minimum(factors * rows.expected, 1.0),
    )  # fmt: skip


def place_factors(places: IntArray, rewards: FloatArray, predicted: FloatArray) -> FloatArray:
    """[K]: clicks at each place per predicted click, drawn towards that of all places as far as one more click would;
    all arguments [R]."""
    count = int(places.max()) + 1 if len(places) else 0
    if rewards.sum() == 0 or predicted.sum() == 0:
        return np.zeros(count)
    overall = float(rewards.sum() / predicted.sum())
    clicks = np.bincount(places, weights=rewards, minlength=count)
    promised = np.bincount(places, weights=predicted, minlength=count)
    factors: FloatArray = (clicks + 1.0) / (promised + 1.0 / overall)
    return factors
