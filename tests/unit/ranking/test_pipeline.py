"""The ladder with each dependency down, slow, late or spoilt; and what becomes of the ranked candidates."""

import time
from dataclasses import replace

import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from services.ranking import converters
from services.ranking.config import RankingSettings
from services.ranking.dependencies import DependencyError, ItemInfo, Rung
from services.ranking.filters import ItemFilter
from services.ranking.page import Page, PageItem
from services.ranking.pipeline import Pipeline, RecommendAsk
from services.ranking.policy import Dealt, scenario_policy
from services.ranking.upkeep import refresh
from services.runtime.errors import NotFoundError, NotReadyError
from services.runtime.scenario import Scenario, ScenarioHead
from tests.unit.ranking.fakes import VERSION, FakeCalls

HEAD = {
    "description": "d",
    "events": ["click", "rating"],
    "tasks": {"click": {"events": ["click"]}, "rating": {"events": ["rating"], "min": 1, "max": 5}},
    "blend": {"click": 1, "rating": 1},
}
PLAIN = {"diversity": {"method": "none"}, "exploration": {"epsilon": 0}, "deadline_ms": 5000}


def make(**settings):
    values = {**PLAIN, **settings}
    scenario = Scenario("video", {**HEAD, "ranking": values}, "file")
    pipeline = Pipeline(scenario, RankingSettings(**values))
    pipeline.policy = scenario_policy(scenario.head, RankingSettings(**values))
    return pipeline


async def ready(calls, **settings):
    """A pipeline that has been running for a while."""
    pipeline = make(**settings)
    healthy = FakeCalls(calls.count)
    await refresh(pipeline.ladder, healthy)
    return pipeline


def ask(**fields):
    plain = {
        "user_id": "anna",
        "page_size": 5,
        "request_id": "r-1",
        "filter": ItemFilter(),
        "candidate_count": 0,
        "max_rung": Rung.RERANKER,
    }
    return RecommendAsk(**{**plain, **fields})


def policy(model_version="", **settings):
    """The scenario's, with some settings of its section changed."""
    values = RankingSettings(**{**PLAIN, **settings})
    return replace(scenario_policy(ScenarioHead(**HEAD), values), model_version=model_version)


async def recommend(pipeline, calls, time_left_s=float("inf"), model_version="", dealt=None, **fields):
    dealt = dealt or Dealt(replace(pipeline.policy, model_version=model_version))
    return await pipeline.recommend(ask(**fields), dealt, calls, time_left_s)


def ids(page):
    return [entry.item.item_id for entry in page.items]


async def test_all_the_way_up():
    calls = FakeCalls()
    pipeline = await ready(calls, reranker_count=4)
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons, page.model_version) == (Rung.RERANKER, [], VERSION)
    # The re-ranker's view of the best four (seen ones are gone), then the scorer's.
    assert [place["candidates"].item_ids for place in calls.called("rerank")] == [["i0", "i3", "i4", "i5"]]
    assert ids(page)[-1] == "i5" or "i6" in ids(page)
    assert [entry.score for entry in page.items] == sorted((e.score for e in page.items), reverse=True)
    top = page.items[0]
    assert top.score == pytest.approx(top.click * 1.5)
    assert (top.rating, top.conversion) == (3, None)
    assert top.reason == "Because you played Title 1"
    assert page.candidate_count == 48
    assert calls.called("retrieve")[0]["count"] == 500
    assert calls.called("get_user")[0]["history_count"] == 256


@pytest.mark.parametrize(
    ("max_rung", "order"),
    [(Rung.SCORER, ["i0", "i3", "i4"]), (Rung.RETRIEVAL, ["i0", "i3", "i4"]), (Rung.POPULAR, ["i0", "i3", "i4"])],
)
async def test_no_higher_than_asked(max_rung, order):
    calls = FakeCalls()
    page = await recommend(await ready(calls), calls, max_rung=max_rung, page_size=3)
    assert (page.rung, page.reasons, ids(page)) == (max_rung, [], order)
    assert not calls.called("rerank")
    assert bool(calls.called("score")) is (max_rung == Rung.SCORER)
    assert bool(calls.called("embed_user")) is (max_rung > Rung.POPULAR)


@pytest.mark.parametrize("kind", ["unavailable", "too_slow", "overloaded", "garbage", "failed"])
@pytest.mark.parametrize(
    ("down", "dependency", "rung"),
    [
        ("get_user", "feature", Rung.POPULAR),
        ("embed_user", "scoring", Rung.RETRIEVAL),
        ("retrieve", "candidate", Rung.POPULAR),
        ("score", "scoring", Rung.RETRIEVAL),
        ("rerank", "reranker", Rung.SCORER),
        ("get_items", "feature", Rung.RERANKER),
    ],
)
async def test_every_failure_is_a_reason_and_a_lower_rung(down, dependency, rung, kind):
    calls = FakeCalls()
    pipeline = await ready(calls)
    calls.down(down, kind=kind)
    page = await recommend(pipeline, calls)
    assert page.rung == rung
    assert page.reasons == [f"{dependency}_{kind}"]
    assert len(page.items) == 5
    assert page.model_version == VERSION


async def test_a_source_that_could_not_answer_is_said_and_the_rung_stays():
    calls = FakeCalls()
    pipeline = await ready(calls)
    whole = await recommend(pipeline, calls)
    calls.failed_sources = ["vector"]
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons) == (whole.rung, ["vector_source_unavailable"])


async def test_everything_down_still_answers_from_what_is_kept():
    calls = FakeCalls()
    pipeline = await ready(calls)
    calls.down("get_user", "get_items", "embed_user", "retrieve", "score", "rerank")
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons) == (Rung.POPULAR, ["feature_unavailable", "candidate_unavailable"])
    assert ids(page) == ["i0", "i1", "i2", "i3", "i4"]
    assert page.items[0].item.title == ""


async def test_nothing_kept_and_candidate_down_is_not_ready():
    calls = FakeCalls()
    calls.down("retrieve")
    with pytest.raises(NotReadyError, match="candidate is away"):
        await recommend(make(), calls)


@pytest.mark.parametrize("slow", ["get_user", "embed_user", "retrieve", "score", "rerank", "get_items"])
async def test_a_service_that_hangs_costs_a_rung_and_not_the_deadline(slow):
    calls = FakeCalls()
    pipeline = await ready(calls, deadline_ms=200, reserve_ms=20)
    calls.behaviour[slow] = 60
    started = time.monotonic()
    page = await recommend(pipeline, calls)
    # A minute would pass if nothing bounded the call.
    assert time.monotonic() - started < 10
    assert len(page.items) == 5
    assert any(reason.endswith("_too_slow") for reason in page.reasons)


async def test_every_call_is_bounded_by_the_callers_deadline():
    calls = FakeCalls()
    pipeline = await ready(calls)
    await recommend(pipeline, calls, time_left_s=0.5)
    assert 0 < calls.called("get_user")[0]["limit_s"] < 0.5
    assert 0 < calls.called("rerank")[0]["limit_s"] < 0.5


async def test_no_time_at_all_is_answered_from_what_is_kept():
    calls = FakeCalls()
    for method in ("get_user", "retrieve"):
        calls.behaviour[method] = 60
    page = await recommend(await ready(calls), calls, time_left_s=0.001)
    assert (page.rung, len(page.items)) == (Rung.POPULAR, 5)


async def test_the_reranker_runs_only_if_it_is_expected_to_be_done_in_time():
    calls = FakeCalls()
    pipeline = await ready(calls, deadline_ms=1000)
    pipeline.ladder._reranker_times[VERSION].add(30.0)
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons) == (Rung.SCORER, ["reranker_does_not_fit"])
    assert not calls.called("rerank")


async def test_a_reranker_that_was_given_up_is_not_tried_again_at_once():
    calls = FakeCalls()
    pipeline = await ready(calls, deadline_ms=150)
    calls.behaviour["rerank"] = 60
    assert (await recommend(pipeline, calls)).reasons == ["reranker_too_slow"]
    assert (await recommend(pipeline, calls)).reasons == ["reranker_does_not_fit"]


async def test_the_reranker_can_be_switched_off_or_missing():
    calls = FakeCalls()
    assert (await recommend(await ready(calls, reranker=False), calls)).rung == Rung.SCORER
    pipeline = make()  # nothing is known of the model yet
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons) == (Rung.SCORER, [])


async def test_unknown_users_get_popular_items_and_are_told_so():
    calls = FakeCalls(history=(), seen=())
    page = await recommend(await ready(calls), calls)
    assert (page.rung, page.reasons) == (Rung.POPULAR, ["user_unknown"])
    assert not calls.called("embed_user")


async def test_a_history_that_the_model_does_not_know():
    calls = FakeCalls()
    pipeline = await ready(calls)

    async def embed_user(history, model_version, limit_s):
        return type("Vector", (), {"values": [], "model_version": VERSION})()

    calls.embed_user = embed_user
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons) == (Rung.RETRIEVAL, ["history_unknown"])
    assert not calls.called("score")


async def test_a_vector_is_not_compared_with_another_versions_index():
    calls = FakeCalls()
    calls.versions["scoring"] = "v2"
    page = await recommend(await ready(calls), calls)
    assert (page.rung, page.reasons, page.model_version) == (Rung.RERANKER, ["model_versions_differ"], "v2")
    assert [bool(asked["vector"]) for asked in calls.called("retrieve")] == [True, False]


@pytest.mark.parametrize(("before", "rung"), [("score", Rung.RETRIEVAL), ("rerank", Rung.SCORER)])
async def test_a_pool_that_switches_within_a_request_does_not_mix_versions(before, rung):
    calls = FakeCalls()
    pipeline = await ready(calls)
    plain = getattr(calls, before)

    async def switched(*arguments):
        calls.versions["scoring"] = "v2"
        return await plain(*arguments)

    setattr(calls, before, switched)
    page = await recommend(pipeline, calls)
    assert (page.rung, page.reasons, page.model_version) == (rung, ["model_versions_differ"], VERSION)


async def test_seen_dismissed_blocked_and_excluded_items_are_not_even_asked_for():
    calls = FakeCalls(dismissed=["i3"])
    pipeline = await ready(calls, blocked_item_ids=("i4",))
    page = await recommend(pipeline, calls, filter=ItemFilter(exclude_item_ids=("i0",)), page_size=50)
    assert set(calls.called("retrieve")[0]["exclude"]) == {"i0", "i1", "i2", "i3", "i4"}
    assert len(page.items) == 45


@pytest.mark.parametrize(
    ("setting", "asked", "seen_come"),
    [(False, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
async def test_seen_items_as_the_scenario_or_the_request_says(setting, asked, seen_come):
    calls = FakeCalls()
    page = await recommend(
        await ready(calls, allow_seen=setting), calls, filter=ItemFilter(allow_seen=asked), page_size=50
    )
    assert ("i1" in ids(page)) is seen_come


async def test_retired_items_never_come_even_if_candidate_still_has_them():
    calls = FakeCalls()
    calls.items["i3"] = ItemInfo("i3", retired=True)
    assert "i3" not in ids(await recommend(await ready(calls), calls, page_size=50))


async def test_filters_that_read_items_widen_retrieval_and_act_before_scoring():
    calls = FakeCalls()
    pipeline = await ready(calls, candidate_count=10, filtered_candidate_count=40)
    page = await recommend(pipeline, calls, filter=ItemFilter(categories=frozenset({"even"}), min_price=6))
    assert calls.called("retrieve")[0]["count"] == 40
    assert calls.called("score")[0]["candidates"].item_ids == [f"i{n}" for n in range(6, 26, 2)]
    assert all(int(item_id[1:]) % 2 == 0 for item_id in ids(page))


async def test_a_filter_that_nothing_passes_gets_an_empty_page():
    calls = FakeCalls()
    page = await recommend(await ready(calls), calls, filter=ItemFilter(categories=frozenset({"none"})))
    assert page.items == []
    # What cannot be checked does not pass.
    calls.down("get_items")
    page = await recommend(await ready(calls), calls, filter=ItemFilter(categories=frozenset({"even"})))
    assert (page.items, page.reasons) == ([], ["feature_unavailable"])


async def test_only_the_included_items():
    calls = FakeCalls()
    pipeline = await ready(calls)
    included = ItemFilter(include_item_ids=("i9", "i1", "nope"))
    page = await recommend(pipeline, calls, filter=included)
    assert ids(page) == ["i9"]  # i1 has been seen
    assert (calls.called("retrieve")[0]["count"], calls.called("retrieve")[0]["include"]) == (0, ["i9", "i1", "nope"])
    calls.down("retrieve")
    page = await recommend(pipeline, calls, filter=included)
    assert (page.rung, page.reasons) == (Rung.POPULAR, ["candidate_unavailable"])
    assert ids(page) == ["i9", "nope"]


async def test_candidate_count_of_the_request_wins():
    calls = FakeCalls()
    page = await recommend(await ready(calls), calls, candidate_count=7)
    assert (calls.called("retrieve")[0]["count"], page.candidate_count) == (7, 7)


async def test_diversity_asks_for_vectors_and_changes_the_order():
    calls = FakeCalls()
    diverse = {"method": "mmr", "strength": 0.9, "window": 20}
    pipeline = await ready(calls, diversity=diverse, reranker=False, exploration={"epsilon": 0, "pool": 1})
    page = await recommend(pipeline, calls)
    assert calls.called("score")[0]["vector_count"] == 25
    assert ids(page) != ["i0", "i3", "i4", "i5", "i6"]
    assert ids(page)[0] == "i0"


async def test_category_cap():
    calls = FakeCalls()
    capped = {"method": "none", "max_per_category": 1, "category_window": 2}
    pipeline = await ready(calls, diversity=capped, reranker=False)
    assert ids(await recommend(pipeline, calls, page_size=4)) == ["i0", "i3", "i4", "i5"]


async def test_exploration_is_the_same_for_the_same_request_and_logs_propensities():
    calls = FakeCalls()
    pipeline = await ready(calls, exploration={"epsilon": 1, "first_position": 1, "pool": 4}, reranker=False)
    first, second = await recommend(pipeline, calls), await recommend(pipeline, calls)
    other = await recommend(pipeline, calls, request_id="r-2")
    assert ids(first) == ids(second)
    assert [entry.propensity for entry in first.items] == [1.0, 0.25, 0.25, 0.25, 0.25]
    assert ids(first)[0] == ids(other)[0] == "i0"
    assert ids(first) != ids(other)


class TestInterleaving:
    """One page of two policies' lists."""

    # The fake re-ranker turns the order of the best around, so that the lists differ.
    PAIR = (policy(), policy(reranker=False))

    async def page(self, calls, own=0, page_size=6, **fields):
        pipeline = await ready(calls, reranker_count=48)
        dealt = Dealt(self.PAIR[own], "e-1", "bold", self.PAIR)
        return await recommend(pipeline, calls, dealt=dealt, page_size=page_size, **fields)

    async def alone(self, place, **fields):
        calls = FakeCalls()
        return await recommend(await ready(calls, reranker_count=48), calls, dealt=Dealt(self.PAIR[place]), **fields)

    async def test_each_team_puts_its_best_in_turn(self):
        page = await self.page(FakeCalls())
        assert page.interleaved
        for team, place in (("first", 0), ("second", 1)):
            own = [entry for entry in page.items if entry.team == team]
            alone = await self.alone(place, page_size=3)
            assert [(entry.item, entry.score) for entry in own] == [(entry.item, entry.score) for entry in alone.items]
        assert [entry.propensity for entry in page.items] == [0.5, 1, 0.5, 1, 0.5, 1]

    async def test_the_users_own_variant_says_rung_and_version(self):
        assert (await self.page(FakeCalls(), own=0)).rung == Rung.RERANKER
        assert (await self.page(FakeCalls(), own=1)).rung == Rung.SCORER

    async def test_the_turns_depend_on_the_request_alone(self):
        teams = [
            [entry.team for entry in (await self.page(FakeCalls(), request_id=f"r-{number}")).items]
            for number in (1, 1, *range(2, 12))
        ]
        assert teams[0] == teams[1]
        assert len({line[0] for line in teams}) == 2

    async def test_nothing_is_explored(self):
        bold = policy(exploration={"epsilon": 1, "first_position": 0, "pool": 40}, reranker=False)
        calls = FakeCalls()
        pipeline = await ready(calls)
        page = await recommend(pipeline, calls, dealt=Dealt(bold, "e-1", "bold", (policy(reranker=False), bold)))
        assert ids(page) == ["i0", "i3", "i4", "i5", "i6"]
        # Both lists are the same, so nothing was left to chance.
        assert [entry.propensity for entry in page.items] == [1.0] * 5

    async def test_reasons_are_those_of_both(self):
        calls = FakeCalls()
        calls.down("rerank")
        assert (await self.page(calls, own=1)).reasons == ["reranker_unavailable"]

    async def test_no_item_comes_twice(self):
        page = await self.page(FakeCalls(count=8), page_size=8)
        assert len(ids(page)) == len(set(ids(page))) == 6


async def test_rank_items_orders_the_callers_items_whatever_the_rules_say():
    calls = FakeCalls()
    pipeline = await ready(calls, blocked_item_ids=("i5",))
    calls.unknown = [1]
    ordered = await pipeline.rank_items("anna", ["i9", "i5", "nope", "i1"], Rung.SCORER, policy(), calls, 10)
    assert ordered.item_ids == ["i1", "i9", "i5", "nope"]  # the model does not know i5
    assert ordered.scores == sorted(ordered.scores, reverse=True)
    assert ordered.unknown_item_ids == ["nope"]
    assert (ordered.rung, ordered.reasons) == (Rung.SCORER, [])
    assert calls.called("retrieve")[0]["exclude"] == []


async def test_rank_items_without_candidate_keeps_the_callers_order():
    calls = FakeCalls()
    calls.down("retrieve")
    ordered = await make().rank_items("anna", ["i9", "nope", "i1"], Rung.RERANKER, policy(), calls, 10)
    assert ordered.item_ids == ["i9", "nope", "i1"]
    assert ordered.scores == [0, 0, 0]
    assert ordered.unknown_item_ids == ["nope"]
    assert (ordered.rung, ordered.reasons) == (Rung.POPULAR, ["candidate_unavailable"])


async def test_explain():
    calls = FakeCalls()
    pipeline = await ready(calls, blocked_item_ids=("i2",), reranker=False)
    explained = await pipeline.explain("anna", "i2", pipeline.policy, calls, 10)
    assert explained.reason == "Because you played Title 1"
    assert (explained.because_item_id, explained.because_title) == ("i1", "Title 1")
    assert explained.blocked_by == ["seen", "blocked"]
    assert [name for name, _, _ in explained.contributions] == ["click", "rating"]
    assert explained.score == pytest.approx(sum(value * weight for _, value, weight in explained.contributions))
    assert explained.model_version == VERSION


async def test_explain_what_is_unknown_or_cannot_be_known():
    calls = FakeCalls()
    pipeline = await ready(calls)
    with pytest.raises(NotFoundError, match="item_id: 'nope'"):
        await pipeline.explain("anna", "nope", policy(), calls, 10)
    calls.down("get_items")
    with pytest.raises(NotReadyError):
        await pipeline.explain("anna", "i30", policy(), calls, 10)


async def test_explain_without_scoring_tells_the_retrieval_score():
    calls = FakeCalls()
    calls.down("embed_user")
    explained = await (await ready(calls)).explain("anna", "i9", policy(), calls, 10)
    assert (explained.contributions, explained.because_item_id, explained.score) == ([], "", 1.0)


async def test_what_is_kept_survives_a_failed_refresh():
    calls = FakeCalls()
    pipeline = await ready(calls)
    popular, model = pipeline.ladder.popular, pipeline.ladder.model
    calls.down("retrieve", "get_model")
    assert await refresh(pipeline.ladder, calls)
    assert (pipeline.ladder.popular, pipeline.ladder.model) == (popular, model)
    assert not await refresh(make().ladder, calls)


class TestModelVersion:
    """Answers by another version than the current one."""

    @staticmethod
    def serving(*services):
        calls = FakeCalls()
        for service in services:
            calls.variants[service].append("v2")
        return calls

    @staticmethod
    def versions_asked(calls):
        return {details["version"] for _, details in calls.asked if "version" in details}

    async def test_every_call_asks_for_it(self):
        calls = self.serving("scoring", "candidate")
        page = await recommend(await ready(calls), calls, model_version="v2")
        assert (page.rung, page.reasons, page.model_version) == (Rung.RERANKER, [], "v2")
        assert self.versions_asked(calls) == {"v2"}
        ordered = await (await ready(calls)).rank_items("anna", ["i1", "i2"], Rung.SCORER, policy("v2"), calls, 10)
        assert (ordered.model_version, ordered.reasons) == ("v2", [])
        explained = await (await ready(calls)).explain("anna", "i9", policy("v2"), calls, 10)
        assert explained.model_version == "v2"

    @pytest.mark.parametrize("services", [(), ("scoring",), ("candidate",)], ids=["nowhere", "scoring", "candidate"])
    @pytest.mark.parametrize("history", [("i1", "i2"), ()], ids=["known user", "unknown user"])
    async def test_where_it_is_not_served_the_current_one_answers(self, services, history):
        calls = FakeCalls(history=history)
        for service in services:
            calls.variants[service].append("v2")
        page = await recommend(await ready(calls), calls, model_version="v2")
        assert page.items
        if services == ("candidate",) and not history:
            # Without a history nothing but retrieval is asked.
            assert (page.reasons, page.model_version) == (["user_unknown"], "v2")
            return
        reasons = ["model_version_not_served"] if history else ["user_unknown", "model_version_not_served"]
        assert (page.reasons, page.model_version) == (reasons, VERSION)
        assert page.rung == (Rung.RERANKER if history else Rung.POPULAR)

    @pytest.mark.parametrize("at", ["score", "rerank"])
    async def test_one_that_leaves_within_a_request_is_answered_by_the_current_one_alone(self, at):
        calls = self.serving("scoring", "candidate")
        pipeline = await ready(calls)
        plain = getattr(calls, at)

        async def leaves(*arguments):
            calls.variants["scoring"].clear()
            return await plain(*arguments)

        setattr(calls, at, leaves)
        page = await recommend(pipeline, calls, model_version="v2")
        assert (page.rung, page.reasons) == (Rung.RERANKER, ["model_version_not_served"])
        assert page.model_version == VERSION

    async def test_another_failure_is_not_taken_for_it(self):
        calls = self.serving("scoring", "candidate")
        pipeline = await ready(calls)
        calls.down("score")
        page = await recommend(pipeline, calls, model_version="v2")
        assert (page.rung, page.reasons, page.model_version) == (Rung.RETRIEVAL, ["scoring_unavailable"], "v2")

    async def test_the_reranker_is_judged_by_version(self):
        calls = self.serving("scoring", "candidate")
        calls.no_reranker = ["v2"]
        pipeline = make(deadline_ms=1000)
        await refresh(pipeline.ladder, calls)
        assert (await recommend(pipeline, calls, model_version="v2")).rung == Rung.SCORER
        assert (await recommend(pipeline, calls)).rung == Rung.RERANKER
        calls.no_reranker = []
        await refresh(pipeline.ladder, calls)
        pipeline.ladder._reranker_times["v2"].add(30.0)
        assert (await recommend(pipeline, calls, model_version="v2")).reasons == ["reranker_does_not_fit"]
        assert (await recommend(pipeline, calls)).rung == Rung.RERANKER

    async def test_a_variant_that_does_not_say_what_it_is_does_not_hide_the_current_one(self):
        calls = self.serving("scoring")
        plain = calls.get_model

        async def current_only(model_version, limit_s):
            if model_version:
                raise DependencyError("scoring", "too_slow", "late")
            return await plain(model_version, limit_s)

        calls.get_model = current_only
        pipeline = make()
        assert await refresh(pipeline.ladder, calls)
        assert pipeline.ladder.model.served_versions == (VERSION, "v2")


async def test_a_page_tells_what_its_models_saw():
    page = await recommend(await ready(FakeCalls()), FakeCalls())
    assert (page.feature_offset, page.history_count) == (77, 2)
    assert all(isinstance(entry.retrieval_score, float) for entry in page.items)
    popular = await recommend(await ready(FakeCalls()), FakeCalls(), max_rung=Rung.POPULAR)
    assert (popular.feature_offset, popular.history_count) == (77, 0)
    without = FakeCalls()
    without.behaviour["get_user"] = DependencyError("feature.GetUserFeatures", "unavailable", "away")
    page = await recommend(await ready(without), without)
    assert (page.feature_offset, page.history_count) == (None, 0)


def test_an_impression_holds_what_was_served():
    item = ItemInfo("i1")
    entries = [
        PageItem(item, 0.5, 1.0 + 1e-7, None, 4.5, "ann", "", 0.5, 0.25),
        PageItem(item, 0.25, 0.5, None, None, "ann", "", 0.5, 0.125),
    ]
    dealt = Dealt(make().policy)
    page = Page(entries, Rung.SCORER, [], "m1", 1, 2, 77, 3)
    logged = feedback_pb.Impression.FromString(converters.impression("anna", "r1", page, dealt))
    assert (logged.feature_offset, logged.history_count) == (77, 3)
    assert list(logged.retrieval_scores) == [0.25, 0.125]
    assert list(logged.click_probabilities) == [1.0, 0.5], "a hair over 1 must not cost the impression"
    assert list(logged.conversion_probabilities) == []
    assert list(logged.predicted_ratings) == [], "a column is whole or not there"
    unseen = Page(entries, Rung.POPULAR, [], "m1", 1, 2, None, 0)
    body = converters.impression("anna", "r1", unseen, dealt)
    assert not feedback_pb.Impression.FromString(body).HasField("feature_offset")
