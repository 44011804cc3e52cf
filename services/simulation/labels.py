"""What an event says about the item it is on, by the scenario's tasks. Pure.

Written without a look at what the feedback service does, because the simulator checks that service.
"""

from typing import NamedTuple

import numpy as np

from services.runtime.scenario import TaskSettings, TasksSettings


class Labels(NamedTuple):
    """Of a shown item. `rating` is 0 for none."""

    clicked: bool = False
    converted: bool = False
    rating: float = 0.0

    def __or__(self, later: "Labels") -> "Labels":
        """Both together; a later rating replaces an earlier one."""
        return Labels(self.clicked or later.clicked, self.converted or later.converted, later.rating or self.rating)

    def covers(self, other: "Labels") -> bool:
        """Whether all that `other` says is in here."""
        return self == self | other


def labels_of(event: str, value: float | None, tasks: TasksSettings) -> Labels:
    """What an event of kind `event` says."""
    rating = 0.0
    if tasks.rating is not None and event in tasks.rating.events and value is not None:
        # Examples hold single precision.
        rating = float(np.float32(value)) if tasks.rating.min <= value <= tasks.rating.max else 0.0
    return Labels(
        clicked=counts(event, value, tasks.click),
        converted=tasks.conversion is not None and counts(event, value, tasks.conversion),
        rating=rating,
    )


def counts(event: str, value: float | None, task: TaskSettings) -> bool:
    """Whether the event is a positive label of the task."""
    enough = task.min_value is None or (value is not None and value >= task.min_value)
    return event in task.events and enough
