from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_VIEW: _ClassVar[EventKind]
    EVENT_KIND_CLICK: _ClassVar[EventKind]
    EVENT_KIND_PLAY: _ClassVar[EventKind]
    EVENT_KIND_LIKE: _ClassVar[EventKind]
    EVENT_KIND_CART: _ClassVar[EventKind]
    EVENT_KIND_PURCHASE: _ClassVar[EventKind]
    EVENT_KIND_RETURN: _ClassVar[EventKind]
    EVENT_KIND_RATING: _ClassVar[EventKind]
    EVENT_KIND_TAG: _ClassVar[EventKind]
    EVENT_KIND_FOLLOW: _ClassVar[EventKind]
    EVENT_KIND_DISMISS: _ClassVar[EventKind]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_VIEW: EventKind
EVENT_KIND_CLICK: EventKind
EVENT_KIND_PLAY: EventKind
EVENT_KIND_LIKE: EventKind
EVENT_KIND_CART: EventKind
EVENT_KIND_PURCHASE: EventKind
EVENT_KIND_RETURN: EventKind
EVENT_KIND_RATING: EventKind
EVENT_KIND_TAG: EventKind
EVENT_KIND_FOLLOW: EventKind
EVENT_KIND_DISMISS: EventKind
