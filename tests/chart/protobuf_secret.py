"""Reads the Secrets that Helm keeps releases in, from the protobuf that its client sends for built-in kinds."""

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\x00"


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the length-delimited fields of a message; numbers are skipped."""

    def varint(place: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[place]
            value |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                return value, place

    place = 0
    while place < len(data):
        tag, place = varint(place)
        size, after = varint(place)
        if tag & 7 == 2:
            yield tag >> 3, data[after : after + size]
            place = after + size
        elif tag & 7 == 0:
            place = after
        else:
            raise ValueError(f"field {tag >> 3} has wire type {tag & 7}, which no Secret has")


def _map(entries: list[bytes]) -> dict[str, bytes]:
    pairs = [dict(_fields(entry)) for entry in entries]
    return {pair.get(1, b"").decode(): pair.get(2, b"") for pair in pairs}


def read_secret(body: bytes) -> dict[str, Any]:
    """The Secret in `body` as its JSON form. ValueError when it holds another kind."""
    envelope = dict(_fields(body.removeprefix(MAGIC)))
    if dict(_fields(envelope[1])).get(2) != b"Secret":
        raise ValueError(f"the double reads Secrets only, not {envelope[1]!r}")
    secret = list(_fields(envelope[2]))
    metadata = list(_fields(next(content for number, content in secret if number == 1)))
    texts = {number: content.decode() for number, content in metadata if number in (1, 3)}
    labels = _map([content for number, content in metadata if number == 11])
    data = _map([content for number, content in secret if number == 2])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": texts[1],
            "namespace": texts.get(3, ""),
            "labels": {key: value.decode() for key, value in labels.items()},
        },
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        "type": next((content.decode() for number, content in secret if number == 3), "Opaque"),
    }
