from recmesh.type.v1 import event_kind_pb2 as _event_kind_pb2
from recmesh.type.v1 import rung_pb2 as _rung_pb2
from recmesh.type.v1 import team_pb2 as _team_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Consent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_UNSPECIFIED: _ClassVar[Consent]
    CONSENT_GRANTED: _ClassVar[Consent]
    CONSENT_DENIED: _ClassVar[Consent]
CONSENT_UNSPECIFIED: Consent
CONSENT_GRANTED: Consent
CONSENT_DENIED: Consent

class Impression(_message.Message):
    __slots__ = ("request_id", "user_id", "served_time_ms", "item_ids", "propensities", "scores", "sources", "model_version", "rung", "experiment", "variant", "teams", "feature_offset", "history_count", "retrieval_scores", "click_probabilities", "conversion_probabilities", "predicted_ratings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    TEAMS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    HISTORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_SCORES_FIELD_NUMBER: _ClassVar[int]
    CLICK_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_RATINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    user_id: str
    served_time_ms: int
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    scores: _containers.RepeatedScalarFieldContainer[float]
    sources: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    rung: _rung_pb2.Rung
    experiment: str
    variant: str
    teams: _containers.RepeatedScalarFieldContainer[_team_pb2.Team]
    feature_offset: int
    history_count: int
    retrieval_scores: _containers.RepeatedScalarFieldContainer[float]
    click_probabilities: _containers.RepeatedScalarFieldContainer[float]
    conversion_probabilities: _containers.RepeatedScalarFieldContainer[float]
    predicted_ratings: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., served_time_ms: _Optional[int] = ..., item_ids: _Optional[_Iterable[str]] = ..., propensities: _Optional[_Iterable[float]] = ..., scores: _Optional[_Iterable[float]] = ..., sources: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ..., rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., experiment: _Optional[str] = ..., variant: _Optional[str] = ..., teams: _Optional[_Iterable[_Union[_team_pb2.Team, str]]] = ..., feature_offset: _Optional[int] = ..., history_count: _Optional[int] = ..., retrieval_scores: _Optional[_Iterable[float]] = ..., click_probabilities: _Optional[_Iterable[float]] = ..., conversion_probabilities: _Optional[_Iterable[float]] = ..., predicted_ratings: _Optional[_Iterable[float]] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("event_id", "user_id", "item_id", "event_kind", "event_time_ms", "value", "request_id", "position", "consent")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_KIND_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    user_id: str
    item_id: str
    event_kind: _event_kind_pb2.EventKind
    event_time_ms: int
    value: float
    request_id: str
    position: int
    consent: Consent
    def __init__(self, event_id: _Optional[str] = ..., user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., event_kind: _Optional[_Union[_event_kind_pb2.EventKind, str]] = ..., event_time_ms: _Optional[int] = ..., value: _Optional[float] = ..., request_id: _Optional[str] = ..., position: _Optional[int] = ..., consent: _Optional[_Union[Consent, str]] = ...) -> None: ...

class RecordImpressionsRequest(_message.Message):
    __slots__ = ("scenario", "impressions")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    IMPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    impressions: _containers.RepeatedCompositeFieldContainer[Impression]
    def __init__(self, scenario: _Optional[str] = ..., impressions: _Optional[_Iterable[_Union[Impression, _Mapping]]] = ...) -> None: ...

class RecordImpressionsResponse(_message.Message):
    __slots__ = ("accepted_count", "duplicate_count", "dropped_count")
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    accepted_count: int
    duplicate_count: int
    dropped_count: int
    def __init__(self, accepted_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class RecordFeedbackRequest(_message.Message):
    __slots__ = ("scenario", "events")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    events: _containers.RepeatedCompositeFieldContainer[Feedback]
    def __init__(self, scenario: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ...) -> None: ...

class RecordFeedbackResponse(_message.Message):
    __slots__ = ("accepted_count", "duplicate_count", "dropped_count")
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    accepted_count: int
    duplicate_count: int
    dropped_count: int
    def __init__(self, accepted_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class StreamFeedbackRequest(_message.Message):
    __slots__ = ("scenario", "events")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    events: _containers.RepeatedCompositeFieldContainer[Feedback]
    def __init__(self, scenario: _Optional[str] = ..., events: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ...) -> None: ...

class StreamFeedbackResponse(_message.Message):
    __slots__ = ("accepted_count", "duplicate_count", "dropped_count")
    ACCEPTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    DROPPED_COUNT_FIELD_NUMBER: _ClassVar[int]
    accepted_count: int
    duplicate_count: int
    dropped_count: int
    def __init__(self, accepted_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., dropped_count: _Optional[int] = ...) -> None: ...

class TailEventsRequest(_message.Message):
    __slots__ = ("scenario", "after_offset", "last_record_count")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    AFTER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    after_offset: int
    last_record_count: int
    def __init__(self, scenario: _Optional[str] = ..., after_offset: _Optional[int] = ..., last_record_count: _Optional[int] = ...) -> None: ...

class TailEventsResponse(_message.Message):
    __slots__ = ("records", "latest_offset")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LATEST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[LogRecord]
    latest_offset: int
    def __init__(self, records: _Optional[_Iterable[_Union[LogRecord, _Mapping]]] = ..., latest_offset: _Optional[int] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("offset", "impression", "feedback", "erasure")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    offset: int
    impression: Impression
    feedback: Feedback
    erasure: Erasure
    def __init__(self, offset: _Optional[int] = ..., impression: _Optional[_Union[Impression, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., erasure: _Optional[_Union[Erasure, _Mapping]] = ...) -> None: ...

class Erasure(_message.Message):
    __slots__ = ("erasure_id", "user_digest", "erased_time_ms")
    ERASURE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ERASED_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    erasure_id: str
    user_digest: bytes
    erased_time_ms: int
    def __init__(self, erasure_id: _Optional[str] = ..., user_digest: _Optional[bytes] = ..., erased_time_ms: _Optional[int] = ...) -> None: ...

class ExportExamplesRequest(_message.Message):
    __slots__ = ("scenario", "start_time_ms", "end_time_ms")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    START_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    END_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    start_time_ms: int
    end_time_ms: int
    def __init__(self, scenario: _Optional[str] = ..., start_time_ms: _Optional[int] = ..., end_time_ms: _Optional[int] = ...) -> None: ...

class ExportExamplesResponse(_message.Message):
    __slots__ = ("request_ids", "user_ids", "item_ids", "positions", "propensities", "sources", "model_versions", "served_times_ms", "clicked", "converted", "ratings", "experiments", "variants", "rungs", "scores", "retrieval_scores", "click_probabilities", "conversion_probabilities", "predicted_ratings", "feature_offsets", "history_counts", "log_offsets")
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SERVED_TIMES_MS_FIELD_NUMBER: _ClassVar[int]
    CLICKED_FIELD_NUMBER: _ClassVar[int]
    CONVERTED_FIELD_NUMBER: _ClassVar[int]
    RATINGS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    RETRIEVAL_SCORES_FIELD_NUMBER: _ClassVar[int]
    CLICK_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_RATINGS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LOG_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    request_ids: _containers.RepeatedScalarFieldContainer[str]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    positions: _containers.RepeatedScalarFieldContainer[int]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    sources: _containers.RepeatedScalarFieldContainer[str]
    model_versions: _containers.RepeatedScalarFieldContainer[str]
    served_times_ms: _containers.RepeatedScalarFieldContainer[int]
    clicked: _containers.RepeatedScalarFieldContainer[bool]
    converted: _containers.RepeatedScalarFieldContainer[bool]
    ratings: _containers.RepeatedScalarFieldContainer[float]
    experiments: _containers.RepeatedScalarFieldContainer[str]
    variants: _containers.RepeatedScalarFieldContainer[str]
    rungs: _containers.RepeatedScalarFieldContainer[_rung_pb2.Rung]
    scores: _containers.RepeatedScalarFieldContainer[float]
    retrieval_scores: _containers.RepeatedScalarFieldContainer[float]
    click_probabilities: _containers.RepeatedScalarFieldContainer[float]
    conversion_probabilities: _containers.RepeatedScalarFieldContainer[float]
    predicted_ratings: _containers.RepeatedScalarFieldContainer[float]
    feature_offsets: _containers.RepeatedScalarFieldContainer[int]
    history_counts: _containers.RepeatedScalarFieldContainer[int]
    log_offsets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request_ids: _Optional[_Iterable[str]] = ..., user_ids: _Optional[_Iterable[str]] = ..., item_ids: _Optional[_Iterable[str]] = ..., positions: _Optional[_Iterable[int]] = ..., propensities: _Optional[_Iterable[float]] = ..., sources: _Optional[_Iterable[str]] = ..., model_versions: _Optional[_Iterable[str]] = ..., served_times_ms: _Optional[_Iterable[int]] = ..., clicked: _Optional[_Iterable[bool]] = ..., converted: _Optional[_Iterable[bool]] = ..., ratings: _Optional[_Iterable[float]] = ..., experiments: _Optional[_Iterable[str]] = ..., variants: _Optional[_Iterable[str]] = ..., rungs: _Optional[_Iterable[_Union[_rung_pb2.Rung, str]]] = ..., scores: _Optional[_Iterable[float]] = ..., retrieval_scores: _Optional[_Iterable[float]] = ..., click_probabilities: _Optional[_Iterable[float]] = ..., conversion_probabilities: _Optional[_Iterable[float]] = ..., predicted_ratings: _Optional[_Iterable[float]] = ..., feature_offsets: _Optional[_Iterable[int]] = ..., history_counts: _Optional[_Iterable[int]] = ..., log_offsets: _Optional[_Iterable[int]] = ...) -> None: ...

class GetVariantCountsRequest(_message.Message):
    __slots__ = ("scenario", "experiment")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    experiment: str
    def __init__(self, scenario: _Optional[str] = ..., experiment: _Optional[str] = ...) -> None: ...

class GetVariantCountsResponse(_message.Message):
    __slots__ = ("variants", "interleaving")
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    INTERLEAVING_FIELD_NUMBER: _ClassVar[int]
    variants: _containers.RepeatedCompositeFieldContainer[VariantCounts]
    interleaving: InterleavingCounts
    def __init__(self, variants: _Optional[_Iterable[_Union[VariantCounts, _Mapping]]] = ..., interleaving: _Optional[_Union[InterleavingCounts, _Mapping]] = ...) -> None: ...

class VariantCounts(_message.Message):
    __slots__ = ("variant", "user_count", "clicking_user_count", "impression_count", "click_count", "conversion_count", "impression_squares", "click_squares", "conversion_squares", "click_impression_products", "conversion_click_products")
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLICKING_USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLICK_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_COUNT_FIELD_NUMBER: _ClassVar[int]
    IMPRESSION_SQUARES_FIELD_NUMBER: _ClassVar[int]
    CLICK_SQUARES_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_SQUARES_FIELD_NUMBER: _ClassVar[int]
    CLICK_IMPRESSION_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_CLICK_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    variant: str
    user_count: int
    clicking_user_count: int
    impression_count: int
    click_count: int
    conversion_count: int
    impression_squares: int
    click_squares: int
    conversion_squares: int
    click_impression_products: int
    conversion_click_products: int
    def __init__(self, variant: _Optional[str] = ..., user_count: _Optional[int] = ..., clicking_user_count: _Optional[int] = ..., impression_count: _Optional[int] = ..., click_count: _Optional[int] = ..., conversion_count: _Optional[int] = ..., impression_squares: _Optional[int] = ..., click_squares: _Optional[int] = ..., conversion_squares: _Optional[int] = ..., click_impression_products: _Optional[int] = ..., conversion_click_products: _Optional[int] = ...) -> None: ...

class InterleavingCounts(_message.Message):
    __slots__ = ("first_win_count", "second_win_count", "tie_count", "user_count", "first_win_squares", "first_win_products", "win_squares")
    FIRST_WIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SECOND_WIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIE_COUNT_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_WIN_SQUARES_FIELD_NUMBER: _ClassVar[int]
    FIRST_WIN_PRODUCTS_FIELD_NUMBER: _ClassVar[int]
    WIN_SQUARES_FIELD_NUMBER: _ClassVar[int]
    first_win_count: int
    second_win_count: int
    tie_count: int
    user_count: int
    first_win_squares: int
    first_win_products: int
    win_squares: int
    def __init__(self, first_win_count: _Optional[int] = ..., second_win_count: _Optional[int] = ..., tie_count: _Optional[int] = ..., user_count: _Optional[int] = ..., first_win_squares: _Optional[int] = ..., first_win_products: _Optional[int] = ..., win_squares: _Optional[int] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("scenario", "user_id")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ("removed_count", "record_count", "example_count", "offset")
    REMOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    removed_count: int
    record_count: int
    example_count: int
    offset: int
    def __init__(self, removed_count: _Optional[int] = ..., record_count: _Optional[int] = ..., example_count: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...
