"""The candidate service as a real process, beside the real services that it follows."""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from recmesh.candidate.v1 import candidate_service_pb2 as pb
from recmesh.candidate.v1.candidate_service_pb2_grpc import CandidateServiceStub
from recmesh.type.v1.history_pb2 import History
from services.model.collaborative import FEATURES
from services.runtime.bundle import serve_versions, set_current_version, set_variants
from tests.support.mesh import MAX_MESSAGE_BYTES, Mesh, catalogue_item
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.triton_process import needs_triton
from tests.support.waiting import wait_for

D = 8


def history(*item_ids: str) -> History:
    n = len(item_ids)
    return History(item_ids=item_ids, event_kinds=[2] * n, event_times_ms=range(n), values=[0] * n)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh"), use=("feedback", "feature", "candidate")) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def stub(mesh: Mesh) -> CandidateServiceStub:
    return CandidateServiceStub(mesh.channel("candidate"))


def retrieve(stub: CandidateServiceStub, **fields: Any) -> pb.RetrieveCandidatesResponse:
    return stub.RetrieveCandidates(
        pb.RetrieveCandidatesRequest(**{"scenario": "video", "candidate_count": 10, **fields})
    )


def test_candidates_come_with_features_scores_and_sources(stub):
    answer = retrieve(stub, user_vector=[0.5] * D, history=history("i5"), exclude_item_ids=["i6"], candidate_count=20)
    assert len(answer.item_ids) == len(answer.scores) == len(answer.source_indexes) == 20
    assert "i6" not in answer.item_ids
    assert list(answer.scores) == sorted(answer.scores, reverse=True)
    assert [column.name for column in answer.columns] == list(FEATURES)
    assert all(len(column.values) == 20 for column in answer.columns)
    assert set(answer.source_names) == {"vector", "collaborative", "popular", "new"}
    assert answer.model_version == "20260101-000000-tiny"


def test_included_items_and_unknown_ones(stub):
    answer = retrieve(stub, candidate_count=0, include_item_ids=["i3", "nope"])
    assert (list(answer.item_ids), list(answer.unknown_item_ids)) == (["i3"], ["nope"])


def test_sources_are_listed_by_quota(stub):
    sources = stub.ListSources(pb.ListSourcesRequest(scenario="video")).sources
    assert [source.name for source in sources] == ["vector", "collaborative", "popular", "new"]
    assert sum(source.quota for source in sources) == pytest.approx(1)
    assert sources[0].item_count == 60


def test_a_retired_item_is_gone_within_moments(mesh, stub):
    assert "i1" in retrieve(stub).item_ids
    mesh.upsert(catalogue_item("i1", retired=True))
    wait_for(lambda: "i1" not in retrieve(stub, candidate_count=60).item_ids)


def test_what_people_do_makes_items_popular(tmp_path):
    candidate = {"popular_min_events": 3, "popular_refresh_s": 0.1, "quotas": QUOTAS_POPULAR}
    with Mesh(tmp_path, use=("feedback", "candidate"), candidate=candidate) as mesh:
        stub = CandidateServiceStub(mesh.channel("candidate"))
        assert retrieve(stub, candidate_count=1).item_ids == ["i0"]
        mesh.record("anna", "i30", "i30", "i31")
        wait_for(lambda: retrieve(stub, candidate_count=2).item_ids == ["i30", "i31"])
        # Replayed from the log after a restart.
        mesh.services["candidate"].kill()
        mesh.services["candidate"].start()
        mesh.services["candidate"].wait_serving()
        wait_for(lambda: retrieve(stub, candidate_count=2).item_ids == ["i30", "i31"])


QUOTAS_POPULAR = {"vector": 0, "collaborative": 0, "popular": 1, "new": 0}


@needs_triton
def test_a_new_item_is_embedded_from_its_text_and_retrieved(tmp_path):
    with Mesh(tmp_path, use=("triton", "feedback", "feature", "scoring", "candidate")) as mesh:
        stub = CandidateServiceStub(mesh.channel("candidate"))
        mesh.upsert_catalogue()
        mesh.upsert(catalogue_item("i5", item_id="fresh"))
        answer = wait_for(lambda: (got := retrieve(stub, candidate_count=61)) and "fresh" in got.item_ids and got)
        place = list(answer.item_ids).index("fresh")
        assert answer.source_names[answer.source_indexes[place]] == "new"
        # It reads like i5, so its vector is i5's: who is near the one is near the other.
        sources = {s.name: s.item_count for s in stub.ListSources(pb.ListSourcesRequest(scenario="video")).sources}
        assert sources["vector"] == 61


def test_switches_bundles_and_a_broken_one_changes_nothing(tmp_path):
    with Mesh(tmp_path, use=("candidate",)) as mesh:
        stub = CandidateServiceStub(mesh.channel("candidate"))
        broken = make_tiny_bundle(tmp_path / "models", items=10, version="20260102-broken", current=False)
        (broken.path / "items.parquet").write_bytes(b"garbage")
        set_current_version(tmp_path / "models", "video", "20260102-broken")
        refused = 'recmesh_candidate_bundle_switches_total{outcome="refused",scenario="video"} 1.0'
        wait_for(lambda: refused in mesh.services["candidate"].metrics())
        assert retrieve(stub).model_version == "20260101-000000-tiny"
        make_tiny_bundle(tmp_path / "models", items=20, version="20260103-good")
        wait_for(lambda: retrieve(stub).model_version == "20260103-good")
        assert len(retrieve(stub, candidate_count=60).item_ids) == 20


def test_without_a_bundle_it_is_not_serving_and_says_why(tmp_path):
    mesh = Mesh(tmp_path, use=())
    (tmp_path / "models" / "video" / "CURRENT").unlink()
    with mesh, mesh.services["candidate"] as candidate:
        assert not candidate.serving()
        with pytest.raises(grpc.RpcError) as caught:
            retrieve(CandidateServiceStub(mesh.channel("candidate")))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "recmesh adapt video" in caught.value.details()


LONG = "x" * 129
BAD_REQUESTS = {
    "unknown scenario": ({"scenario": "books"}, "NOT_FOUND", "scenario"),
    "no scenario": ({"scenario": ""}, "NOT_FOUND", "scenario"),
    "count negative": ({"candidate_count": -1}, "INVALID_ARGUMENT", "candidate_count"),
    "count too high": ({"candidate_count": 5_001}, "INVALID_ARGUMENT", "candidate_count"),
    "vector of another length": ({"user_vector": [1.0] * 3}, "INVALID_ARGUMENT", "user_vector"),
    "vector NaN": ({"user_vector": [1.0] * 7 + [math.nan]}, "INVALID_ARGUMENT", "user_vector[7]"),
    "vector infinite": ({"user_vector": [math.inf] * 8}, "INVALID_ARGUMENT", "user_vector[0]"),
    "exclude empty id": ({"exclude_item_ids": ["i1", ""]}, "INVALID_ARGUMENT", "exclude_item_ids[1]"),
    "exclude too many": ({"exclude_item_ids": ["i"] * 10_001}, "INVALID_ARGUMENT", "exclude_item_ids"),
    "include over-long id": ({"include_item_ids": [LONG]}, "INVALID_ARGUMENT", "include_item_ids[0]"),
    "include too many": ({"include_item_ids": ["i"] * 1_001}, "INVALID_ARGUMENT", "include_item_ids"),
    "history unequal": (
        {"history": History(item_ids=["i1"], event_kinds=[2], values=[0])},
        "INVALID_ARGUMENT",
        "history.event_times_ms",
    ),
    "history empty id": (
        {"history": History(item_ids=[""], event_kinds=[2], event_times_ms=[1], values=[0])},
        "INVALID_ARGUMENT",
        "history.item_ids[0]",
    ),
    "history unspecified kind": (
        {"history": History(item_ids=["i1"], event_kinds=[0], event_times_ms=[1], values=[0])},
        "INVALID_ARGUMENT",
        "history.event_kinds[0]",
    ),
    "history unknown kind": (
        {"history": History(item_ids=["i1"], event_kinds=[77], event_times_ms=[1], values=[0])},
        "INVALID_ARGUMENT",
        "history.event_kinds[0]",
    ),
    "history negative time": (
        {"history": History(item_ids=["i1"], event_kinds=[2], event_times_ms=[-1], values=[0])},
        "INVALID_ARGUMENT",
        "history.event_times_ms[0]",
    ),
    "history NaN value": (
        {"history": History(item_ids=["i1"], event_kinds=[2], event_times_ms=[1], values=[math.nan])},
        "INVALID_ARGUMENT",
        "history.values[0]",
    ),
    "version not served": ({"model_version": "v9"}, "NOT_FOUND", "model_version"),
    "over-long version": ({"model_version": LONG}, "INVALID_ARGUMENT", "model_version"),
    "oversized message": ({"exclude_item_ids": ["x" * MAX_MESSAGE_BYTES]}, "RESOURCE_EXHAUSTED", "message"),
}


@pytest.mark.parametrize(("fields", "code", "field"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_malformed_requests_are_refused_by_field(stub, fields, code, field):
    with pytest.raises(grpc.RpcError) as caught:
        retrieve(stub, **fields)
    assert caught.value.code().name == code
    assert field in caught.value.details()


def test_list_sources_of_an_unknown_scenario(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.ListSources(pb.ListSourcesRequest(scenario="books"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details().startswith("scenario: 'books'")


def test_versions_beside_each_other(tmp_path):
    with Mesh(tmp_path, use=("feedback", "feature", "candidate")) as mesh:
        stub = CandidateServiceStub(mesh.channel("candidate"))
        models, first, second = tmp_path / "models", "20260101-000000-tiny", "20260102-000000-next"
        make_tiny_bundle(models, items=20, version=second, current=False)
        set_variants(models, "video", [second, "20260103-missing"])

        def served(version: str) -> bool:
            try:
                return retrieve(stub, model_version=version).model_version == version
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND and error.details().startswith("model_version: "):
                    return False
                raise

        wait_for(lambda: served(second))
        assert len(retrieve(stub, candidate_count=60, model_version=second).item_ids) == 20
        assert len(retrieve(stub, candidate_count=60).item_ids) == 60
        sources = stub.ListSources(pb.ListSourcesRequest(scenario="video", model_version=second)).sources
        assert sources[0].item_count == 20
        # A retired item is gone from every version.
        mesh.upsert(catalogue_item("i1", retired=True))
        for version in (first, second):
            wait_for(lambda v=version: "i1" not in retrieve(stub, candidate_count=60, model_version=v).item_ids)
        assert mesh.services["candidate"].serving()
        serve_versions(models, "video", second)
        wait_for(lambda: retrieve(stub).model_version == second and not served(first))
