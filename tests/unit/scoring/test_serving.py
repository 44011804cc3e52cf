import asyncio
import shutil

import pytest
from prometheus_client import CollectorRegistry

from services.runtime.bundle import (
    CURRENT,
    read_manifest,
    seal_bundle,
    serve_versions,
    set_current_version,
    set_variants,
)
from services.runtime.errors import NotFoundError, NotReadyError, OverloadedError, SetupError
from services.runtime.health import Health
from services.runtime.promotions import Promotion, append_promotion
from services.scoring.config import ScoringSettings
from services.scoring.metrics import ScoringMetrics
from services.scoring.serving import CONDITION, Serving
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until


class Running:
    """A Serving that runs on a copy of the bundles."""

    def __init__(self, folder, models, triton, **settings):
        self.models = folder / "models"
        shutil.copytree(models, self.models)
        self.registry = CollectorRegistry()
        self.health = Health("recmesh.scoring.v1.ScoringService", [CONDITION])
        values = {"bundle_check_s": 0.01, "old_version_grace_s": 0.0, "bundle_retry_s": 0.05} | settings
        self.serving = Serving(
            "video",
            self.models,
            triton,
            ScoringSettings(**values),
            ScoringMetrics("video", self.registry),
            self.health,
        )

    async def __aenter__(self):
        self.task = asyncio.create_task(self.serving.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def figure(self, name):
        return self.registry.get_sample_value(name, {"scenario": "video"})

    def point_to(self, version):
        set_current_version(self.models, "video", version)


@pytest.fixture
def start(tmp_path, models, triton):
    return lambda **settings: Running(tmp_path, models, triton, **settings)


async def test_the_current_version_is_loaded_and_leftovers_are_withdrawn(start, triton):
    triton.loaded = ["older"]
    async with start() as running:
        with pytest.raises(NotReadyError, match="no model loaded yet"), running.serving.use():
            pass
        await until(lambda: running.health.serving)
        assert triton.loaded == ["v1"]
        with running.serving.use() as model:
            assert (model.version, model.in_flight) == ("v1", 1)
        assert model.in_flight == 0


async def test_without_a_model_it_waits_for_one(start):
    running = start()
    (running.models / "video" / CURRENT).unlink()
    async with running:
        await asyncio.sleep(0.05)
        assert not running.health.serving
        running.point_to("v2")
        await until(lambda: running.health.serving)


async def test_a_new_version_answers_at_once_and_the_old_one_goes_when_its_calls_are_done(start, triton):
    async with start() as running:
        await until(lambda: running.health.serving)
        with running.serving.use() as old:
            running.point_to("v2")
            await until(lambda: running.serving.model.version == "v2")
            await asyncio.sleep(0.05)
            assert old.version == "v1"
            assert triton.loaded == ["v1", "v2"]
        await until(lambda: triton.loaded == ["v2"])
        assert running.health.serving


async def test_the_old_version_stays_for_its_grace(start, triton):
    async with start(old_version_grace_s=0.3) as running:
        await until(lambda: running.health.serving)
        running.point_to("v2")
        await until(lambda: running.serving.model.version == "v2")
        assert triton.loaded == ["v1", "v2"]
        await until(lambda: triton.loaded == ["v2"])


@pytest.mark.parametrize("fault", ["altered", "missing", "refused"])
async def test_a_version_that_does_not_load_leaves_the_old_one_and_is_tried_again(start, triton, fault):
    running = start()
    folder = running.models / "video" / "v2"
    hidden = folder.with_name("hidden")
    match fault:
        case "altered":
            tokenizer = (folder / "tokenizer.json").read_text()
            (folder / "tokenizer.json").write_text(tokenizer + " ")
        case "missing":
            folder.rename(hidden)
        case "refused":
            triton.refuses["v2"] = SetupError("Triton refuses it")
    async with running:
        await until(lambda: running.health.serving)
        running.point_to("v2")
        await until(lambda: (running.figure("recmesh_scoring_refused_bundles_total") or 0) >= 1)
        assert running.serving.model.version == "v1"
        assert running.health.serving
        match fault:
            case "altered":
                (folder / "tokenizer.json").write_text(tokenizer)
            case "missing":
                hidden.rename(folder)
            case "refused":
                triton.refuses.clear()
        await until(lambda: running.serving.model.version == "v2")


async def test_a_pool_that_lost_the_parts_gets_them_again(start, triton):
    async with start() as running:
        await until(lambda: running.health.serving)
        triton.error = NotReadyError("Triton is away")
        triton.loaded = []
        await until(lambda: not running.health.serving)
        assert running.serving.model is not None
        triton.error = None
        await until(lambda: running.health.serving)
        assert triton.loaded == ["v1"]
        assert running.figure("recmesh_scoring_pool_reloads_total") == 1


async def test_a_pool_that_is_away_at_the_start_is_waited_for(start, triton):
    triton.error = NotReadyError("Triton is away")
    async with start() as running:
        await asyncio.sleep(0.05)
        assert not running.health.serving
        triton.error = None
        await until(lambda: running.health.serving)
        assert running.figure("recmesh_scoring_refused_bundles_total") == 0


async def test_more_calls_than_allowed_are_refused(start):
    async with start(max_in_flight_calls=2) as running:
        await until(lambda: running.health.serving)
        with running.serving.use(), running.serving.use(), pytest.raises(OverloadedError, match="max_in_flight_calls"):
            running.serving.use().__enter__()
        with running.serving.use():
            pass


async def test_the_rerankers_latency_is_measured_before_the_first_call_and_again_when_it_is_old(start, triton):
    async with start(latency_probe_s=0.05) as running:
        await until(lambda: running.serving.model is not None and running.serving.model.reranker_latency.ms > 0)
        calls = triton.pools["v1"].calls
        before = len(calls)
        await until(lambda: len(calls) > before)
        assert set(calls) == {"reranker"}


class TestVariants:
    """Further versions beside the current one."""

    @staticmethod
    def name(running, *versions):
        set_variants(running.models, "video", versions)

    async def test_a_variant_is_loaded_beside_the_current_version_and_answers_by_name(self, start, triton):
        async with start() as running:
            await until(lambda: running.health.serving)
            with pytest.raises(NotFoundError, match=r"^model_version: 'v2' is not served; send one of v1"):
                running.serving.use("v2").__enter__()
            self.name(running, "v2", "v1", "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            for asked, answers in (("", "v1"), ("v1", "v1"), ("v2", "v2")):
                with running.serving.use(asked) as model:
                    assert model.version == answers
            assert triton.loaded == ["v1", "v2"]

    async def test_a_variant_goes_when_its_calls_are_done(self, start, triton):
        async with start() as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            with running.serving.use("v2"):
                self.name(running)
                await until(lambda: running.serving.versions.names == ["v1"])
                # Who has not heard of it yet is answered still.
                with running.serving.use("v2") as model:
                    assert model.version == "v2"
                await asyncio.sleep(0.05)
                assert triton.loaded == ["v1", "v2"]
            await until(lambda: triton.loaded == ["v1"])
            with pytest.raises(NotFoundError):
                running.serving.use("v2").__enter__()

    async def test_a_leaving_variant_that_is_named_again_stays(self, start, triton):
        async with start(old_version_grace_s=60) as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            with running.serving.use("v2") as before:
                pass
            self.name(running)
            await until(lambda: running.serving.versions.names == ["v1"])
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            with running.serving.use("v2") as after:
                assert after is before

    async def test_a_variant_becomes_current_without_being_loaded_again(self, start, triton):
        async with start() as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            with running.serving.use("v2") as before:
                pass
            serve_versions(running.models, "video", "v2", ["v1"])
            await until(lambda: running.serving.versions.names == ["v2", "v1"])
            assert running.serving.model is before
            assert running.health.serving

    @pytest.mark.parametrize("fault", ["missing", "altered", "refused", "garbage", "pool"])
    async def test_a_broken_variant_leaves_all_others_serving(self, start, triton, fault):
        running = start()
        folder = running.models / "video" / "v2"
        match fault:
            case "missing":
                shutil.rmtree(folder)
            case "altered":
                (folder / "tokenizer.json").write_text("{}")
            case "refused":
                triton.refuses["v2"] = SetupError("Triton refuses it")
            case "garbage":
                (folder / "items.parquet").write_bytes(b"garbage")
                seal_bundle(folder, read_manifest(folder))
            case "pool":
                triton.refuses["v2"] = NotReadyError("it takes too long")
        shutil.copytree(running.models / "video" / "v1", running.models / "video" / "v3")
        rename(running.models / "video" / "v3", "v3")
        self.name(running, "v2", "v3")
        async with running:
            await until(lambda: running.serving.versions.names == ["v1", "v3"])
            await until(lambda: running.figure("recmesh_scoring_missing_versions") == 1)
            assert running.health.serving
            assert (running.figure("recmesh_scoring_refused_bundles_total") >= 1) is (fault != "pool")

    async def test_a_variant_waits_for_the_current_version(self, start, triton):
        running = start()
        self.name(running, "v2")
        triton.refuses["v1"] = SetupError("Triton refuses it")
        async with running:
            await until(lambda: (running.figure("recmesh_scoring_refused_bundles_total") or 0) >= 1)
            assert triton.loaded == []
            triton.refuses.clear()
            await until(lambda: running.serving.versions.names == ["v1", "v2"])

    async def test_a_pool_that_lost_everything_gets_everything_again(self, start, triton):
        async with start() as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            triton.loaded = []
            await until(lambda: triton.loaded == ["v1", "v2"])
            await until(lambda: running.health.serving)
            assert running.serving.versions.names == ["v1", "v2"]

    async def test_a_variant_that_the_pool_no_longer_takes_is_said_to_be_gone(self, start, triton):
        async with start(bundle_retry_s=60) as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            triton.refuses["v2"] = SetupError("Triton refuses it")
            triton.loaded = ["v1"]
            await until(lambda: running.serving.versions.names == ["v1"])
            with pytest.raises(NotFoundError):
                running.serving.use("v2").__enter__()
            assert running.health.serving

    async def test_what_is_named_is_not_a_leftover(self, start, triton):
        triton.loaded = ["older", "v2"]
        running = start()
        self.name(running, "v2")
        async with running:
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            assert triton.loaded == ["v2", "v1"]

    async def test_calls_of_all_versions_count_together(self, start):
        async with start(max_in_flight_calls=2) as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])
            with running.serving.use("v2"), running.serving.use(), pytest.raises(OverloadedError):
                running.serving.use("v2").__enter__()

    async def test_versions_of_the_same_items_share_one_table(self, start):
        running = start()
        make_tiny_bundle(running.models, version="v3", calibration_offset=0.5, current=False)
        self.name(running, "v2", "v3")
        async with running:
            await until(lambda: running.serving.versions.names == ["v1", "v2", "v3"])
            v1, v2, v3 = running.serving.versions.members
            assert v1.items is v3.items
            assert v1.items is not v2.items

    async def test_metrics_show_every_version(self, start):
        async with start() as running:
            self.name(running, "v2")
            await until(lambda: running.serving.versions.names == ["v1", "v2"])

            def shown(name, **labels):
                return running.registry.get_sample_value(name, {"scenario": "video", **labels})

            await until(lambda: shown("recmesh_scoring_items_count", model_version="v2") == 50)
            assert shown("recmesh_scoring_bundle_info", model_version="v1", role="current") == 1
            assert shown("recmesh_scoring_bundle_info", model_version="v2", role="variant") == 1
            self.name(running)
            await until(lambda: running.serving.versions.names == ["v1"])
            assert shown("recmesh_scoring_bundle_info", model_version="v2", role="variant") is None
            assert shown("recmesh_scoring_items_count", model_version="v2") is None


def rename(folder, version):
    """Seal a copy of a bundle under another version."""
    seal_bundle(folder, read_manifest(folder).model_copy(update={"model_version": version}))


async def test_promotions_are_counted_from_their_file(tmp_path, models, triton):
    running = Running(tmp_path, models, triton)
    line = Promotion(time="2026-01-01", version="v2", base="v1", outcome="refused", reason="worse")
    append_promotion(running.models, "video", line)

    def count(outcome):
        labels = {"scenario": "video", "outcome": outcome}
        return running.registry.get_sample_value("recmesh_scoring_promotions_total", labels)

    async with running:
        await until(lambda: count("refused") == 1)
        for outcome in ("forced", "rolled_back"):
            append_promotion(running.models, "video", line.model_copy(update={"outcome": outcome}))
        await until(lambda: count("rolled_back") == 1)
        assert (count("refused"), count("forced"), count("promoted")) == (1, 1, 0)
