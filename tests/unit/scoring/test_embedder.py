import numpy as np
import pytest
from cachetools import LRUCache
from prometheus_client import CollectorRegistry

from services.model.text import content_hash
from services.scoring.embedder import Embedder
from services.scoring.metrics import ScoringMetrics
from services.scoring.vectors import ItemTable, ItemText
from tests.support.ort_pool import OrtPool
from tests.support.tiny_bundle import make_tiny_bundle


def item(text: str) -> ItemText:
    return ItemText(text.replace(" ", "-"), text, content_hash(text))


class Setting:
    def __init__(self, bundle, cache, batch_items=2):
        self.pool = OrtPool(bundle.triton_path)
        self.items = ItemTable.load(bundle, 10)
        self.registry = CollectorRegistry()
        metrics = ScoringMetrics("video", self.registry)
        self.embedder = Embedder(bundle, self.items, self.pool, cache, metrics, batch_items)

    def lookups(self, result):
        labels = {"scenario": "video", "result": result}
        return self.registry.get_sample_value("recmesh_scoring_vector_lookups_total", labels)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("models"))


async def test_content_of_the_bundle_is_not_encoded_again(bundle):
    setting = Setting(bundle, LRUCache(10))
    known = setting.items.texts(setting.items.rows(["i7", "i3"]))
    vectors = await setting.embedder.embed([item(text) for text in known])
    np.testing.assert_array_equal(vectors, np.load(bundle.path / "item_vectors.npy")[[7, 3]])
    assert setting.pool.calls == []
    assert (setting.lookups("hit"), setting.lookups("miss")) == (2, 0)


async def test_new_content_is_encoded_once_in_batches_and_in_the_order_asked(bundle):
    cache = LRUCache(10)
    setting = Setting(bundle, cache)
    texts = ["old moon", "golden king", "old moon", "wild sun"]
    vectors = await setting.embedder.embed([item(text) for text in texts])
    assert setting.pool.calls == ["item_encoder"] * 2
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    one = Setting(bundle, LRUCache(10))
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose((await one.embedder.embed([item(text)]))[0], vector, atol=1e-6)
    # The next bundle with the same encoder finds what this one made.
    again = Setting(bundle, cache)
    np.testing.assert_array_equal(await again.embedder.embed([item("wild sun")]), vectors[3:])
    assert again.pool.calls == []


async def test_another_encoder_does_not_read_the_cache(bundle, tmp_path):
    cache = LRUCache(10)
    await Setting(bundle, cache).embedder.embed([item("old moon")])
    other = Setting(make_tiny_bundle(tmp_path, seed=1), cache)
    await other.embedder.embed([item("old moon")])
    assert other.pool.calls == ["item_encoder"]
