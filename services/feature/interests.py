"""A user's interests: events counted by category, each wearing off by half every half-life. Pure.

A category's weight at time t is the sum over its events of 2^(-(t - event time) / half-life). The record keeps all
weights as of the newest event, so that they compare as they stand and decay by one common factor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.feature.records import Activity


@dataclass(frozen=True, slots=True)
class InterestRules:
    """How a scenario's interests wear off."""

    half_life_ms: float = 30 * 86_400_000.0
    """After this time an event counts half."""
    max_categories: int = 100
    """Strongest categories kept per user; 0: none."""


class Interest(NamedTuple):
    """One category and how much it interests the user."""

    category: str
    weight: float


def add_interest(activity: Activity, categories: Iterable[str], time_ms: int, rules: InterestRules) -> None:
    """Count one event at `time_ms` in each of its item's categories, in place. The order of events does not matter."""
    names = set(categories)
    if not names or rules.max_categories == 0:
        return
    if not activity.interests:
        activity.interests_time_ms = time_ms
    elif time_ms > activity.interests_time_ms:
        factor = _decay(time_ms - activity.interests_time_ms, rules)
        activity.interests = {name: weight * factor for name, weight in activity.interests.items()}
        activity.interests_time_ms = time_ms
    weight = _decay(activity.interests_time_ms - time_ms, rules)
    for name in names:
        activity.interests[name] = activity.interests.get(name, 0.0) + weight


def drop_faintest(activity: Activity, rules: InterestRules) -> None:
    """Keep the strongest `max_categories`, in place; of equal ones those that come first in the alphabet."""
    if len(activity.interests) > rules.max_categories:
        activity.interests = dict(_strongest(activity.interests, rules.max_categories))


def top_interests(activity: Activity | None, now_ms: int, count: int, rules: InterestRules) -> list[Interest]:
    """The strongest `count` interests as they are at `now_ms`, strongest first. Those worn off to 0 are left out."""
    if activity is None:
        return []
    factor = _decay(now_ms - activity.interests_time_ms, rules)
    strongest = (Interest(name, weight * factor) for name, weight in _strongest(activity.interests, count))
    return [interest for interest in strongest if interest.weight > 0]


def _strongest(interests: dict[str, float], count: int) -> list[tuple[str, float]]:
    return sorted(interests.items(), key=lambda interest: (-interest[1], interest[0]))[:count]


def _decay(age_ms: float, rules: InterestRules) -> float:
    # An event may be a little ahead of this machine's clock: it counts whole.
    return float(2.0 ** (-max(age_ms, 0) / rules.half_life_ms))
