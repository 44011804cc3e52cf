"""Simulated users drawn from real histories, and what attracts them. Pure.

A person's events before the cut are what the simulated user begins with; the items that the person took from the cut on
are held out: they are what the user wants, and the mesh is not told.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from services.runtime.errors import SetupError
from services.runtime.scenario import TaskSettings
from services.simulation.click_models import FloatArray
from services.simulation.labels import counts
from services.simulation.settings import SimulationSettings


class PastEvent(NamedTuple):
    """One event of the tables."""

    user_id: str
    item_id: str
    event: str
    time_ms: int
    value: float | None


@dataclass(frozen=True)
class Person:
    """A real person whose later events are held out."""

    history: tuple[PastEvent, ...] = field(repr=False)
    """Events before the cut, oldest first."""
    held_out: frozenset[str] = field(repr=False)
    """Items taken (by the click task) from the cut on, and not met before it."""


def find_people(events: Iterable[PastEvent], cut_ms: int, click: TaskSettings) -> list[Person]:
    """Everybody with a history before the cut and something new after it, ordered by user id."""
    before: dict[str, list[PastEvent]] = defaultdict(list)
    after: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.time_ms < cut_ms:
            before[event.user_id].append(event)
        elif counts(event.event, event.value, click):
            after[event.user_id].add(event.item_id)
    people = []
    for user_id in sorted(before.keys() & after.keys()):
        history = sorted(before[user_id], key=lambda event: event.time_ms)
        held_out = after[user_id].difference(event.item_id for event in history)
        if held_out:
            people.append(Person(tuple(history), frozenset(held_out)))
    return people


def draw_people(people: Sequence[Person], count: int, seed: int) -> list[Person]:
    """`count` of them in random order; everybody equally often, give or take one. SetupError when there is nobody."""
    if not people:
        raise SetupError(
            "events: nobody has both a history before the validation period and a new item after it; "
            "import events of a longer time"
        )
    random = np.random.default_rng(seed)
    order = [place for _ in range(-(-count // len(people))) for place in random.permutation(len(people)).tolist()]
    return [people[place] for place in order[:count]]


class Tastes:
    """What attracts people to the items of a catalogue."""

    def __init__(self, catalogue: Mapping[str, Sequence[str]], settings: SimulationSettings, seed: int) -> None:
        """`catalogue`: item id → categories. The trend's items are drawn with `seed`."""
        self._catalogue = catalogue
        self._settings = settings
        self.trending = _draw_trending(sorted(catalogue), settings, seed)
        """Items that the trend is about; empty without one."""

    def categories_of(self, person: Person) -> frozenset[str]:
        """Categories of what the person took in the held-out period."""
        return frozenset(name for item_id in person.held_out for name in self._catalogue.get(item_id, ()))

    def attractions(
        self, person: Person, categories: frozenset[str], item_ids: Sequence[str], share_of_run: float
    ) -> FloatArray:
        """Attraction of each item [n] for the person; `categories` as `categories_of` says, share_of_run 0 to 1."""
        trend = self._settings.trend
        trending = trend is not None and share_of_run >= trend.after_share_of_run
        found = []
        for item_id in item_ids:
            attraction = self._of_item(person, categories, item_id)
            if trending and trend is not None and item_id in self.trending:
                attraction = max(attraction, trend.attraction)
            found.append(attraction)
        return np.array(found, dtype=np.float64)

    def _of_item(self, person: Person, categories: frozenset[str], item_id: str) -> float:
        if item_id in person.held_out:
            return self._settings.attraction_held_out
        if not categories.isdisjoint(self._catalogue.get(item_id, ())):
            return self._settings.attraction_alike
        return self._settings.attraction_other


def _draw_trending(item_ids: Sequence[str], settings: SimulationSettings, seed: int) -> frozenset[str]:
    if settings.trend is None:
        return frozenset()
    count = max(1, round(settings.trend.share * len(item_ids)))
    return frozenset(np.random.default_rng(seed).choice(item_ids, min(count, len(item_ids)), replace=False).tolist())
