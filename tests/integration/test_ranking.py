"""The ranking service as a real process at the head of the real mesh, while its parts come and go."""

import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.feedback.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from recmesh.type.v1.rung_pb2 import Rung
from services.cli.state import write_text_atomically
from services.ranking.mirror_file import mirror_path
from services.runtime.bundle import set_variants
from tests.support.mesh import DISMISS, ITEM_COUNT, MAX_MESSAGE_BYTES, Mesh, catalogue_item
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.triton_process import needs_triton
from tests.support.waiting import wait_for

# A busy machine must not decide how far up an answer gets.
RANKING = {"deadline_ms": 5_000, "exploration": {"epsilon": 0}, "items": {"ttl_s": 0.2}}
HISTORY = ("i5", "i6", "i7")


def recommend(stub: RankingServiceStub, **fields: Any) -> pb.RecommendResponse:
    plain = {"scenario": "video", "user_id": "anna", "page_size": 10}
    return stub.Recommend(pb.RecommendRequest(**{**plain, **fields}))


def ids(answer: pb.RecommendResponse) -> list[str]:
    return [item.item_id for item in answer.items]


def impressions(mesh: Mesh) -> list[feedback_pb.Impression]:
    """All impressions that the event log holds now."""
    stub = FeedbackServiceStub(mesh.channel("feedback"))
    found = []
    call = stub.TailEvents(feedback_pb.TailEventsRequest(scenario="video"), timeout=60)
    for response in call:
        found += [record.impression for record in response.records if record.WhichOneof("record") == "impression"]
        if not response.records or response.records[-1].offset >= response.latest_offset:
            call.cancel()
            break
    return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("mesh"), ranking=RANKING) as mesh:
        mesh.upsert_catalogue()
        mesh.record("anna", *HISTORY)
        stub = RankingServiceStub(mesh.channel("ranking"))
        wait_for(lambda: recommend(stub, skip_impression=True).rung == Rung.RUNG_RERANKER)
        yield mesh


@pytest.fixture(scope="module")
def stub(mesh: Mesh) -> RankingServiceStub:
    return RankingServiceStub(mesh.channel("ranking"))


pytestmark = needs_triton


def test_the_whole_way_up(stub):
    answer = recommend(stub, include_hops=True, request_id="r-whole")
    assert answer.rung == Rung.RUNG_RERANKER
    assert list(answer.degraded_reasons) == []
    assert answer.request_id == "r-whole"
    assert answer.model_version == "20260101-000000-tiny"
    assert len(answer.items) == 10
    assert not set(ids(answer)) & set(HISTORY)
    for item in answer.items:
        assert 0 <= item.click_probability <= 1
        assert 0 <= item.conversion_probability <= 1
        assert 1 <= item.rating <= 5
        assert item.score == pytest.approx(item.click_probability * (1 + 0.5 * item.conversion_probability), rel=1e-5)
        assert item.title
        assert item.categories
        assert item.reason.startswith("Because you chose ")
        assert item.propensity == 1
    assert {hop.name for hop in answer.hops} >= {
        "feature.GetUserFeatures",
        "scoring.EmbedUser",
        "candidate.RetrieveCandidates",
        "scoring.ScoreCandidates",
        "scoring.ScoreCandidates:reranker",
    }
    assert all(hop.duration_us > 0 and hop.request_bytes > 0 and hop.response_bytes > 0 for hop in answer.hops)


@pytest.mark.parametrize("rung", [Rung.RUNG_SCORER, Rung.RUNG_RETRIEVAL, Rung.RUNG_POPULAR])
def test_no_higher_than_asked(stub, rung):
    answer = recommend(stub, max_rung=rung)
    assert (answer.rung, list(answer.degraded_reasons), len(answer.items)) == (rung, [], 10)
    assert answer.items[0].HasField("click_probability") is (rung == Rung.RUNG_SCORER)


def test_an_unknown_user_is_served(stub):
    answer = recommend(stub, user_id="nobody")
    assert (answer.rung, list(answer.degraded_reasons)) == (Rung.RUNG_POPULAR, ["user_unknown"])
    assert len(answer.items) == 10
    assert len(answer.request_id) == 32


def test_filters(stub):
    drama = pb.ItemFilter(categories=["drama"], max_price=400)
    answer = recommend(stub, filter=drama, page_size=200)
    # Every eighth item is a drama; i0, i8, … i40 are cheap enough.
    assert set(ids(answer)) == {"i0", "i8", "i16", "i24", "i32", "i40"}
    only = pb.ItemFilter(include_item_ids=["i5", "i9", "nope"], allow_seen=True)
    assert set(ids(recommend(stub, filter=only))) == {"i5", "i9"}
    without = pb.ItemFilter(exclude_item_ids=["i9"], include_item_ids=["i5", "i9"])
    assert ids(recommend(stub, filter=without)) == []


def test_an_impression_is_logged_as_shown(mesh, stub):
    answer = recommend(stub, request_id="r-logged")
    recommend(stub, request_id="r-skipped", skip_impression=True)
    logged = wait_for(lambda: {one.request_id: one for one in impressions(mesh)}.get("r-logged"))
    assert list(logged.item_ids) == ids(answer)
    assert list(logged.propensities) == [item.propensity for item in answer.items]
    assert list(logged.scores) == [item.score for item in answer.items]
    assert list(logged.sources) == [item.source for item in answer.items]
    assert (logged.user_id, logged.model_version, logged.rung) == ("anna", answer.model_version, answer.rung)
    assert logged.served_time_ms == answer.served_time_ms
    assert logged.feature_offset > 0
    assert logged.history_count > 0
    assert list(logged.click_probabilities) == [item.click_probability for item in answer.items]
    assert len(logged.retrieval_scores) == len(answer.items)
    assert "r-skipped" not in {one.request_id for one in impressions(mesh)}


def test_what_a_user_does_changes_the_next_answer(mesh, stub):
    mesh.record("bert", "i1")
    first = wait_for(lambda: (got := recommend(stub, user_id="bert")).rung == Rung.RUNG_RERANKER and got)
    liked, disliked = ids(first)[0], ids(first)[1]
    mesh.record("bert", liked)
    mesh.record("bert", disliked, kind=DISMISS)
    wait_for(lambda: not {liked, disliked} & set(ids(recommend(stub, user_id="bert", page_size=50))))


def test_a_retired_item_is_gone_within_moments(mesh, stub):
    assert "i44" in ids(recommend(stub, page_size=200))
    mesh.upsert(catalogue_item("i44", retired=True))
    wait_for(lambda: "i44" not in ids(recommend(stub, page_size=200)))


def test_rank_items(stub):
    asked = ["i50", "nope", "i5", "i6"]
    answer = stub.RankItems(pb.RankItemsRequest(scenario="video", user_id="anna", item_ids=asked))
    assert sorted(answer.item_ids) == sorted(asked)
    assert answer.item_ids[-1] == "nope"
    assert list(answer.scores) == sorted(answer.scores, reverse=True)
    assert list(answer.unknown_item_ids) == ["nope"]
    assert answer.rung == Rung.RUNG_RERANKER


def test_explain(stub):
    def explain(item_id: str) -> pb.ExplainRecommendationResponse:
        return stub.ExplainRecommendation(
            pb.ExplainRecommendationRequest(scenario="video", user_id="anna", item_id=item_id)
        )

    answer = explain("i5")
    assert list(answer.blocked_by) == ["seen"]
    assert answer.because_item_id in HISTORY
    assert answer.because_title in answer.reason
    assert {row.name for row in answer.contributions} == {"click", "conversion"}
    assert answer.score == pytest.approx(sum(row.value * row.weight for row in answer.contributions), rel=1e-5)
    with pytest.raises(grpc.RpcError) as caught:
        explain("nope")
    assert (caught.value.code(), caught.value.details()[:7]) == (grpc.StatusCode.NOT_FOUND, "item_id")


def test_metrics(mesh, stub):
    recommend(stub)
    text = mesh.services["ranking"].metrics()
    labels = 'experiment="",model_version="20260101-000000-tiny",rung="reranker",scenario="video",variant=""'
    assert f"recmesh_ranking_answers_total{{{labels}}}" in text
    assert 'recmesh_ranking_hop_seconds_count{hop="candidate.RetrieveCandidates",scenario="video"}' in text
    assert 'recmesh_ranking_spool_bytes{scenario="video"}' in text
    version = 'model_version="20260101-000000-tiny",scenario="video"'
    assert f"recmesh_ranking_answer_seconds_count{{{version}}}" in text
    assert f"recmesh_ranking_shown_click_probability_count{{{version}}}" in text
    assert 'recmesh_ranking_late_answers_total{scenario="video"}' in text
    assert 'recmesh_ranking_degraded_answers_total{scenario="video"} 0.0' in text
    assert 'recmesh_ranking_category_diversity_ratio_count{scenario="video"}' in text


def test_parts_that_die_cost_rungs_and_come_back(tmp_path):
    with Mesh(tmp_path, ranking=RANKING) as mesh:
        mesh.upsert_catalogue()
        mesh.record("anna", *HISTORY)
        stub = RankingServiceStub(mesh.channel("ranking"))

        def settles(rung: int, *reasons: str) -> None:
            def settled() -> bool:
                answer = recommend(stub)
                assert len(answer.items) == 10
                return (answer.rung, tuple(answer.degraded_reasons)) == (rung, reasons)

            wait_for(settled)

        settles(Rung.RUNG_RERANKER)
        mesh.services["scoring"].kill()
        settles(Rung.RUNG_RETRIEVAL, "scoring_unavailable")
        mesh.services["candidate"].kill()
        settles(Rung.RUNG_POPULAR, "scoring_unavailable", "candidate_unavailable")
        mesh.services["feature"].kill()
        settles(Rung.RUNG_POPULAR, "feature_unavailable", "candidate_unavailable")
        # Lost dependencies degrade answers; they do not make the service refuse them.
        assert mesh.services["ranking"].serving()
        for name in ("feature", "scoring", "candidate"):
            mesh.services[name].start()
        settles(Rung.RUNG_RERANKER)


def test_impressions_wait_on_disk_for_the_event_log_even_over_a_kill(tmp_path):
    with Mesh(tmp_path, use=("feedback", "feature", "candidate"), ranking=RANKING) as mesh:
        mesh.services["ranking"].start()
        stub = RankingServiceStub(mesh.channel("ranking"))
        wait_for(lambda: recommend(stub, skip_impression=True).items)
        mesh.services["feedback"].kill()
        shown = [recommend(stub, request_id=f"r-{n}").request_id for n in range(20)]
        mesh.services["ranking"].kill()
        mesh.services["feedback"].start()
        mesh.services["ranking"].start()
        logged = wait_for(lambda: (got := impressions(mesh)) and len(got) == 20 and got)
        assert [one.request_id for one in logged] == shown


def test_without_its_dependencies_it_is_not_serving_and_says_what_is_missing(tmp_path):
    with Mesh(tmp_path, use=()) as mesh, mesh.services["ranking"] as ranking:
        assert not ranking.serving()
        with pytest.raises(grpc.RpcError) as caught:
            recommend(RankingServiceStub(mesh.channel("ranking")))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "candidate is away" in caught.value.details()


LONG = "x" * 129
NAN, INF = float("nan"), float("inf")
BAD_ENUM = 9
USER = [
    ("unknown scenario", {"scenario": "books"}, "NOT_FOUND", "scenario"),
    ("no scenario", {"scenario": ""}, "NOT_FOUND", "scenario"),
    ("no user", {"user_id": ""}, "INVALID_ARGUMENT", "user_id"),
    ("over-long user", {"user_id": LONG}, "INVALID_ARGUMENT", "user_id"),
    ("user with a line break", {"user_id": "a\nb"}, "INVALID_ARGUMENT", "user_id"),
    ("over-long version", {"model_version": LONG}, "INVALID_ARGUMENT", "model_version"),
    ("oversized message", {"user_id": "x" * MAX_MESSAGE_BYTES}, "RESOURCE_EXHAUSTED", "message"),
]


def filtered(**fields: Any) -> dict[str, Any]:
    return {"filter": pb.ItemFilter(**fields)}


BAD_RECOMMEND = [
    *USER,
    ("page of 0", {"page_size": 0}, "INVALID_ARGUMENT", "page_size"),
    ("negative page", {"page_size": -1}, "INVALID_ARGUMENT", "page_size"),
    ("page of 10,000", {"page_size": 10_000}, "INVALID_ARGUMENT", "page_size"),
    ("over-long request", {"request_id": LONG}, "INVALID_ARGUMENT", "request_id"),
    ("negative count", {"candidate_count": -1}, "INVALID_ARGUMENT", "candidate_count"),
    ("count too high", {"candidate_count": 5_001}, "INVALID_ARGUMENT", "candidate_count"),
    ("unknown rung", {"max_rung": BAD_ENUM}, "INVALID_ARGUMENT", "max_rung"),
    ("include empty id", filtered(include_item_ids=[""]), "INVALID_ARGUMENT", "filter.include_item_ids[0]"),
    ("include too many", filtered(include_item_ids=["a"] * 1_001), "INVALID_ARGUMENT", "filter.include_item_ids"),
    ("exclude over-long id", filtered(exclude_item_ids=["a", LONG]), "INVALID_ARGUMENT", "filter.exclude_item_ids[1]"),
    ("exclude too many", filtered(exclude_item_ids=["a"] * 1_001), "INVALID_ARGUMENT", "filter.exclude_item_ids"),
    ("empty category", filtered(categories=[""]), "INVALID_ARGUMENT", "filter.categories[0]"),
    ("too many categories", filtered(categories=["a"] * 65), "INVALID_ARGUMENT", "filter.categories"),
    ("over-long category", filtered(exclude_categories=[LONG]), "INVALID_ARGUMENT", "filter.exclude_categories[0]"),
    (
        "too many attributes",
        filtered(attributes={str(n): "a" for n in range(17)}),
        "INVALID_ARGUMENT",
        "filter.attributes",
    ),
    ("price NaN", filtered(min_price=NAN), "INVALID_ARGUMENT", "filter.min_price"),
    ("price infinite", filtered(max_price=INF), "INVALID_ARGUMENT", "filter.max_price"),
    ("price negative", filtered(min_price=-1), "INVALID_ARGUMENT", "filter.min_price"),
    ("prices crossed", filtered(min_price=5, max_price=4), "INVALID_ARGUMENT", "filter.max_price"),
]
BAD_RANK_ITEMS = [
    *USER,
    ("no items", {"item_ids": []}, "INVALID_ARGUMENT", "item_ids"),
    ("too many items", {"item_ids": [f"i{n}" for n in range(1_001)]}, "INVALID_ARGUMENT", "item_ids"),
    ("empty item", {"item_ids": ["a", ""]}, "INVALID_ARGUMENT", "item_ids[1]"),
    ("over-long item", {"item_ids": [LONG]}, "INVALID_ARGUMENT", "item_ids[0]"),
    ("repeated item", {"item_ids": ["a", "b", "a"]}, "INVALID_ARGUMENT", "item_ids[2]"),
    ("unknown rung", {"max_rung": BAD_ENUM}, "INVALID_ARGUMENT", "max_rung"),
]
BAD_EXPLAIN = [
    *USER,
    ("no item", {"item_id": ""}, "INVALID_ARGUMENT", "item_id"),
    ("over-long item", {"item_id": LONG}, "INVALID_ARGUMENT", "item_id"),
]
METHODS = {
    "Recommend": (pb.RecommendRequest, {"page_size": 5, "request_id": "r-bad"}, BAD_RECOMMEND),
    "RankItems": (pb.RankItemsRequest, {"item_ids": ["i1"]}, BAD_RANK_ITEMS),
    "ExplainRecommendation": (pb.ExplainRecommendationRequest, {"item_id": "i1"}, BAD_EXPLAIN),
}
BAD_REQUESTS = {
    f"{method}: {name}": (method, {**good, **fields}, code, field)
    for method, (_, good, bad) in METHODS.items()
    for name, fields, code, field in bad
}


@pytest.mark.parametrize(("method", "fields", "code", "field"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_malformed_requests_are_refused_by_field(stub, method, fields, code, field):
    request = METHODS[method][0](**{"scenario": "video", "user_id": "anna", **fields})
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request)
    assert caught.value.code().name == code
    assert field in caught.value.details()


def test_refused_requests_leave_no_impression(mesh):
    assert "r-bad" not in {one.request_id for one in impressions(mesh)}


def test_a_pool_that_hangs_costs_a_rung_and_not_the_deadline(tmp_path):
    # A generous reserve: a busy machine must not decide.
    ranking = {**RANKING, "deadline_ms": 2_000, "reserve_ms": 900}
    with Mesh(tmp_path, ranking=ranking) as mesh:
        mesh.record("anna", *HISTORY)
        stub = RankingServiceStub(mesh.channel("ranking"))
        wait_for(lambda: recommend(stub, max_rung=Rung.RUNG_SCORER).rung == Rung.RUNG_SCORER)
        mesh.services["scoring"].signal(signal.SIGSTOP)
        try:
            request = pb.RecommendRequest(scenario="video", user_id="anna", page_size=10)
            for timeout in (None, 1.8):
                answer = stub.Recommend(request, timeout=timeout)
                assert (answer.rung, len(answer.items)) == (Rung.RUNG_RETRIEVAL, 10)
                assert list(answer.degraded_reasons) == ["scoring_too_slow"]
        finally:
            mesh.services["scoring"].signal(signal.SIGCONT)
        wait_for(lambda: recommend(stub).rung == Rung.RUNG_RERANKER)


CURRENT, NEXT = "20260101-000000-tiny", "20260102-000000-next"


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory) -> Iterator[Mesh]:
    """A mesh with another bundle beside the current one, not served yet."""
    folder = tmp_path_factory.mktemp("versions")
    with Mesh(folder, ranking=RANKING) as mesh:
        make_tiny_bundle(folder / "models", items=ITEM_COUNT, version=NEXT, seed=1, current=False)
        mesh.upsert_catalogue()
        mesh.record("anna", *HISTORY)
        yield mesh


def answer(stub: RankingServiceStub, version: str = "") -> tuple[int, str, tuple[str, ...]]:
    got = recommend(stub, model_version=version, skip_impression=True)
    assert len(got.items) == 10
    return got.rung, got.model_version, tuple(got.degraded_reasons)


def test_versions_beside_each_other_and_one_that_is_not_served(two_versions):
    models = two_versions.folder / "models"
    stub = RankingServiceStub(two_versions.channel("ranking"))
    top = Rung.RUNG_RERANKER
    wait_for(lambda: answer(stub) == (top, CURRENT, ()))
    assert answer(stub, NEXT) == (top, CURRENT, ("model_version_not_served",))
    set_variants(models, "video", [NEXT])
    # While scoring and candidate load it, each in its own time, every answer is there and of one version.
    wait_for(lambda: answer(stub, NEXT) == (top, NEXT, ()))
    assert answer(stub) == answer(stub, CURRENT) == (top, CURRENT, ())
    assert ids(recommend(stub, model_version=NEXT)) != ids(recommend(stub))
    asked = {"scenario": "video", "user_id": "anna", "model_version": NEXT}
    assert stub.RankItems(pb.RankItemsRequest(**asked, item_ids=["i1", "i2"])).model_version == NEXT
    explained = stub.ExplainRecommendation(pb.ExplainRecommendationRequest(**asked, item_id="i9"))
    assert explained.model_version == NEXT
    set_variants(models, "video", [])
    wait_for(lambda: answer(stub, NEXT) == (top, CURRENT, ("model_version_not_served",)))


def test_shadow_requests_are_measured_and_neither_shown_nor_logged(two_versions):
    stub = RankingServiceStub(two_versions.channel("ranking"))
    set_variants(two_versions.folder / "models", "video", [NEXT])
    wait_for(lambda: answer(stub, NEXT) == (Rung.RUNG_RERANKER, NEXT, ()))
    file = mirror_path(two_versions.folder / "experiments", "video")
    write_text_atomically(file, f"model_version: {NEXT}\n")
    ranking = two_versions.services["ranking"]

    def value(name: str, **labels: str) -> float:
        labels |= {"scenario": "video", "model_version": NEXT}
        samples = [one for family in text_string_to_metric_families(ranking.metrics()) for one in family.samples]
        return next((one.value for one in samples if (one.name, one.labels) == (name, labels)), 0.0)

    def answered() -> float:
        return value("recmesh_ranking_mirror_requests_total", outcome="answered")

    wait_for(lambda: value("recmesh_ranking_mirror_share_ratio") == 1)
    # Ranking asks every few seconds what scoring has loaded.
    wait_for(lambda: answer(stub) and answered())
    before, before_log = answered(), len(impressions(two_versions))

    def impressions_since(start: int, count: int) -> list[feedback_pb.Impression]:
        found = impressions(two_versions)[start:]
        return found if len(found) >= count else []

    shown = [recommend(stub, request_id=f"r-mirrored-{n}") for n in range(5)]
    assert {(one.model_version, tuple(one.degraded_reasons)) for one in shown} == {(CURRENT, ())}
    wait_for(lambda: answered() == before + 5)
    assert value("recmesh_ranking_mirror_seconds_count") == answered()
    assert value("recmesh_ranking_mirror_overlap_ratio_count") == answered()
    assert value("recmesh_ranking_mirror_click_difference_count") > 0
    # Other weights, other probabilities.
    assert value("recmesh_ranking_mirror_click_distance_sum") > 0
    logged = wait_for(lambda: impressions_since(before_log, len(shown)))
    assert [(one.request_id, one.model_version) for one in logged] == [(one.request_id, CURRENT) for one in shown]
    write_text_atomically(file, "# None.\n")
    wait_for(lambda: value("recmesh_ranking_mirror_share_ratio") == 0)
