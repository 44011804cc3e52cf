"""Team-draft interleaving: two rankings in one list, and which of them its clicks speak for. Pure.

Radlinski, Kurup and Joachims, "How does clickthrough data reflect retrieval quality?", CIKM 2008, algorithm 2.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Team = Literal["first", "second"]


@dataclass(frozen=True)
class Placed:
    """One item of an interleaved list."""

    item_id: str
    """The item."""
    team: Team | None
    """The ranking that put it there; none: it fills the list after the other ranking had nothing left."""
    propensity: float
    """Probability that this item comes here, given the items above it; over 0 and at most 1."""


@dataclass(frozen=True)
class Credit:
    """Clicks by team."""

    first: int
    second: int

    @property
    def winner(self) -> Team | None:
        """The team with more clicks; none: a tie."""
        if self.first == self.second:
            return None
        return "first" if self.first > self.second else "second"


def interleaving_seed(request_id: str) -> int:
    """A seed that depends on the request_id alone, and not the one that exploration draws with."""
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"interleaving")
    return int.from_bytes(digest.digest(), "big")


def team_draft(first: Sequence[str], second: Sequence[str], count: int, seed: int) -> list[Placed]:
    """At most `count` items of two rankings (best first, each item once per ranking).

    The team with fewer items puts its best item that is not there yet; a coin decides when both have equally many. So
    the teams of any beginning of the list differ by at most one item. When one ranking has nothing left, the rest comes
    from the other without a team.

    The propensity sums over the coins that lead to the same items above: where both rankings have the same next item,
    the list does not tell which team put it.
    """
    coins = np.random.default_rng(seed)
    queues = {"first": _Queue(first), "second": _Queue(second)}
    placed: list[Placed] = []
    shown: set[str] = set()
    sizes = {"first": 0, "second": 0}
    # Probability that it is each team's turn, given the items above; equal sizes: both, by the coin.
    turns = {"first": 0.5, "second": 0.5}
    while len(placed) < count:
        nexts = {team: queue.next(shown) for team, queue in queues.items()}
        if nexts["first"] is None or nexts["second"] is None:
            break
        equal = sizes["first"] == sizes["second"]
        if equal:
            turns = {"first": 0.5, "second": 0.5}
            team: Team = "first" if coins.random() < 0.5 else "second"
        else:
            team = "first" if sizes["first"] < sizes["second"] else "second"
        item = nexts[team]
        assert item is not None
        fitting = {name: share for name, share in turns.items() if nexts[name] == item}
        propensity = sum(fitting.values())
        placed.append(Placed(item, team, propensity))
        shown.add(item)
        sizes[team] += 1
        # Whoever has just put an item waits for the other.
        turns = {
            "first": fitting.get("second", 0.0) / propensity,
            "second": fitting.get("first", 0.0) / propensity,
        }
    rest = [item for queue in queues.values() for item in queue.left(shown)]
    return placed + [Placed(item, None, 1.0) for item in rest[: count - len(placed)]]


def credit(placed: Sequence[Placed], clicked: Iterable[str]) -> Credit:
    """Clicks by team; an item clicked twice counts once, and items without a team or not in the list do not count."""
    chosen = set(clicked)
    teams = [entry.team for entry in placed if entry.item_id in chosen]
    return Credit(first=teams.count("first"), second=teams.count("second"))


class _Queue:
    """A ranking that is read from the top, past what is shown already."""

    def __init__(self, ranking: Sequence[str]) -> None:
        self._ranking = ranking
        self._place = 0

    def next(self, shown: set[str]) -> str | None:
        """The best item that is not shown; none: all are."""
        while self._place < len(self._ranking) and self._ranking[self._place] in shown:
            self._place += 1
        return self._ranking[self._place] if self._place < len(self._ranking) else None

    def left(self, shown: set[str]) -> list[str]:
        """All items that are not shown, best first."""
        return [item for item in self._ranking[self._place :] if item not in shown]
