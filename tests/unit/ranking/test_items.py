import pytest

from services.ranking.config import ItemCacheSettings
from services.ranking.dependencies import DependencyError, ItemInfo
from services.ranking.items import ItemCache


class Feature:
    def __init__(self):
        self.asked = []
        self.down = False

    async def __call__(self, item_ids):
        if self.down:
            raise DependencyError("feature", "unavailable", "away")
        self.asked.append(list(item_ids))
        return [ItemInfo(item_id, title=item_id.upper()) for item_id in item_ids if item_id != "gone"]


async def test_asks_once_within_the_time_to_live_even_for_what_is_missing():
    now, feature = [0.0], Feature()
    cache = ItemCache(ItemCacheSettings(ttl_s=10), lambda: now[0])
    assert set(await cache.get(["a", "gone"], feature)) == {"a"}
    assert set(await cache.get(["a", "gone", "b"], feature)) == {"a", "b"}
    assert feature.asked == [["a", "gone"], ["b"]]
    assert cache.known(["a", "gone", "c"]) == ({"a": ItemInfo("a", title="A")}, ["c"])
    now[0] = 11.0
    await cache.get(["a"], feature)
    assert feature.asked[-1] == ["a"]


async def test_is_bounded_and_asks_in_batches():
    feature = Feature()
    cache = ItemCache(ItemCacheSettings(max_count=100))
    ids = [f"i{n}" for n in range(2_500)]
    # More than it can keep still comes back whole.
    assert len(await cache.get(ids, feature)) == 2_500
    assert [len(batch) for batch in feature.asked] == [1_000, 1_000, 500]
    assert len(cache.known(ids)[0]) == 100


async def test_failures_go_to_the_caller():
    feature = Feature()
    feature.down = True
    with pytest.raises(DependencyError):
        await ItemCache(ItemCacheSettings()).get(["a"], feature)
