from recmesh.type.v1 import feature_column_pb2 as _feature_column_pb2
from recmesh.type.v1 import history_pb2 as _history_pb2
from recmesh.type.v1 import item_pb2 as _item_pb2
from recmesh.type.v1 import rung_pb2 as _rung_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EmbedUserRequest(_message.Message):
    __slots__ = ("scenario", "history", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    history: _history_pb2.History
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., history: _Optional[_Union[_history_pb2.History, _Mapping]] = ..., model_version: _Optional[str] = ...) -> None: ...

class EmbedUserResponse(_message.Message):
    __slots__ = ("user_vector", "model_version")
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    model_version: str
    def __init__(self, user_vector: _Optional[_Iterable[float]] = ..., model_version: _Optional[str] = ...) -> None: ...

class ScoreCandidatesRequest(_message.Message):
    __slots__ = ("scenario", "user_vector", "history", "item_ids", "columns", "rung", "vector_count", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    VECTOR_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    history: _history_pb2.History
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[_feature_column_pb2.FeatureColumn]
    rung: _rung_pb2.Rung
    vector_count: int
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., user_vector: _Optional[_Iterable[float]] = ..., history: _Optional[_Union[_history_pb2.History, _Mapping]] = ..., item_ids: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[_feature_column_pb2.FeatureColumn, _Mapping]]] = ..., rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., vector_count: _Optional[int] = ..., model_version: _Optional[str] = ...) -> None: ...

class ScoreCandidatesResponse(_message.Message):
    __slots__ = ("click_probabilities", "conversion_probabilities", "ratings", "rung", "model_version", "vector_indexes", "vectors", "unknown_indexes", "attended_indexes")
    CLICK_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    RATINGS_FIELD_NUMBER: _ClassVar[int]
    RUNG_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    VECTOR_INDEXES_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_INDEXES_FIELD_NUMBER: _ClassVar[int]
    ATTENDED_INDEXES_FIELD_NUMBER: _ClassVar[int]
    click_probabilities: _containers.RepeatedScalarFieldContainer[float]
    conversion_probabilities: _containers.RepeatedScalarFieldContainer[float]
    ratings: _containers.RepeatedScalarFieldContainer[float]
    rung: _rung_pb2.Rung
    model_version: str
    vector_indexes: _containers.RepeatedScalarFieldContainer[int]
    vectors: _containers.RepeatedScalarFieldContainer[float]
    unknown_indexes: _containers.RepeatedScalarFieldContainer[int]
    attended_indexes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, click_probabilities: _Optional[_Iterable[float]] = ..., conversion_probabilities: _Optional[_Iterable[float]] = ..., ratings: _Optional[_Iterable[float]] = ..., rung: _Optional[_Union[_rung_pb2.Rung, str]] = ..., model_version: _Optional[str] = ..., vector_indexes: _Optional[_Iterable[int]] = ..., vectors: _Optional[_Iterable[float]] = ..., unknown_indexes: _Optional[_Iterable[int]] = ..., attended_indexes: _Optional[_Iterable[int]] = ...) -> None: ...

class EmbedItemsRequest(_message.Message):
    __slots__ = ("scenario", "items", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    items: _containers.RepeatedCompositeFieldContainer[_item_pb2.Item]
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., items: _Optional[_Iterable[_Union[_item_pb2.Item, _Mapping]]] = ..., model_version: _Optional[str] = ...) -> None: ...

class EmbedItemsResponse(_message.Message):
    __slots__ = ("vectors", "vector_dimension", "model_version")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedScalarFieldContainer[float]
    vector_dimension: int
    model_version: str
    def __init__(self, vectors: _Optional[_Iterable[float]] = ..., vector_dimension: _Optional[int] = ..., model_version: _Optional[str] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("scenario", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model_version", "base_model", "vector_dimension", "item_count", "tasks", "feature_names", "rungs", "metrics", "reranker_latency_ms", "served_versions")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    VECTOR_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    RUNGS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RERANKER_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    SERVED_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    base_model: str
    vector_dimension: int
    item_count: int
    tasks: _containers.RepeatedScalarFieldContainer[str]
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    rungs: _containers.RepeatedScalarFieldContainer[_rung_pb2.Rung]
    metrics: _containers.ScalarMap[str, float]
    reranker_latency_ms: float
    served_versions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_version: _Optional[str] = ..., base_model: _Optional[str] = ..., vector_dimension: _Optional[int] = ..., item_count: _Optional[int] = ..., tasks: _Optional[_Iterable[str]] = ..., feature_names: _Optional[_Iterable[str]] = ..., rungs: _Optional[_Iterable[_Union[_rung_pb2.Rung, str]]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., reranker_latency_ms: _Optional[float] = ..., served_versions: _Optional[_Iterable[str]] = ...) -> None: ...
