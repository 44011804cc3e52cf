import asyncio
import shutil

import pytest
from prometheus_client import CollectorRegistry

from services.runtime.bundle import CURRENT, set_current_version
from services.runtime.errors import NotReadyError, OverloadedError, SetupError
from services.runtime.health import Health
from services.scoring.config import ScoringSettings
from services.scoring.metrics import ScoringMetrics
from services.scoring.serving import CONDITION, Serving


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


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def start(tmp_path, models, triton):
    return lambda **settings: Running(tmp_path, models, triton, **settings)


async def test_the_current_version_is_loaded_and_leftovers_are_withdrawn(start, triton):
    triton.loaded = ["older"]
    async with start() as running:
        with pytest.raises(NotReadyError, match="no model is loaded yet"), running.serving.use():
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


async def test_who_waits_for_the_next_model_gets_it(start):
    async with start() as running:
        first = await running.serving.next_model(None)
        waiting = asyncio.create_task(running.serving.next_model(first))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        running.point_to("v2")
        assert (await waiting).version == "v2"
