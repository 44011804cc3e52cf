"""One scenario over its bundles, with streams that a test feeds."""

import asyncio

import numpy as np
import pytest

from services.candidate.faiss_index import FaissEngine
from services.candidate.metrics import CandidateMetrics
from services.candidate.new_items import Embedded, ItemChange
from services.candidate.retrieval import PastEvents
from services.candidate.scenario_state import EventBatch, ItemBatch, ScenarioState, watch_bundles
from services.model.text import ItemFields
from services.runtime.bundle import serve_versions, set_current_version, set_variants
from services.runtime.errors import NotFoundError, NotReadyError
from services.runtime.health import Health
from services.runtime.metrics import new_registry
from services.runtime.scenario import Scenario
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import at_once, until

CLICK, DISMISS = 2, 11
NO_PAST = PastEvents([], [], [])
HEAD = {
    "description": "d",
    "events": ["click", "dismiss"],
    "tasks": {"click": {"events": ["click"]}},
    "candidate": {
        "quotas": {"vector": 0, "collaborative": 0, "popular": 1, "new": 0},
        "popular_min_events": 2,
        "popular_refresh_s": 0.05,
        "popular_replay_events": 77,
    },
}


class Streams:
    """Sends what it holds, then waits for ever."""

    def __init__(self):
        self.events = []
        self.items = []
        self.item_streams = 0
        self.asked_events = []
        self.embedded_by = set()

    async def tail_events(self, after_offset, last_record_count):
        self.asked_events.append((after_offset, last_record_count))
        for batch in self.events:
            yield batch
        await asyncio.Event().wait()

    async def tail_items(self, after_offset):
        self.item_streams += 1
        for batch in self.items:
            yield batch
        await asyncio.Event().wait()

    async def embed(self, changes, model_version):
        self.embedded_by.add(model_version)
        return Embedded(np.ones((len(changes), 8), dtype=np.float32), model_version)


@pytest.fixture
def streams():
    return Streams()


@pytest.fixture
def state(tmp_path, streams):
    scenario = Scenario("video", HEAD, "file")
    registry = new_registry()
    state = ScenarioState(scenario, tmp_path, FaissEngine(), streams, CandidateMetrics(registry))
    state.registry = registry
    return state


def top(state, n=3):
    return at_once(state.versions.find("").retrieve(None, NO_PAST, n, [], [], {})).item_ids


async def test_no_bundle_yet_then_the_current_one_then_the_next(tmp_path, state):
    assert not await state.load_if_changed()
    with pytest.raises(NotReadyError, match="recmesh adapt video"):
        state.versions.find("")
    make_tiny_bundle(tmp_path, items=10, version="v1")
    assert await state.load_if_changed()
    assert not await state.load_if_changed()
    state.versions.find("").retire(["i0"])
    make_tiny_bundle(tmp_path, items=20, version="v2")
    assert await state.load_if_changed()
    assert state.versions.find("").manifest.model_version == "v2"
    # What was retired stays away before the new bundle has read the catalogue's changes.
    assert top(state, 1) == ["i1"]


async def test_a_broken_bundle_leaves_the_old_one_and_is_not_read_again_at_once(tmp_path, state, monkeypatch):
    make_tiny_bundle(tmp_path, items=10, version="v1")
    await state.load_if_changed()
    set_current_version(tmp_path, "video", "missing")
    assert not await state.load_if_changed()
    opened = []
    monkeypatch.setattr(state, "_open", opened.append)
    assert not await state.load_if_changed()
    assert opened == []
    assert state.versions.find("").manifest.model_version == "v1"


async def test_events_of_the_right_kind_make_items_popular(tmp_path, state, streams):
    make_tiny_bundle(tmp_path, items=10, version="v1")
    await state.load_if_changed()
    streams.events = [EventBatch(["i5", "i6", "i7", "i5"], [CLICK, CLICK, DISMISS, CLICK], [1, 2, 3, 4], 9)]
    task = asyncio.create_task(state.tail_events())
    await until(lambda: top(state, 2) == ["i5", "i6"])
    task.cancel()
    assert streams.asked_events == [(0, 77)]
    # A later bundle knows them from the start.
    make_tiny_bundle(tmp_path, items=10, version="v2")
    await state.load_if_changed()
    assert top(state, 2) == ["i5", "i6"]


async def test_every_bundle_reads_the_catalogue_from_the_start(tmp_path, state, streams):
    streams.items = [
        ItemBatch([ItemChange("fresh", ItemFields(title="silent river"), False, None)], 1),
        ItemBatch([ItemChange("i1", ItemFields(), True, None)], 2),
    ]
    task = asyncio.create_task(state.tail_items())
    for version in ("v1", "v2"):
        make_tiny_bundle(tmp_path, items=10, version=version)
        await state.load_if_changed()
        catalogue = state.versions.find("").catalogue
        await until(lambda c=catalogue: "fresh" in c.row_of and c.retired[c.row_of["i1"]])
    assert streams.item_streams == 2
    task.cancel()


async def test_one_scenario_without_a_bundle_does_not_keep_the_process_from_serving(tmp_path, state, streams):
    other = ScenarioState(
        Scenario("music", HEAD, "file"), tmp_path, FaissEngine(), streams, CandidateMetrics(new_registry())
    )
    health = Health("candidate", ["bundles"])
    task = asyncio.create_task(watch_bundles([other, state], health))
    await asyncio.sleep(0.05)
    assert not health.serving
    make_tiny_bundle(tmp_path, "video", items=10)
    await until(lambda: health.serving)
    task.cancel()


class SlowEngine(FaissEngine):
    """Indexes that are ready when the test says so, by version."""

    def __init__(self):
        self.ready = set()
        self.kept = []

    def open(self, bundle):
        engine, version, inner = self, bundle.manifest.model_version, super().open(bundle)

        class Index:
            ready = property(lambda self: version in engine.ready)

            def keep(self):
                engine.kept.append(version)

            async def search(self, *asked):
                if not self.ready:
                    raise NotReadyError("not filled")
                return await inner.search(*asked)

            def __len__(self):
                return len(inner)

        return Index()


class TestVectorsThatComeLater:
    @pytest.fixture
    def engine(self):
        return SlowEngine()

    @pytest.fixture
    def state(self, tmp_path, streams, engine):
        head = {**HEAD, "candidate": {"quotas": {"vector": 0.5, "collaborative": 0, "popular": 0.5, "new": 0}}}
        return ScenarioState(
            Scenario("video", head, "file"), tmp_path, engine, streams, CandidateMetrics(new_registry())
        )

    def ask(self, state, version=""):
        vector = np.ones(8, dtype=np.float32)
        return at_once(state.versions.find(version).retrieve(vector, NO_PAST, 10, [], [], {}))

    async def test_the_first_version_waits_a_while_and_then_answers_without_them(
        self, tmp_path, state, engine, monkeypatch
    ):
        make_tiny_bundle(tmp_path, items=10, version="v1")
        assert not await state.load_if_changed()
        assert state.versions.names == []
        monkeypatch.setattr("services.candidate.scenario_state._FIRST_WAIT_S", 0.0)
        assert await state.load_if_changed()
        answer = self.ask(state)
        assert answer.failed_source_names == ["vector"]
        assert {answer.source_names[index] for index in answer.source_indexes} == {"popular"}
        engine.kept.clear()
        assert not await state.load_if_changed()
        assert engine.kept == ["v1"]
        engine.ready.add("v1")
        answer = self.ask(state)
        assert answer.failed_source_names == []
        assert "vector" in {answer.source_names[index] for index in answer.source_indexes}

    async def test_without_a_user_vector_nothing_fails(self, tmp_path, state, monkeypatch):
        monkeypatch.setattr("services.candidate.scenario_state._FIRST_WAIT_S", 0.0)
        make_tiny_bundle(tmp_path, items=10, version="v1")
        await state.load_if_changed()
        assert at_once(state.versions.find("").retrieve(None, NO_PAST, 5, [], [], {})).failed_source_names == []

    async def test_a_later_version_waits_for_them_and_others_do_not_wait_for_it(self, tmp_path, state, engine):
        engine.ready |= {"v1", "v3"}
        make_tiny_bundle(tmp_path, items=10, version="v1")
        await state.load_if_changed()
        make_tiny_bundle(tmp_path, items=20, version="v2")
        make_tiny_bundle(tmp_path, items=30, version="v3", current=False)
        set_variants(tmp_path, "video", ["v3"])
        for _ in range(3):
            await state.load_if_changed()
        assert state.versions.names == ["v1", "v3"]
        assert "v2" in engine.kept
        # What was retired while it waited stays away.
        state.versions.find("").retire(["i0"])
        engine.ready.add("v2")
        assert await state.load_if_changed()
        assert state.versions.names == ["v2", "v3"]
        assert "i0" not in self.ask(state).item_ids

    async def test_one_that_is_named_no_more_is_kept_no_more(self, tmp_path, state, engine):
        engine.ready.add("v1")
        make_tiny_bundle(tmp_path, items=10, version="v1")
        await state.load_if_changed()
        make_tiny_bundle(tmp_path, items=20, version="v2")
        await state.load_if_changed()
        set_current_version(tmp_path, "video", "v1")
        engine.kept.clear()
        await state.load_if_changed()
        assert engine.kept == ["v1"]


class TestVariants:
    @pytest.fixture
    async def both(self, tmp_path, state):
        """The current version "v1" of 10 items and the variant "v2" of 20."""
        make_tiny_bundle(tmp_path, items=20, version="v2", current=False)
        make_tiny_bundle(tmp_path, items=10, version="v1")
        set_variants(tmp_path, "video", ["v2"])
        assert await state.load_if_changed()
        assert await state.load_if_changed()
        assert not await state.load_if_changed()
        return state

    async def test_each_answers_by_its_name(self, both):
        assert both.versions.names == ["v1", "v2"]
        assert [len(both.versions.find(name).catalogue) for name in ("", "v1", "v2")] == [10, 10, 20]
        with pytest.raises(NotFoundError, match="model_version: 'v3' is not served"):
            both.versions.find("v3")

    async def test_a_variant_becomes_current_as_it_is(self, tmp_path, both):
        variant = both.versions.find("v2")
        serve_versions(tmp_path, "video", "v2")
        assert not await both.load_if_changed()
        assert both.versions.current is variant
        assert both.versions.names == ["v2"]
        # A request that began with it ends with it.
        assert len(both.versions.find("v1").catalogue) == 10

    async def test_a_broken_variant_leaves_the_others(self, tmp_path, both):
        make_tiny_bundle(tmp_path, items=5, version="v4", current=False)
        set_variants(tmp_path, "video", ["missing", "v2", "v4"])
        assert not await both.load_if_changed()
        assert await both.load_if_changed()
        assert both.versions.names == ["v1", "v2", "v4"]

    async def test_a_variant_waits_for_the_current_version(self, tmp_path, state):
        make_tiny_bundle(tmp_path, items=20, version="v2", current=False)
        set_current_version(tmp_path, "video", "missing")
        set_variants(tmp_path, "video", ["v2"])
        for _ in range(3):
            assert not await state.load_if_changed()
        assert state.versions.members == []

    async def test_events_and_the_catalogue_reach_every_version(self, tmp_path, both, streams):
        streams.events = [EventBatch(["i5", "i6", "i5"], [CLICK, CLICK, CLICK], [1, 2, 4], 9)]
        streams.items = [
            ItemBatch([ItemChange("fresh", ItemFields(title="silent river"), False, None)], 1),
            ItemBatch([ItemChange("i1", ItemFields(), True, None)], 2),
        ]
        tasks = [asyncio.create_task(both.tail_events()), asyncio.create_task(both.tail_items())]
        for retriever in both.versions.members:
            catalogue = retriever.catalogue
            await until(lambda c=catalogue: "fresh" in c.row_of and c.retired[c.row_of["i1"]])
            await until(lambda r=retriever: at_once(r.retrieve(None, NO_PAST, 2, [], [], {})).item_ids == ["i5", "i6"])
        assert streams.embedded_by == {"v1", "v2"}
        # One that goes is followed no longer; one that comes is, from the start.
        make_tiny_bundle(tmp_path, items=10, version="v3", current=False)
        set_variants(tmp_path, "video", ["v3"])
        assert await both.load_if_changed()
        await until(lambda: "fresh" in both.versions.find("v3").catalogue.row_of)
        assert streams.item_streams == 3
        for task in tasks:
            task.cancel()

    async def test_metrics_show_every_version(self, tmp_path, both):
        def shown(version, role):
            labels = {"scenario": "video", "model_version": version, "role": role}
            return both.registry.get_sample_value("recmesh_candidate_bundle_info", labels)

        assert (shown("v1", "current"), shown("v2", "variant")) == (1, 1)
        serve_versions(tmp_path, "video", "v2")
        await both.load_if_changed()
        assert (shown("v2", "current"), shown("v2", "variant"), shown("v1", "current")) == (1, None, None)
