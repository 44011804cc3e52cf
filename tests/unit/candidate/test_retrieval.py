"""Retrieval over a tiny bundle: item i's collaborative neighbours are i+1, i+2, i+3; item 0 is the most popular."""

import numpy as np
import pytest

from services.candidate.config import CandidateSettings, QuotaSettings
from services.candidate.faiss_index import FaissEngine
from services.candidate.retrieval import INCLUDED, PastEvents, open_retriever
from services.model.collaborative import FEATURES, HistoryWeighting, compress
from services.runtime.errors import InvalidFieldError, SetupError
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import at_once


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("models"), items=50)


def open_with(bundle, counts=None, **settings):
    retriever = open_retriever(bundle, CandidateSettings(**settings), FaissEngine(), lambda: counts)
    retriever.popular.refresh()
    return retriever


def ask(retriever, vector=None, history=(), n=20, exclude=(), include=(), values=None):
    hours = [3_600_000 * hour for hour in range(len(history))]
    past = PastEvents(history, hours, values or [0.0] * len(history))
    return at_once(retriever.retrieve(vector, past, n, exclude, include, {}))


def only(source):
    return QuotaSettings(**{"vector": 0, "collaborative": 0, "popular": 0, "new": 0, source: 1})


def test_every_source_puts_candidates_in(bundle):
    retriever = open_with(bundle)
    vector = retriever.catalogue.vectors(np.array([5]))[0]
    got = ask(retriever, vector, ["i5"], 20)
    assert len(got.item_ids) == len(set(got.item_ids)) == 20
    assert {got.source_names[s] for s in got.source_indexes} == {"vector", "collaborative", "popular", "new"}
    assert np.all(np.diff(got.scores) <= 0)
    assert set(got.columns) == set(FEATURES)
    assert got.model_version == bundle.manifest.model_version
    by_item = dict(zip(got.item_ids, got.columns["cf"].tolist(), strict=True))
    assert [by_item[item] for item in ("i6", "i7", "i8")] == sorted(by_item.values())[:-4:-1]


def test_without_a_user_popular_and_new_items_fill_the_places(bundle):
    got = ask(open_with(bundle), n=10)
    assert len(got.item_ids) == 10
    assert {got.source_names[s] for s in got.source_indexes} == {"popular", "new"}


def test_collaborative_source_reads_the_newest_events_only(bundle):
    retriever = open_with(bundle, quotas=only("collaborative"))
    history = ["i0", *["i20"] * bundle.manifest.history_events]
    assert ask(retriever, history=history).item_ids == ["i21", "i22", "i23"]
    assert ask(retriever, history=["unknown"]).item_ids == []


def test_each_history_feature_forgets_at_its_own_pace(bundle):
    got = ask(open_with(bundle), history=["i5", "i30"], include=["i6"])
    for name, kept in bundle.manifest.history_recency.items():
        weighting = HistoryWeighting(**kept.model_dump())
        older, newer = weighting.weights(np.array([5, 30]), np.array([0, 3_600_000]), np.zeros(2, np.float32))
        sums = np.zeros(50, np.float32)
        sums[6:9], sums[31:34] = older * np.array([0.5, 0.3, 0.2]), newer * np.array([0.5, 0.3, 0.2])
        assert got.columns[name][0] == pytest.approx(compress(sums)[6])


def test_what_was_played_most_says_most_where_values_count(bundle):
    assert [bundle.manifest.history_recency[name].by_value for name in ("cf", "knn")] == [False, True]
    got = ask(open_with(bundle), history=["i5", "i30"], include=["i6", "i31"], values=[100.0, 0.0])
    of_played, of_seen = got.item_ids.index("i6"), got.item_ids.index("i31")
    assert got.columns["cf"][of_played] == pytest.approx(got.columns["cf"][of_seen])
    assert got.columns["knn"][of_played] > got.columns["knn"][of_seen]


def test_popular_by_the_bundle_until_there_are_counts(bundle):
    assert ask(open_with(bundle, quotas=only("popular")), n=3).item_ids == ["i0", "i1", "i2"]
    retriever = open_with(bundle, counts={"i7": 3.0, "i9": 5.0, "gone": 9.0}, quotas=only("popular"))
    assert ask(retriever, n=3).item_ids == ["i9", "i7", "i0"]
    retriever.retire(["i9"])
    assert ask(retriever, n=2, exclude=["i0"]).item_ids == ["i7", "i1"]


def test_new_source_holds_items_with_few_events(bundle):
    retriever = open_with(bundle, quotas=only("new"), new_item_max_events=5)
    got = ask(retriever, n=50).item_ids
    assert got == [f"i{n}" for n in range(49, 36, -1)]  # newest first without a user vector
    near = retriever.catalogue.vectors(np.array([40]))[0]
    assert ask(retriever, near, n=1).item_ids == ["i40"]
    assert {s.name: s.item_count for s in retriever.list_sources()}["new"] == 13


def test_excluded_items_never_come_and_cost_no_places(bundle):
    retriever = open_with(bundle)
    vector = retriever.catalogue.vectors(np.array([5]))[0]
    exclude = [f"i{n}" for n in range(20)]
    got = ask(retriever, vector, ["i5"], 30, exclude=[*exclude, "unknown"])
    assert len(got.item_ids) == 30
    assert not set(got.item_ids) & set(exclude)


def test_included_items_come_first_unless_excluded(bundle):
    retriever = open_with(bundle)
    vector = retriever.catalogue.vectors(np.array([30]))[0]
    got = ask(retriever, vector, ["i5"], 5, exclude=["i2"], include=["i1", "i30", "i2", "nope", "i30"])
    assert got.item_ids[:2] == ["i30", "i1"]
    assert len(got.item_ids) == 7
    assert got.unknown_item_ids == ["nope"]
    assert [got.source_names[s] for s in got.source_indexes[:2]] == [INCLUDED, INCLUDED]
    assert "i2" not in got.item_ids
    assert np.all(np.diff(got.scores) <= 0)
    only_included = ask(retriever, vector, n=0, include=["i4"])
    assert only_included.item_ids == ["i4"]
    assert only_included.source_names == [INCLUDED]


def test_new_retired_and_changed_items(bundle):
    retriever = open_with(bundle)
    vector = np.zeros(8, dtype=np.float32)
    vector[0] = 1
    retriever.put_items(
        ["fresh", "i3"], ["h1", "h2"], np.stack([vector, vector]), np.array([1_767_225_600_000, np.nan])
    )
    got = ask(retriever, vector, n=4)
    assert {"fresh", "i3"} <= set(got.item_ids)
    place = got.item_ids.index("fresh")
    # Nobody has met it; when it came out is known, which is when the bundle's columns were made.
    assert [got.columns[name][place] for name in FEATURES] == [0] * (len(FEATURES) - 1) + [
        pytest.approx(np.log(36_526))
    ]
    retriever.retire(["fresh", "i3", "unknown"])
    got = ask(retriever, vector, ["i2"], n=50)
    assert not {"fresh", "i3"} & set(got.item_ids)
    # Who asks for a retired item by id gets it: the caller decides.
    assert ask(retriever, vector, n=0, include=["i3"]).item_ids == ["i3"]


def test_a_vector_of_another_length_names_the_field(bundle):
    with pytest.raises(InvalidFieldError, match="user_vector: has 3 values"):
        ask(open_with(bundle), np.ones(3, dtype=np.float32))


def test_quotas_of_zero_switch_a_source_off(bundle):
    retriever = open_with(bundle, quotas=only("popular"))
    timings: dict[str, float] = {}
    at_once(retriever.retrieve(None, PastEvents(["i1"], [0], [0.0]), 5, [], [], timings))
    assert set(timings) == {"popular"}
    assert [s.quota for s in retriever.list_sources()] == [1, 0, 0, 0]


def test_a_bundle_whose_parts_disagree_is_refused(tmp_path):
    bundle = make_tiny_bundle(tmp_path, items=10)
    np.save(bundle.path / "item_vectors.npy", np.zeros((9, 8), dtype=np.float32))
    with pytest.raises(SetupError, match="9 rows"):
        open_with(bundle)


def test_a_feature_nobody_computes_is_refused(bundle):
    manifest = bundle.manifest.model_copy(update={"feature_names": ["cf", "phase_of_moon"]})
    with pytest.raises(SetupError, match="phase_of_moon"):
        open_with(type(bundle)(bundle.path, manifest))


def test_what_changes_while_the_engine_is_asked_is_seen(bundle):
    retriever = None

    class Engine(FaissEngine):
        def open(self, bundle):
            index = super().open(bundle)
            search = index.search

            async def search_meanwhile(*asked):
                found = await search(*asked)
                vectors = np.tile(retriever.catalogue.vectors(np.array([5])), (2, 1))
                retriever.put_items(["late", "unwanted"], ["a", "b"], vectors, np.full(2, np.nan))
                retriever.retire(["i6"])
                return found

            index.search = search_meanwhile
            return index

    retriever = open_retriever(bundle, CandidateSettings(), Engine(), lambda: None)
    retriever.popular.refresh()
    got = ask(retriever, retriever.catalogue.vectors(np.array([5]))[0], ["i5"], 52, exclude=["unwanted"])
    assert "late" in got.item_ids
    assert not {"unwanted", "i6"} & set(got.item_ids)
