"""Means of labels: what a model must beat on "given the click, does it convert, and how is it rated?".

Axes: E events, N items, Q queries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.runtime.scenario import TasksSettings
from services.training.baselines.methods import FloatArray
from services.training.split import IntArray, Interactions, Queries, Split

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelMeans:
    """Damped offsets of a label over the user's history and over the item's train events, added to its overall mean."""

    overall: float
    item_offsets: Values  # [N]
    user_offsets: Values  # [E]: of the event's user, from the events before it
    low: float
    high: float

    def predictions(self, queries: Queries) -> FloatArray:
        """The expected label of each query's target, within low and high: [Q]."""
        total = self.overall + self.item_offsets[queries.targets] + self.user_offsets[queries.events]
        return np.clip(total, self.low, self.high).astype(np.float32)


@dataclass(frozen=True)
class UserItemMean:
    """A user's and an item's mean of each label."""

    tasks: dict[str, LabelMeans]
    name: str = "user_item_mean"

    def predictions(self, queries: Queries) -> dict[str, FloatArray]:
        """For each query's target, by task, [Q]: "conversion" a probability, "rating" in the scenario's scale."""
        return {task: means.predictions(queries) for task, means in self.tasks.items()}


def user_item_mean(
    interactions: Interactions, split: Split, tasks: TasksSettings, damping: float = 5.0
) -> UserItemMean | None:
    """Fit the means of conversion and rating, the tasks that there are; None without either.

    `damping` events of the overall mean are added to each mean. Item means come from train, user means from all that
    the user did before the event: the model sees that too.
    """
    found = {}
    if tasks.conversion is not None:
        clicks = interactions.positives(tasks.click).astype(np.float64)
        labels = interactions.followed_by(tasks.conversion, split.train_end) * clicks
        conversions = interactions.positives(tasks.conversion).astype(np.float64)
        found["conversion"] = _fit(interactions, split, clicks, labels, conversions, damping, (0.01, 0.99))
    if tasks.rating is not None:
        rated = interactions.ratings(tasks.rating)
        values = np.where(rated, interactions.values, 0.0).astype(np.float64)
        bounds = (tasks.rating.min, tasks.rating.max)
        found["rating"] = _fit(interactions, split, rated.astype(np.float64), values, values, damping, bounds)
    return UserItemMean(found) if found else None


def _fit(
    interactions: Interactions, split: Split, counted: Values, labels: Values, labels_before: Values, damping: float,
    bounds: tuple[float, float],
) -> LabelMeans:  # fmt: skip
    """counted [E]: 1 where an event has a label; labels [E], known in train; labels_before [E]: known right after."""
    train = split.period("train")
    overall = float(labels[train].sum() / max(counted[train].sum(), 1.0))
    item_count = len(interactions.item_ids)
    item_counted = np.bincount(interactions.items[train], weights=counted[train], minlength=item_count)
    item_labels = np.bincount(interactions.items[train], weights=labels[train], minlength=item_count)

    order, users = interactions.by_user, interactions.users[interactions.by_user]
    offsets = np.empty(len(order))
    before = _sum_before(counted[order], users, interactions.user_starts)
    sums = _sum_before(labels_before[order], users, interactions.user_starts)
    offsets[order] = (sums - overall * before) / (before + damping)
    item_offsets = (item_labels - overall * item_counted) / (item_counted + damping)
    return LabelMeans(overall, item_offsets, offsets, *bounds)


def _sum_before(values: Values, users: IntArray, user_starts: IntArray) -> Values:
    """Sum of a user's earlier values; values [E] and users [E] grouped by user."""
    before = np.concatenate([[0.0], np.cumsum(values)[:-1]])
    return before - before[user_starts[users]]
