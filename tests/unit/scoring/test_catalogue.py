import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.type.v1 import item_pb2
from services.runtime.bundle import set_current_version, set_variants
from services.runtime.errors import NotReadyError
from services.runtime.health import Health
from services.scoring import catalogue as catalogue_module
from services.scoring.catalogue import Catalogue
from services.scoring.config import ScoringSettings
from services.scoring.metrics import ScoringMetrics
from services.scoring.serving import CONDITION, Serving
from services.scoring.vectors import UNKNOWN
from tests.support.tiny_bundle import tiny_item_fields
from tests.support.waiting import until


class FakeFeature:
    """A catalogue that grows; TailItems serves it as the feature service does."""

    def __init__(self):
        self.items = []
        self.opened_after = []

    def add(self, item_id, title, categories=()):
        self.items.append(item_pb2.Item(item_id=item_id, title=title, categories=categories))

    async def TailItems(self, request):
        self.opened_after.append(request.after_offset)
        offset, answered = request.after_offset, False
        while True:
            if len(self.items) > offset or not answered:
                new, offset, answered = self.items[offset:], len(self.items), True
                yield feature_pb.TailItemsResponse(items=new, offset=offset, latest_offset=offset)
            await asyncio.sleep(0.005)


class Running:
    def __init__(self, folder, models, triton):
        shutil.copytree(models, folder / "models")
        self.models = folder / "models"
        self.registry = CollectorRegistry()
        metrics = ScoringMetrics("video", self.registry)
        health = Health("recmesh.scoring.v1.ScoringService", [CONDITION])
        settings = ScoringSettings(bundle_check_s=0.01, old_version_grace_s=0)
        self.serving = Serving("video", self.models, triton, settings, metrics, health)
        self.feature = FakeFeature()
        self.catalogue = Catalogue(self.serving, self.feature, metrics)

    @asynccontextmanager
    async def running(self):
        tasks = [asyncio.create_task(self.serving.run()), asyncio.create_task(self.catalogue.run())]
        await self.serving.versions.next_members([])
        yield self
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def knows(self, item_id):
        return self.serving.model.items.rows([item_id])[0] != UNKNOWN


@pytest.fixture
def mesh(tmp_path, models, triton, monkeypatch):
    monkeypatch.setattr(catalogue_module, "_RETRY_S", 0.01)
    return Running(tmp_path, models, triton)


async def test_new_items_are_embedded_and_those_of_the_bundle_are_not(mesh, triton):
    for item_id, fields in tiny_item_fields(5).items():
        mesh.feature.add(item_id, fields.title, fields.categories)
    mesh.feature.add("new", "old moon")
    async with mesh.running():
        await until(lambda: mesh.knows("new"))
        assert triton.pools["v1"].calls.count("item_encoder") == 1
        mesh.feature.add("later", "wild sun")
        await until(lambda: mesh.knows("later"))
        assert len(mesh.serving.model.items) == 52


async def test_items_wait_while_the_pool_is_away(mesh, triton):
    async with mesh.running():
        await until(lambda: "v1" in triton.pools)
        triton.pools["v1"].error = NotReadyError("Triton is away")
        mesh.feature.add("new", "old moon")
        await until(lambda: triton.pools["v1"].calls.count("item_encoder") >= 2)
        assert not mesh.knows("new")
        triton.pools["v1"].error = None
        await until(lambda: mesh.knows("new"))
        assert mesh.feature.opened_after == [0]


async def test_an_item_that_the_encoder_fails_on_is_left_out_and_holds_up_nothing(mesh, triton, monkeypatch):
    for number in range(7):
        mesh.feature.add(f"n{number}", "bad" if number == 4 else f"old moon {number}")
    async with mesh.running():
        embedder = mesh.serving.model.embedder
        embed = embedder.embed

        async def fails_on_bad(items):
            if any(item.text.startswith("bad") for item in items):
                raise RuntimeError("the encoder failed")
            return await embed(items)

        monkeypatch.setattr(embedder, "embed", fails_on_bad)
        mesh.feature.add("last", "wild sun")
        await until(lambda: mesh.knows("last"))
        assert [mesh.knows(f"n{number}") for number in (3, 5)] == [True, True]
        mesh.feature.add("worse", "bad")
        await until(
            lambda: mesh.registry.get_sample_value("recmesh_scoring_unembedded_items_total", {"scenario": "video"})
        )
        assert not mesh.knows("worse")


async def test_a_new_model_learns_the_whole_catalogue(mesh):
    mesh.feature.add("new", "old moon")
    async with mesh.running():
        await until(lambda: mesh.knows("new"))
        set_current_version(mesh.models, "video", "v2")
        await until(lambda: mesh.serving.model.version == "v2" and mesh.knows("new"))
        assert mesh.feature.opened_after == [0, 0]


async def test_a_variant_learns_the_catalogue_too(mesh):
    mesh.feature.add("new", "old moon")
    async with mesh.running():
        await until(lambda: mesh.knows("new"))
        set_variants(mesh.models, "video", ["v2"])
        await until(lambda: len(mesh.serving.versions.members) == 2)
        variant = mesh.serving.versions.find("v2")
        await until(lambda: variant.items.rows(["new"])[0] != UNKNOWN)
        mesh.feature.add("later", "wild sun")
        await until(lambda: mesh.knows("later") and variant.items.rows(["later"])[0] != UNKNOWN)
