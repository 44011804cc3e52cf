from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Rung(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUNG_UNSPECIFIED: _ClassVar[Rung]
    RUNG_POPULAR: _ClassVar[Rung]
    RUNG_RETRIEVAL: _ClassVar[Rung]
    RUNG_SCORER: _ClassVar[Rung]
    RUNG_RERANKER: _ClassVar[Rung]
RUNG_UNSPECIFIED: Rung
RUNG_POPULAR: Rung
RUNG_RETRIEVAL: Rung
RUNG_SCORER: Rung
RUNG_RERANKER: Rung
