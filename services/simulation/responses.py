"""What a simulated user who clicks does then: the events to send. Pure."""

from typing import NamedTuple

import numpy as np

from services.runtime.scenario import RatingSettings, TaskSettings, TasksSettings
from services.simulation.labels import counts
from services.simulation.settings import SimulationSettings


class Response(NamedTuple):
    """One event on the clicked item."""

    event: str
    """Its kind."""
    value: float | None
    """A rating, an amount; none where the kind needs no value."""


def respond(tasks: TasksSettings, settings: SimulationSettings, random: np.random.Generator) -> list[Response]:
    """The click, perhaps a conversion, perhaps a rating, in this order. Each says something new about the item."""
    responses = [click_of(tasks.click)]
    converts, rates = random.random(2)
    rated = False
    if tasks.conversion is not None and converts < settings.conversion_share:
        event = tasks.conversion.events[0]
        value = _value(event, tasks.conversion, tasks.rating, random)
        if value is not None or tasks.conversion.min_value is None:
            responses.append(Response(event, value))
            rated = tasks.rating is not None and event in tasks.rating.events
    if tasks.rating is not None and not rated and rates < settings.rating_share:
        event = tasks.rating.events[0]
        # A rating that converts was drawn for above, with a probability of its own.
        values = [
            value
            for value in _ratings(tasks.rating)
            if tasks.conversion is None or not counts(event, value, tasks.conversion)
        ]
        if values:
            responses.append(Response(event, float(random.choice(values))))
    return responses


def click_of(task: TaskSettings) -> Response:
    """The event of somebody who clicks: of kind "click" where the task counts that, else of the first that it does."""
    return Response("click" if "click" in task.events else task.events[0], task.min_value)


def _value(event: str, task: TaskSettings, rating: RatingSettings | None, random: np.random.Generator) -> float | None:
    """A value that counts for the task; none where any does, or where no rating does."""
    if rating is not None and event in rating.events:
        values = [value for value in _ratings(rating) if counts(event, value, task)]
        return float(random.choice(values)) if values else None
    return task.min_value


def _ratings(rating: RatingSettings) -> list[float]:
    """The scale in steps of 1 from the lowest. 0 is left out: in an example it means that no rating came."""
    return [value for value in np.arange(rating.min, rating.max + 1e-9).tolist() if value != 0]
