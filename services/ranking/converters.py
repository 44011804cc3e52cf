"""Between messages and the service's own types; checks every field of a request, and of an answer what would mislead.

Axes: C candidates, M vectors, D vector_dimension.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from recmesh.candidate.v1 import candidate_service_pb2 as candidate_pb
from recmesh.feature.v1 import feature_service_pb2 as feature_pb
from recmesh.feedback.v1 import feedback_service_pb2 as feedback_pb
from recmesh.ranking.v1 import ranking_service_pb2 as pb
from recmesh.scoring.v1 import scoring_service_pb2 as scoring_pb
from recmesh.type.v1 import feature_column_pb2, item_pb2, rung_pb2, team_pb2
from services.ranking.dependencies import (
    Candidates,
    FloatArray,
    History,
    Hop,
    IntArray,
    ItemInfo,
    ModelInfo,
    Predictions,
    Reranked,
    Rung,
    User,
    UserVector,
)
from services.ranking.filters import ItemFilter
from services.ranking.interleaving import Team
from services.ranking.page import Page
from services.ranking.pipeline import Explanation, OrderedItems, RecommendAsk
from services.ranking.policy import Dealt
from services.runtime.checks import check_count, check_enum, check_id, check_optional_id, check_range
from services.runtime.columns import read_floats, write_floats
from services.runtime.errors import InvalidFieldError
from services.runtime.pseudonym import Pseudonyms

MAX_PAGE_SIZE = 200
MAX_CANDIDATES = 5_000
MAX_ITEMS = 1_000
_MAX_PRICE = 1e15
_RUNG_NAMES = {rung: f"RUNG_{rung.name}" for rung in Rung}
_TEAMS: dict[Team | None, team_pb2.Team] = {
    None: team_pb2.TEAM_UNSPECIFIED,
    "first": team_pb2.TEAM_FIRST,
    "second": team_pb2.TEAM_SECOND,
}
_RUNGS_TEXT = "RUNG_UNSPECIFIED, RUNG_POPULAR, RUNG_RETRIEVAL, RUNG_SCORER, RUNG_RERANKER (0 to 4)"


class FeatureColumns:
    """dependencies.Columns as the messages they came in."""

    def __init__(self, messages: Sequence[feature_column_pb2.FeatureColumn]) -> None:
        self.messages = messages

    def select(self, places: IntArray) -> "FeatureColumns":
        """See Columns."""
        chosen = places.tolist()
        return FeatureColumns(
            [
                feature_column_pb2.FeatureColumn(name=column.name, values=[column.values[place] for place in chosen])
                for column in self.messages
            ]
        )


# ---- what clients ask of ranking


def recommend_ask(request: pb.RecommendRequest, request_id: str, pseudonyms: Pseudonyms) -> RecommendAsk:
    """InvalidFieldError names the first field outside its range. `request_id` stands in for an empty one."""
    check_id("user_id", request.user_id)
    check_range("page_size", request.page_size, 1, MAX_PAGE_SIZE)
    check_optional_id("request_id", request.request_id)
    check_range("candidate_count", request.candidate_count, 0, MAX_CANDIDATES)
    check_optional_id("model_version", request.model_version)
    return RecommendAsk(
        user_id=pseudonyms.of(request.user_id),
        page_size=request.page_size,
        request_id=request.request_id or request_id,
        filter=_item_filter(request.filter),
        candidate_count=request.candidate_count,
        max_rung=_max_rung(request.max_rung),
    )


def rank_items_ask(request: pb.RankItemsRequest) -> Rung:
    """Checks the request; returns its highest rung."""
    check_id("user_id", request.user_id)
    check_count("item_ids", len(request.item_ids), 1, MAX_ITEMS)
    first: dict[str, int] = {}
    for place, item_id in enumerate(request.item_ids):
        check_id(f"item_ids[{place}]", item_id)
        if item_id in first:
            raise InvalidFieldError(
                f"item_ids[{place}]", f"repeats item_ids[{first[item_id]}], {item_id!r}; send each id once"
            )
        first[item_id] = place
    check_optional_id("model_version", request.model_version)
    return _max_rung(request.max_rung)


def check_explain(request: pb.ExplainRecommendationRequest) -> None:
    """InvalidFieldError names the first field outside its range."""
    check_id("user_id", request.user_id)
    check_id("item_id", request.item_id)
    check_optional_id("model_version", request.model_version)


def _max_rung(number: int) -> Rung:
    check_enum("max_rung", number, rung_pb2.Rung.values(), _RUNGS_TEXT)
    return Rung(number) if number else Rung.RERANKER


def _item_filter(message: pb.ItemFilter) -> ItemFilter:
    for field in ("include_item_ids", "exclude_item_ids"):
        item_ids = getattr(message, field)
        check_count(f"filter.{field}", len(item_ids), 0, MAX_ITEMS)
        for place, item_id in enumerate(item_ids):
            check_id(f"filter.{field}[{place}]", item_id)
    for field in ("categories", "exclude_categories"):
        names = getattr(message, field)
        check_count(f"filter.{field}", len(names), 0, 64)
        for place, name in enumerate(names):
            if not 1 <= len(name) <= 128:
                raise InvalidFieldError(f"filter.{field}[{place}]", f"has {len(name)} characters; send 1 to 128")
    check_count("filter.attributes", len(message.attributes), 0, 16)
    min_price = message.min_price if message.HasField("min_price") else None
    max_price = message.max_price if message.HasField("max_price") else None
    if min_price is not None:
        check_range("filter.min_price", min_price, 0, _MAX_PRICE)
    if max_price is not None:
        check_range("filter.max_price", max_price, min_price or 0, _MAX_PRICE)
    return ItemFilter(
        include_item_ids=tuple(dict.fromkeys(message.include_item_ids)),
        exclude_item_ids=tuple(message.exclude_item_ids),
        categories=frozenset(message.categories),
        exclude_categories=frozenset(message.exclude_categories),
        attributes=dict(message.attributes),
        min_price=min_price,
        max_price=max_price,
        published_after_ms=message.published_after_ms if message.HasField("published_after_ms") else None,
        allow_seen=message.allow_seen if message.HasField("allow_seen") else None,
    )


def recommend_response(request_id: str, page: Page, dealt: Dealt, hops: Sequence[Hop]) -> pb.RecommendResponse:
    """The page as a message."""
    response = pb.RecommendResponse(
        request_id=request_id,
        rung=_RUNG_NAMES[page.rung],
        degraded_reasons=page.reasons,
        model_version=page.model_version,
        served_time_ms=page.served_time_ms,
        candidate_count=page.candidate_count,
        variant=dealt.variant,
        experiment=dealt.experiment,
    )
    for entry in page.items:
        response.items.add(
            item_id=entry.item.item_id,
            title=entry.item.title,
            score=entry.score,
            click_probability=entry.click,
            conversion_probability=entry.conversion,
            rating=entry.rating,
            source=entry.source,
            reason=entry.reason,
            propensity=entry.propensity,
            categories=entry.item.categories,
            team=_TEAMS[entry.team],
        )
    for hop in hops:
        response.hops.add(**asdict(hop))
    return response


def rank_items_response(ordered: OrderedItems) -> pb.RankItemsResponse:
    """The order as a message."""
    return pb.RankItemsResponse(
        item_ids=ordered.item_ids,
        scores=ordered.scores,
        unknown_item_ids=ordered.unknown_item_ids,
        rung=_RUNG_NAMES[ordered.rung],
        degraded_reasons=ordered.reasons,
        model_version=ordered.model_version,
    )


def explain_response(explanation: Explanation) -> pb.ExplainRecommendationResponse:
    """The explanation as a message."""
    return pb.ExplainRecommendationResponse(
        reason=explanation.reason,
        contributions=[
            pb.Contribution(name=name, value=value, weight=weight) for name, value, weight in explanation.contributions
        ],
        because_item_id=explanation.because_item_id,
        because_title=explanation.because_title,
        blocked_by=explanation.blocked_by,
        score=explanation.score,
        model_version=explanation.model_version,
    )


def impression(user_id: str, request_id: str, page: Page, dealt: Dealt) -> bytes:
    """A page as the event log takes it, serialised."""
    return feedback_pb.Impression(
        request_id=request_id,
        user_id=user_id,
        served_time_ms=page.served_time_ms,
        item_ids=[entry.item.item_id for entry in page.items],
        propensities=[entry.propensity for entry in page.items],
        scores=[entry.score for entry in page.items],
        sources=[entry.source for entry in page.items],
        model_version=page.model_version,
        rung=_RUNG_NAMES[page.rung],
        experiment=dealt.experiment,
        variant=dealt.variant,
        teams=[_TEAMS[entry.team] for entry in page.items] if page.interleaved else (),
        feature_offset=page.feature_offset,
        history_count=page.history_count,
        retrieval_scores=[entry.retrieval_score for entry in page.items],
        click_probabilities=_served([entry.click for entry in page.items], 0, 1),
        conversion_probabilities=_served([entry.conversion for entry in page.items], 0, 1),
        predicted_ratings=_served([entry.rating for entry in page.items]),
    ).SerializeToString()


def _served(values: Sequence[float | None], low: float = -math.inf, high: float = math.inf) -> list[float]:
    """A column of predictions; none where one is missing. A hair beyond its range must not cost the impression."""
    known = [value for value in values if value is not None]
    return [min(max(value, low), high) for value in known] if len(known) == len(values) else []


# ---- what ranking asks of the others


def user_request(scenario: str, user_id: str, history_count: int) -> feature_pb.GetUserFeaturesRequest:
    """feature.GetUserFeatures."""
    return feature_pb.GetUserFeaturesRequest(scenario=scenario, user_id=user_id, history_count=history_count)


def user(response: feature_pb.GetUserFeaturesResponse) -> User:
    """ValueError when the history's columns differ in length."""
    history = response.history
    if len(history.item_ids) != len(history.event_kinds):
        raise ValueError(f"{len(history.item_ids)} items but {len(history.event_kinds)} kinds in the history")
    return User(
        History(list(history.item_ids), list(history.event_kinds), history),
        list(response.seen_item_ids),
        list(response.dismissed_item_ids),
        response.log_offset,
    )


def items_request(scenario: str, item_ids: Sequence[str]) -> feature_pb.BatchGetItemFeaturesRequest:
    """feature.BatchGetItemFeatures."""
    return feature_pb.BatchGetItemFeaturesRequest(scenario=scenario, item_ids=item_ids)


def items(response: feature_pb.BatchGetItemFeaturesResponse) -> list[ItemInfo]:
    """The catalogue entries found."""
    return [_item_info(item) for item in response.items]


def _item_info(item: item_pb2.Item) -> ItemInfo:
    return ItemInfo(
        item_id=item.item_id,
        title=item.title,
        categories=tuple(item.categories),
        price=item.price if item.HasField("price") else None,
        published_time_ms=item.published_time_ms if item.HasField("published_time_ms") else None,
        attributes=dict(item.attributes),
        retired=item.retired,
    )


def embed_user_request(scenario: str, history: History, model_version: str) -> scoring_pb.EmbedUserRequest:
    """scoring.EmbedUser."""
    return scoring_pb.EmbedUserRequest(scenario=scenario, history=history.message, model_version=model_version)


def user_vector(response: scoring_pb.EmbedUserResponse) -> UserVector:
    """ValueError when it is not finite."""
    vector = read_floats(response, "user_vector")
    _check_finite("user_vector", vector)
    return UserVector(response.user_vector, response.model_version)


def retrieve_request(
    scenario: str,
    vector: UserVector | None,
    history: History,
    count: int,
    exclude: Sequence[str],
    include: Sequence[str],
    model_version: str,
) -> candidate_pb.RetrieveCandidatesRequest:
    """candidate.RetrieveCandidates."""
    return candidate_pb.RetrieveCandidatesRequest(
        scenario=scenario,
        user_vector=vector.values if vector is not None else (),
        history=history.message,
        candidate_count=count,
        exclude_item_ids=exclude,
        include_item_ids=include,
        model_version=model_version,
    )


def candidates(response: candidate_pb.RetrieveCandidatesResponse) -> Candidates:
    """ValueError when columns differ in length, a source has no name or a score is not finite."""
    count = len(response.item_ids)
    scores = read_floats(response, "scores")
    sources = np.fromiter(response.source_indexes, dtype=np.int64, count=len(response.source_indexes))
    lengths = {len(scores), len(sources), *(len(column.values) for column in response.columns)}
    if lengths != {count}:
        raise ValueError(f"columns of {sorted(lengths)} entries for {count} candidates")
    if count and not 0 <= sources.min() <= sources.max() < len(response.source_names):
        raise ValueError("a source index has no source name")
    _check_finite("scores", scores)
    return Candidates(
        list(response.item_ids),
        scores,
        sources,
        list(response.source_names),
        FeatureColumns(response.columns),
        response.model_version,
        list(response.unknown_item_ids),
        list(response.failed_source_names),
    )


def score_request(
    scenario: str, vector: UserVector, history: History, asked: Candidates, vector_count: int, model_version: str
) -> scoring_pb.ScoreCandidatesRequest:
    """scoring.ScoreCandidates with the scorer."""
    return scoring_pb.ScoreCandidatesRequest(
        scenario=scenario,
        user_vector=vector.values,
        history=history.message,
        item_ids=asked.item_ids,
        columns=_messages(asked),
        rung=rung_pb2.RUNG_SCORER,
        vector_count=vector_count,
        model_version=model_version,
    )


def rerank_request(
    scenario: str, vector: UserVector, history: History, asked: Candidates, click: FloatArray, model_version: str
) -> scoring_pb.ScoreCandidatesRequest:
    """scoring.ScoreCandidates with the re-ranker."""
    scorer_click = feature_column_pb2.FeatureColumn(name="click_probability")
    write_floats(scorer_click, "values", click)
    return scoring_pb.ScoreCandidatesRequest(
        scenario=scenario,
        user_vector=vector.values,
        history=history.message,
        item_ids=asked.item_ids,
        columns=[*_messages(asked), scorer_click],
        rung=rung_pb2.RUNG_RERANKER,
        model_version=model_version,
    )


def predictions(response: scoring_pb.ScoreCandidatesResponse, count: int) -> Predictions:
    """The scorer's answer for `count` candidates. ValueError when a column has another length or is not finite."""
    tasks = {"click": read_floats(response, "click_probabilities")}
    if response.conversion_probabilities:
        tasks["conversion"] = read_floats(response, "conversion_probabilities")
    if response.ratings:
        tasks["rating"] = read_floats(response, "ratings")
    for task, values in tasks.items():
        if len(values) != count:
            raise ValueError(f"{len(values)} values of {task} for {count} candidates")
        _check_finite(task, values)
    attended = np.fromiter(response.attended_indexes, dtype=np.int64, count=len(response.attended_indexes))
    if len(attended) not in (0, count):
        raise ValueError(f"{len(attended)} attended indexes for {count} candidates")
    places = np.fromiter(response.vector_indexes, dtype=np.int64, count=len(response.vector_indexes))
    vectors = read_floats(response, "vectors")
    if len(places) and (len(vectors) % len(places) or not 0 <= places.min() <= places.max() < count):
        raise ValueError(f"{len(vectors)} vector values for {len(places)} of {count} candidates")
    _check_finite("vectors", vectors)
    unknown = np.fromiter(response.unknown_indexes, dtype=np.int64, count=len(response.unknown_indexes))
    return Predictions(
        tasks,
        attended if len(attended) else np.full(count, -1, dtype=np.int64),
        places,
        vectors.reshape(len(places), -1) if len(places) else vectors.reshape(0, 0),
        unknown[(unknown >= 0) & (unknown < count)],
        response.model_version,
    )


def reranked(response: scoring_pb.ScoreCandidatesResponse, count: int) -> Reranked:
    """The re-ranker's answer for `count` candidates. ValueError when it has another length or is not finite."""
    click = read_floats(response, "click_probabilities")
    if len(click) != count:
        raise ValueError(f"{len(click)} click probabilities for {count} candidates")
    _check_finite("click_probabilities", click)
    return Reranked(click, response.model_version)


def model_info_request(scenario: str, model_version: str) -> scoring_pb.GetModelInfoRequest:
    """scoring.GetModelInfo."""
    return scoring_pb.GetModelInfoRequest(scenario=scenario, model_version=model_version)


def model_info(response: scoring_pb.GetModelInfoResponse) -> ModelInfo:
    """What is loaded."""
    return ModelInfo(
        response.model_version,
        rung_pb2.RUNG_RERANKER in response.rungs,
        response.reranker_latency_ms / 1000,
        tuple(response.served_versions),
    )


def impressions_request(scenario: str, bodies: Sequence[bytes]) -> feedback_pb.RecordImpressionsRequest:
    """feedback.RecordImpressions of serialised impressions."""
    return feedback_pb.RecordImpressionsRequest(
        scenario=scenario, impressions=[feedback_pb.Impression.FromString(body) for body in bodies]
    )


def _messages(asked: Candidates) -> Sequence[feature_column_pb2.FeatureColumn]:
    if not isinstance(asked.columns, FeatureColumns):
        raise TypeError("candidates that did not come from candidate cannot be scored")
    return asked.columns.messages


def _check_finite(name: str, values: FloatArray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite")
