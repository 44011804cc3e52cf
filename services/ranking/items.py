"""Catalogue entries in memory, so that most answers need not ask for them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from cachetools import TTLCache

from services.ranking.config import ItemCacheSettings
from services.ranking.dependencies import ItemInfo

# What feature.BatchGetItemFeatures takes in one call.
_BATCH = 1_000

Fetch = Callable[[Sequence[str]], Awaitable[list[ItemInfo]]]
"""Asks feature for at most 1,000 items; raises DependencyError."""


class ItemCache:
    """The entries of one scenario. An item that the catalogue lacks is remembered as lacking."""

    def __init__(self, settings: ItemCacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: TTLCache[str, ItemInfo | None] = TTLCache(settings.max_count, settings.ttl_s, timer=clock)

    def known(self, item_ids: Sequence[str]) -> tuple[dict[str, ItemInfo], list[str]]:
        """The entries at hand, and the ids that must be asked for."""
        found: dict[str, ItemInfo] = {}
        missing: list[str] = []
        # One look at the clock for the whole list instead of one for each id.
        with self._entries.timer:
            for item_id in item_ids:
                try:
                    item = self._entries[item_id]
                except KeyError:
                    missing.append(item_id)
                else:
                    if item is not None:
                        found[item_id] = item
        return found, missing

    async def get(self, item_ids: Sequence[str], fetch: Fetch) -> dict[str, ItemInfo]:
        """The entries of `item_ids` that the catalogue has, asking `fetch` for what is not at hand. DependencyError."""
        found, missing = self.known(item_ids)
        if missing:
            batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
            fetched = dict.fromkeys(missing, None) | {
                item.item_id: item for items in await asyncio.gather(*map(fetch, batches)) for item in items
            }
            self._entries.update(fetched)
            found.update((item_id, item) for item_id, item in fetched.items() if item is not None)
        return found
