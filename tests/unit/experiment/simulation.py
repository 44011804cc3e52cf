"""Experiments with made-up users, for the tests of what holds while one keeps looking."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from services.experiment.moments import RatioMoments


@dataclass(frozen=True)
class Population:
    """Users who come back: some often, some click more than others."""

    users: int = 2_000
    """Users of both arms together; each is dealt to one of two arms with equal chance."""
    page: int = 10
    """Impressions per request."""
    spread: float = 20.0
    """Users' CTRs are Beta distributed; this is the sum of its two parameters: the larger, the more alike they are."""


def looks(
    rates: tuple[float, float], seed: int, requests: int, every: int, population: Population | None = None
) -> Iterator[tuple[RatioMoments, RatioMoments]]:
    """Both arms' moments after every `every` of `requests` requests; `rates` are the arms' true CTRs (mean over users).

    Users who come often do not click more or less than others, so the CTR of all impressions is the mean over users.
    """
    people = population or Population()
    random = np.random.default_rng(seed)
    arm = random.integers(2, size=people.users)
    activity = random.gamma(0.7, size=people.users)
    mean = np.array(rates)[arm]
    ctr = random.beta(mean * people.spread, (1 - mean) * people.spread)
    visits = random.choice(people.users, size=requests, p=activity / activity.sum())
    clicks, shown = np.zeros(people.users), np.zeros(people.users)
    for start in range(0, requests, every):
        visitors = visits[start : start + every]
        np.add.at(clicks, visitors, random.binomial(people.page, ctr[visitors]))
        np.add.at(shown, visitors, people.page)
        yield (
            RatioMoments.of_users(clicks[arm == 0], shown[arm == 0]),
            RatioMoments.of_users(clicks[arm == 1], shown[arm == 1]),
        )
