from recmesh.type.v1 import feature_column_pb2 as _feature_column_pb2
from recmesh.type.v1 import history_pb2 as _history_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RetrieveCandidatesRequest(_message.Message):
    __slots__ = ("scenario", "user_vector", "history", "candidate_count", "exclude_item_ids", "include_item_ids", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_VECTOR_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_vector: _containers.RepeatedScalarFieldContainer[float]
    history: _history_pb2.History
    candidate_count: int
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    include_item_ids: _containers.RepeatedScalarFieldContainer[str]
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., user_vector: _Optional[_Iterable[float]] = ..., history: _Optional[_Union[_history_pb2.History, _Mapping]] = ..., candidate_count: _Optional[int] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., include_item_ids: _Optional[_Iterable[str]] = ..., model_version: _Optional[str] = ...) -> None: ...

class RetrieveCandidatesResponse(_message.Message):
    __slots__ = ("item_ids", "scores", "source_indexes", "source_names", "columns", "model_version", "unknown_item_ids", "failed_source_names")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_INDEXES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NAMES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_SOURCE_NAMES_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    source_indexes: _containers.RepeatedScalarFieldContainer[int]
    source_names: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[_feature_column_pb2.FeatureColumn]
    model_version: str
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    failed_source_names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., source_indexes: _Optional[_Iterable[int]] = ..., source_names: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[_feature_column_pb2.FeatureColumn, _Mapping]]] = ..., model_version: _Optional[str] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., failed_source_names: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSourcesRequest(_message.Message):
    __slots__ = ("scenario", "model_version")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    model_version: str
    def __init__(self, scenario: _Optional[str] = ..., model_version: _Optional[str] = ...) -> None: ...

class ListSourcesResponse(_message.Message):
    __slots__ = ("sources",)
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[Source]
    def __init__(self, sources: _Optional[_Iterable[_Union[Source, _Mapping]]] = ...) -> None: ...

class Source(_message.Message):
    __slots__ = ("name", "quota", "item_count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    quota: float
    item_count: int
    def __init__(self, name: _Optional[str] = ..., quota: _Optional[float] = ..., item_count: _Optional[int] = ...) -> None: ...
