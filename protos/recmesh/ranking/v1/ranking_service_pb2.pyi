from recmesh.type.v1 import rung_pb2 as _rung_pb2
from recmesh.type.v1 import team_pb2 as _team_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RecommendRequest(_message.Message):
    __slots__ = ("scenario", "user_id", "page_size", "request_id", "filter", "candidate_count", "max_rung", "skip_impression", "include_hops", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNG_FIELD_NUMBER: _ClassVar[int]
    SKIP_IMPRESSION_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_HOPS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    page_size: int
    request_id: str
    filter: ItemFilter
    candidate_count: int
    max_rung: _rung_pb2.Rung
    skip_impression: bool
    include_hops: bool
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ..., page_size: _Optional[int] = ..., request_id: _Optional[str] = ..., filter: _Optional[_Union[ItemFilter, _Mapping]] = ..., candidate_count: _Optional[int] = ..., max_rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., skip_impression: _Optional[bool] = ..., include_hops: _Optional[bool] = ..., model_version: _Optional[str] = ...) -> None: ...

class ItemFilter(_message.Message):
    __slots__ = ("include_item_ids", "exclude_item_ids", "categories", "exclude_categories", "attributes", "min_price", "max_price", "published_after_ms", "allow_seen")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    MIN_PRICE_FIELD_NUMBER: _ClassVar[int]
    MAX_PRICE_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_SEEN_FIELD_NUMBER: _ClassVar[int]
    include_item_ids: _containers.RepeatedScalarFieldContainer[str]
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    categories: _containers.RepeatedScalarFieldContainer[str]
    exclude_categories: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.ScalarMap[str, str]
    min_price: float
    max_price: float
    published_after_ms: int
    allow_seen: bool
    def __init__(self, include_item_ids: _Optional[_Iterable[str]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., categories: _Optional[_Iterable[str]] = ..., exclude_categories: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Mapping[str, str]] = ..., min_price: _Optional[float] = ..., max_price: _Optional[float] = ..., published_after_ms: _Optional[int] = ..., allow_seen: _Optional[bool] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("request_id", "items", "rung", "degraded_reasons", "model_version", "served_time_ms", "candidate_count", "hops", "variant", "experiment")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    HOPS_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    rung: _rung_pb2.Rung
    degraded_reasons: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    served_time_ms: int
    candidate_count: int
    hops: _containers.RepeatedCompositeFieldContainer[Hop]
    variant: str
    experiment: str
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., degraded_reasons: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., served_time_ms: _Optional[int] = ..., candidate_count: _Optional[int] = ..., hops: _Optional[_Iterable[_Union[Hop, _Mapping]]] = ..., variant: _Optional[str] = ..., experiment: _Optional[str] = ...) -> None: ...

class RecommendedItem(_message.Message):
    __slots__ = ("item_id", "title", "score", "click_probability", "conversion_probability", "rating", "source", "reason", "propensity", "categories", "team")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CLICK_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    RATING_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    score: float
    click_probability: float
    conversion_probability: float
    rating: float
    source: str
    reason: str
    propensity: float
    categories: _containers.RepeatedScalarFieldContainer[str]
    team: _team_pb2.Team
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., score: _Optional[float] = ..., click_probability: _Optional[float] = ..., conversion_probability: _Optional[float] = ..., rating: _Optional[float] = ..., source: _Optional[str] = ..., reason: _Optional[str] = ..., propensity: _Optional[float] = ..., categories: _Optional[_Iterable[str]] = ..., team: _Optional[_Union[_team_pb2.Team, str]] = ...) -> None: ...

class Hop(_message.Message):
    __slots__ = ("name", "duration_us", "request_bytes", "response_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    duration_us: int
    request_bytes: int
    response_bytes: int
    def __init__(self, name: _Optional[str] = ..., duration_us: _Optional[int] = ..., request_bytes: _Optional[int] = ..., response_bytes: _Optional[int] = ...) -> None: ...

class RankItemsRequest(_message.Message):
    __slots__ = ("scenario", "user_id", "item_ids", "max_rung", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNG_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    max_rung: _rung_pb2.Rung
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ..., max_rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., model_version: _Optional[str] = ...) -> None: ...

class RankItemsResponse(_message.Message):
    __slots__ = ("item_ids", "scores", "unknown_item_ids", "rung", "degraded_reasons", "model_version")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    rung: _rung_pb2.Rung
    degraded_reasons: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., degraded_reasons: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ...) -> None: ...

class ExplainRecommendationRequest(_message.Message):
    __slots__ = ("scenario", "user_id", "item_id", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    item_id: str
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class ExplainRecommendationResponse(_message.Message):
    __slots__ = ("reason", "contributions", "because_item_id", "because_title", "blocked_by", "score", "model_version")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTIONS_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_TITLE_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_BY_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    reason: str
    contributions: _containers.RepeatedCompositeFieldContainer[Contribution]
    because_item_id: str
    because_title: str
    blocked_by: _containers.RepeatedScalarFieldContainer[str]
    score: float
    model_version: str
    def __init__(self, reason: _Optional[str] = ..., contributions: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ..., because_item_id: _Optional[str] = ..., because_title: _Optional[str] = ..., blocked_by: _Optional[_Iterable[str]] = ..., score: _Optional[float] = ..., model_version: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("name", "value", "weight")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    weight: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., weight: _Optional[float] = ...) -> None: ...
