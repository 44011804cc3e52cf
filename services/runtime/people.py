"""Scenarios in which people are recommended to people: who is a user is an item of the same id, too.

Users' ids become pseudonyms, items' ids stay as they are, since everybody is shown them. An erasure names a user by
`erasure_digest` of the pseudonym; from an item's id the same digest is made here, so that whoever holds items finds the
one that was erased, and nothing else has to be written about whom.
"""

from collections.abc import Callable, Collection
from functools import cache

from pydantic import Field

from services.runtime.config import Settings
from services.runtime.pseudonym import PLAIN, Pseudonyms, erasure_digest
from services.runtime.scenario import Scenario


class PeopleSettings(Settings):
    """Section `people`."""

    are_items: bool = Field(default=False)
    """Whether items are people, each with the id that they have as a user: whom an erasure erases as an item, too."""


class People:
    """Which user an item is."""

    def __init__(self, pseudonyms: Pseudonyms, are_items: bool) -> None:
        self.are_items = are_items
        self._pseudonyms = pseudonyms

    def digest_of(self, item_id: str) -> bytes:
        """By which an erasure names the person who is this item; empty, as no erasure does, where items are things."""
        return erasure_digest(self._pseudonyms.of(item_id)) if self.are_items else b""

    def among(self, digests: Collection[bytes]) -> Callable[[str], bool]:
        """Whether an item is a person whom one of the digests names; it remembers what it was asked."""
        return cache(lambda item_id: self.digest_of(item_id) in digests)


NOBODY = People(PLAIN, False)
"""Items are things."""


def people_of(scenario: Scenario, pseudonyms: Pseudonyms) -> People:
    """Those of a scenario. SetupError when its section is wrong."""
    return People(pseudonyms, scenario.section("people", PeopleSettings).are_items)
