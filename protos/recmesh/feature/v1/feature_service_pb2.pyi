from recmesh.type.v1 import history_pb2 as _history_pb2
from recmesh.type.v1 import item_pb2 as _item_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetUserFeaturesRequest(_message.Message):
    __slots__ = ("scenario", "user_id", "history_count")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_COUNT_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    history_count: int
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ..., history_count: _Optional[int] = ...) -> None: ...

class GetUserFeaturesResponse(_message.Message):
    __slots__ = ("found", "attributes", "history", "seen_item_ids", "dismissed_item_ids", "event_counts", "log_offset", "interests")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class EventCountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    FOUND_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    SEEN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    DISMISSED_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LOG_OFFSET_FIELD_NUMBER: _ClassVar[int]
    INTERESTS_FIELD_NUMBER: _ClassVar[int]
    found: bool
    attributes: _containers.ScalarMap[str, str]
    history: _history_pb2.History
    seen_item_ids: _containers.RepeatedScalarFieldContainer[str]
    dismissed_item_ids: _containers.RepeatedScalarFieldContainer[str]
    event_counts: _containers.ScalarMap[str, int]
    log_offset: int
    interests: Interests
    def __init__(self, found: _Optional[bool] = ..., attributes: _Optional[_Mapping[str, str]] = ..., history: _Optional[_Union[_history_pb2.History, _Mapping]] = ..., seen_item_ids: _Optional[_Iterable[str]] = ..., dismissed_item_ids: _Optional[_Iterable[str]] = ..., event_counts: _Optional[_Mapping[str, int]] = ..., log_offset: _Optional[int] = ..., interests: _Optional[_Union[Interests, _Mapping]] = ...) -> None: ...

class Interests(_message.Message):
    __slots__ = ("categories", "weights")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    weights: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, categories: _Optional[_Iterable[str]] = ..., weights: _Optional[_Iterable[float]] = ...) -> None: ...

class BatchGetItemFeaturesRequest(_message.Message):
    __slots__ = ("scenario", "item_ids")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scenario: _Optional[str] = ..., item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchGetItemFeaturesResponse(_message.Message):
    __slots__ = ("items", "missing_item_ids")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    MISSING_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_item_pb2.Item]
    missing_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[_Union[_item_pb2.Item, _Mapping]]] = ..., missing_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UpsertItemsRequest(_message.Message):
    __slots__ = ("scenario", "items")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    items: _containers.RepeatedCompositeFieldContainer[_item_pb2.Item]
    def __init__(self, scenario: _Optional[str] = ..., items: _Optional[_Iterable[_Union[_item_pb2.Item, _Mapping]]] = ...) -> None: ...

class UpsertItemsResponse(_message.Message):
    __slots__ = ("changed_count", "unchanged_count")
    CHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    changed_count: int
    unchanged_count: int
    def __init__(self, changed_count: _Optional[int] = ..., unchanged_count: _Optional[int] = ...) -> None: ...

class UpsertUsersRequest(_message.Message):
    __slots__ = ("scenario", "users")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    users: _containers.RepeatedCompositeFieldContainer[User]
    def __init__(self, scenario: _Optional[str] = ..., users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("user_id", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, user_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UpsertUsersResponse(_message.Message):
    __slots__ = ("upserted_count",)
    UPSERTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    upserted_count: int
    def __init__(self, upserted_count: _Optional[int] = ...) -> None: ...

class TailItemsRequest(_message.Message):
    __slots__ = ("scenario", "after_offset")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    AFTER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    after_offset: int
    def __init__(self, scenario: _Optional[str] = ..., after_offset: _Optional[int] = ...) -> None: ...

class TailItemsResponse(_message.Message):
    __slots__ = ("items", "offset", "latest_offset")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LATEST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[_item_pb2.Item]
    offset: int
    latest_offset: int
    def __init__(self, items: _Optional[_Iterable[_Union[_item_pb2.Item, _Mapping]]] = ..., offset: _Optional[int] = ..., latest_offset: _Optional[int] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("scenario", "user_id")
    SCENARIO_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    scenario: str
    user_id: str
    def __init__(self, scenario: _Optional[str] = ..., user_id: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ("removed_count",)
    REMOVED_COUNT_FIELD_NUMBER: _ClassVar[int]
    removed_count: int
    def __init__(self, removed_count: _Optional[int] = ...) -> None: ...
