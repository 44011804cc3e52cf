"""Calls to a running mesh: stubs on blocking channels, addresses from the state folder, errors as one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from services.cli.state import StateFolder, read_up_info
from services.runtime.certificates import read_certificate
from services.runtime.config import TlsSettings
from services.runtime.errors import RecmeshError, SetupError

CALL_S = 10.0
"""Most seconds that a command waits for an answer."""
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class CallError(RecmeshError):
    """A call to a service failed; the message says which and why."""


def find_address(service: str, state: Path, address: str | None) -> str:
    """`address` where given, else where the state folder says the service listens. SetupError when nothing runs."""
    return address or read_up_info(StateFolder(state)).processes[service].address


def check_loopback(address: str, command: str) -> None:
    """SetupError when the address is on another machine, which `command` must not load."""
    if address.rsplit(":", 1)[0] not in LOOPBACK:
        raise SetupError(f"{address}: {command} loads this machine only; run it where `recmesh up` runs")


@contextmanager
def open_stub(make_stub: Any, address: str, tls: TlsSettings | None = None) -> Iterator[Any]:
    """A stub at `address`, over mutual TLS where given. CallError in place of gRPC's error when a call on it fails."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)]
    if tls is None:
        opened = grpc.insecure_channel(address, options=options)
    else:
        opened = grpc.secure_channel(address, read_certificate(tls).channel_credentials(), options=options)
    with opened as channel:
        try:
            yield make_stub(channel)
        except grpc.RpcError as error:
            raise CallError(describe(error, address)) from None


def describe(error: Any, address: str) -> str:
    """A failed call in one line."""
    code, details = error.code(), " ".join((error.details() or "").split())
    if code is grpc.StatusCode.UNAVAILABLE:
        return f"{address} is not available: {details or 'no details'}; is it running? (`recmesh status`)"
    return f"{code.name}: {details}"
