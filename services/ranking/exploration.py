"""Chance in the answer, with the probability of each choice. Pure; the same request_id gives the same answer."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from services.ranking.config import ExplorationSettings

T = TypeVar("T")


def seed_of(request_id: str) -> int:
    """A seed that depends on the request_id alone, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big")


def explore(
    order: Sequence[T], page_size: int, settings: ExplorationSettings, seed: int
) -> tuple[list[T], list[float]]:
    """The items to show, of `order` (best first), and each one's propensity.

    At every place from `first_position` on, with probability epsilon one of the best `pool` remaining items is drawn
    uniformly, otherwise the best remaining one is taken. With m = min(pool, remaining) the propensity of the item
    shown, given the places before it, is 1 − epsilon + epsilon / m for the best remaining and epsilon / m for another.
    """
    remaining = list(order)
    random = np.random.default_rng(seed)
    shown: list[T] = []
    propensities: list[float] = []
    for position in range(min(page_size, len(remaining))):
        m = min(settings.pool, len(remaining))
        if position < settings.first_position or m == 1 or settings.epsilon == 0:
            shown.append(remaining.pop(0))
            propensities.append(1.0)
            continue
        drawn = int(random.integers(m)) if random.random() < settings.epsilon else 0
        share = settings.epsilon / m
        shown.append(remaining.pop(drawn))
        propensities.append(1 - settings.epsilon + share if drawn == 0 else share)
    return shown, propensities
