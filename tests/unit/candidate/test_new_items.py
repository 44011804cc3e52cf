import asyncio

import numpy as np
import pytest

from services.candidate.config import CandidateSettings
from services.candidate.faiss_index import FaissEngine
from services.candidate.new_items import EMBED_BATCH, Embedded, ItemChange, NewItems
from services.candidate.retrieval import open_retriever
from services.model.text import ItemFields
from services.runtime.errors import InvalidFieldError, NotReadyError
from tests.support.tiny_bundle import make_tiny_bundle, tiny_item_fields
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr("services.candidate.new_items._RETRY_S", 0.01)


@pytest.fixture
def retriever(tmp_path):
    return open_retriever(make_tiny_bundle(tmp_path, items=20), CandidateSettings(), FaissEngine(), lambda: None)


def change(item_id, title="silent river", retired=False):
    return ItemChange(item_id, ItemFields(title=title), retired, None)


class Scoring:
    """Answers with unit vectors; first raises what `failures` holds."""

    def __init__(self, version, failures=()):
        self.version = version
        self.failures = list(failures)
        self.asked = []
        self.asked_versions = set()

    async def __call__(self, changes, model_version):
        self.asked.append([one.item_id for one in changes])
        self.asked_versions.add(model_version)
        if self.failures:
            raise self.failures.pop(0)
        return Embedded(np.eye(8, dtype=np.float32)[[0] * len(changes)], self.version)


async def run(new_items, is_done):
    task = asyncio.create_task(new_items.embed_forever())
    await until(is_done)
    task.cancel()


async def test_items_as_in_the_bundle_need_no_vector(retriever):
    scoring = Scoring(retriever.manifest.model_version)
    new_items = NewItems(retriever, scoring)
    known = [ItemChange(item_id, fields, False, None) for item_id, fields in tiny_item_fields(20).items()]
    await new_items.handle([*known, change("fresh")], 21)
    assert new_items.offset == 21
    await run(new_items, lambda: "fresh" in retriever.catalogue.row_of)
    assert scoring.asked == [["fresh"]]
    assert scoring.asked_versions == {retriever.manifest.model_version}


async def test_a_known_item_with_a_new_text_gets_a_new_vector(retriever):
    new_items = NewItems(retriever, Scoring(retriever.manifest.model_version))
    await new_items.handle([change("i4", "golden city")], 1)
    row = retriever.catalogue.row_of["i4"]
    await run(new_items, lambda: retriever.catalogue.vectors(np.array([row]))[0, 0] == 1)


async def test_retirement_does_not_wait_for_vectors_and_wins_over_them(retriever):
    scoring = Scoring(retriever.manifest.model_version)
    new_items = NewItems(retriever, scoring)
    await new_items.handle(
        [change("fresh"), change("other"), change("fresh", retired=True), change("i1", retired=True)], 4
    )
    assert retriever.catalogue.retired[retriever.catalogue.row_of["i1"]]
    await run(new_items, lambda: "other" in retriever.catalogue.row_of)
    assert "fresh" not in retriever.catalogue.row_of


async def test_waits_while_scoring_is_away_or_at_another_version(retriever):
    scoring = Scoring("another", [NotReadyError("away")])
    new_items = NewItems(retriever, scoring)
    await new_items.handle([change("fresh")], 1)
    task = asyncio.create_task(new_items.embed_forever())
    await until(lambda: len(scoring.asked) >= 4)
    assert "fresh" not in retriever.catalogue.row_of
    scoring.version = retriever.manifest.model_version
    await until(lambda: "fresh" in retriever.catalogue.row_of)
    task.cancel()


async def test_a_refused_item_does_not_keep_the_others_out(retriever):
    scoring = Scoring(
        retriever.manifest.model_version, [InvalidFieldError("items", "bad"), InvalidFieldError("x", "bad")]
    )
    new_items = NewItems(retriever, scoring)
    await new_items.handle([change("bad"), change("good")], 2)
    await run(new_items, lambda: "good" in retriever.catalogue.row_of)
    assert scoring.asked == [["bad", "good"], ["bad"], ["good"]]
    assert "bad" not in retriever.catalogue.row_of


async def test_embeds_in_batches(retriever):
    scoring = Scoring(retriever.manifest.model_version)
    new_items = NewItems(retriever, scoring)
    await new_items.handle([change(f"n{n}") for n in range(EMBED_BATCH + 5)], 1)
    await run(new_items, lambda: len(retriever.catalogue) == 20 + EMBED_BATCH + 5)
    assert [len(batch) for batch in scoring.asked] == [EMBED_BATCH, 5]
