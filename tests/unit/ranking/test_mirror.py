"""Shadow requests: which, how many at a time, what is measured of them, and that nobody waits for them."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.ranking.config import RankingSettings
from services.ranking.metrics import RankingMetrics
from services.ranking.mirror import Mirror, bucket_of_request, compare
from services.ranking.mirror_settings import MirrorSettings
from services.ranking.pipeline import Pipeline
from services.ranking.policy import Dealt, scenario_policy
from services.ranking.upkeep import refresh
from services.runtime.errors import NotReadyError
from services.runtime.scenario import Scenario
from tests.support.waiting import until
from tests.unit.ranking.fakes import VERSION, FakeCalls
from tests.unit.ranking.test_pipeline import HEAD, PLAIN, ask

NEXT = "v2"


class Mirrored:
    """A pipeline that has answered, its mirror, and what the mirror measured."""

    def __init__(self, **settings):
        self.calls = FakeCalls()
        self.calls.variants = {"candidate": [NEXT], "scoring": [NEXT]}
        scenario = Scenario("video", {**HEAD, "ranking": PLAIN}, "file")
        self.pipeline = Pipeline(scenario, RankingSettings(**PLAIN))
        self.dealt = Dealt(scenario_policy(scenario.head, RankingSettings(**PLAIN)))
        self.registry = CollectorRegistry()
        self.shadow_calls = FakeCalls()
        self.shadow_calls.variants = self.calls.variants
        self.mirror = Mirror("video", self.pipeline, lambda: self.shadow_calls, RankingMetrics(self.registry).mirror)
        self.mirror.settings = MirrorSettings(model_version=NEXT, **settings)

    async def __aenter__(self):
        await refresh(self.pipeline.ladder, self.calls)
        self.running = asyncio.create_task(self.mirror.run())
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def answer(self, **fields):
        asked = ask(**fields)
        page = await self.pipeline.recommend(asked, self.dealt, self.calls, float("inf"))
        self.mirror.offer(asked, self.dealt, page)
        return page

    def value(self, name, **labels):
        labels = {"scenario": "video", "model_version": NEXT, **labels}
        return self.registry.get_sample_value(f"recmesh_ranking_mirror_{name}", labels) or 0.0

    def outcomes(self, outcome):
        return self.value("requests_total", outcome=outcome)


async def test_a_request_is_ranked_by_the_other_version_and_measured():
    async with Mirrored() as mirrored:
        page = await mirrored.answer()
        await until(lambda: mirrored.outcomes("answered"))
        asked = mirrored.shadow_calls.asked
        assert {details["version"] for method, details in asked if "version" in details} == {NEXT}
        assert {details["version"] for details in mirrored.calls.called("score")} == {""}
        assert page.model_version == VERSION
        assert mirrored.value("seconds_count") == 1
        # The fakes predict the same for every version.
        assert mirrored.value("overlap_ratio_sum") == 1
        assert mirrored.value("click_difference_count") == len(page.items)
        assert mirrored.value("click_distance_sum") == pytest.approx(0, abs=1e-6)


async def test_the_share_is_kept_and_the_same_request_is_always_the_same():
    requests = [f"r-{n}" for n in range(400)]
    mirrored_ids = [one for one in requests if bucket_of_request(one) < 2_500]
    assert 60 < len(mirrored_ids) < 140
    async with Mirrored(percent=25, queue_size=400) as mirrored:
        page = await mirrored.pipeline.recommend(ask(), mirrored.dealt, mirrored.calls, float("inf"))
        for request_id in requests:
            mirrored.mirror.offer(ask(request_id=request_id), mirrored.dealt, page)
        await until(lambda: mirrored.outcomes("answered") == len(mirrored_ids))


async def test_what_the_version_answered_itself_is_not_repeated():
    async with Mirrored() as mirrored:
        page = await mirrored.pipeline.recommend(
            ask(), Dealt(replace(mirrored.dealt.policy, model_version=NEXT)), mirrored.calls, float("inf")
        )
        assert page.model_version == NEXT
        mirrored.mirror.offer(ask(), mirrored.dealt, page)
        mirrored.mirror.settings = None
        await mirrored.answer()
        await asyncio.sleep(0)
        assert mirrored.shadow_calls.asked == []


async def test_too_many_are_dropped_and_counted_and_few_run_at_a_time():
    async with Mirrored(queue_size=3, max_in_flight=2) as mirrored:
        mirrored.shadow_calls.behaviour["get_user"] = 3600.0
        for _ in range(2):
            await mirrored.answer()
        await until(lambda: len(mirrored.shadow_calls.called("get_user")) == 2)
        page = await mirrored.answer()
        for _ in range(10):
            mirrored.mirror.offer(ask(), mirrored.dealt, page)
        assert mirrored.outcomes("dropped") == 8
        waiting = mirrored.registry.get_sample_value("recmesh_ranking_mirror_waiting_requests", {"scenario": "video"})
        assert waiting == 3
        assert len(mirrored.shadow_calls.called("get_user")) == 2


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda m: m.shadow_calls.down("rerank"), "degraded"),
        (lambda m: m.shadow_calls.behaviour.update(retrieve=RuntimeError("bug")), "failed"),
        (lambda m: m.shadow_calls.behaviour.update(retrieve=NotReadyError("away")), "failed"),
        (lambda m: setattr(m.shadow_calls, "variants", {"candidate": [], "scoring": [NEXT]}), "not_served"),
        (lambda m: setattr(m.mirror, "settings", MirrorSettings(model_version="unknown")), "not_served"),
    ],
    ids=["re-ranker down", "bug", "not ready", "index lacks it", "nobody has it"],
)
async def test_outcomes_are_counted_and_the_next_one_is_ranked(spoil, outcome):
    async with Mirrored() as mirrored:
        good, mirrored_settings = dict(mirrored.shadow_calls.behaviour), mirrored.mirror.settings
        variants = mirrored.shadow_calls.variants
        spoil(mirrored)
        version = mirrored.mirror.settings.model_version
        await mirrored.answer()
        await until(lambda: mirrored.value("requests_total", model_version=version, outcome=outcome))
        mirrored.shadow_calls.behaviour, mirrored.mirror.settings = good, mirrored_settings
        mirrored.shadow_calls.variants = variants
        await mirrored.answer()
        await until(lambda: mirrored.outcomes("answered") == 1)


async def test_differences_are_of_what_both_predict():
    async with Mirrored() as mirrored:
        page = await mirrored.answer()
        ranked, order = await mirrored.pipeline.rank(ask(), mirrored.dealt.policy, mirrored.calls)
        items = [replace(page.items[0], click=page.items[0].click - 0.25), replace(page.items[1], click=None)]
        strange = replace(page.items[2], item=replace(page.items[2].item, item_id="nowhere"))
        compared = compare(replace(page, items=[*items, strange]), ranked, order)
        assert compared.differences == [pytest.approx(0.25, abs=1e-6)]
        assert compared.overlap == pytest.approx(2 / 3)
