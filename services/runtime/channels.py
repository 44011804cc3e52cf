"""Channels to other services: balanced, retried, and within the caller's deadline."""

import contextvars
import json
import time
from typing import Any

import grpc
import grpc.aio

from services.runtime import tracing
from services.runtime.certificates import CertificateFiles
from services.runtime.config import ClientSettings, TlsSettings
from services.runtime.errors import DeadlineError
from services.runtime.log import request_id_var
from services.runtime.renewed_channel import RenewedChannel

REQUEST_ID_KEY = "x-request-id"

# time.monotonic() at which the call being answered must be done; infinity when the client set no deadline.
deadline_var: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=float("inf"))

_SERVICE_CONFIG = {
    "loadBalancingConfig": [
        {
            "outlier_detection_experimental": {
                "interval": "2s",
                "baseEjectionTime": "5s",
                "maxEjectionPercent": 50,
                "failurePercentageEjection": {
                    "threshold": 50, "enforcementPercentage": 100, "minimumHosts": 2, "requestVolume": 10,
                },
                "childPolicy": [{"round_robin": {}}],
            }
        }
    ],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                # Below 5 ms the C core can report DEADLINE_EXCEEDED too early.
                "initialBackoff": "0.010s",
                "maxBackoff": "0.100s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}  # fmt: skip

_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    # Of two processes that are replaced one after the other, one must be connected again when the other goes.
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
]


def open_channel(client: ClientSettings, tls: TlsSettings | None = None) -> grpc.aio.Channel:
    """A lazily connecting channel: round robin over all addresses, retries on UNAVAILABLE, outlier ejection. A
    certificate that is replaced on disk is used from then on. SetupError for a certificate that cannot be used."""
    interceptors: Any = tracing.client_interceptors() or None
    if tls is None:
        return grpc.aio.insecure_channel(client.address, options=_OPTIONS, interceptors=interceptors)

    def make(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(client.address, credentials, options=_OPTIONS, interceptors=interceptors)

    return RenewedChannel(make, CertificateFiles(tls))


def time_left_s() -> float:
    """Seconds until the deadline of the call being answered; infinity without one."""
    return deadline_var.get() - time.monotonic()


def call_options(limit_s: float) -> dict[str, Any]:
    """Keyword arguments for a stub call: at most `limit_s` seconds, never past our own caller's deadline.

    Raises DeadlineError when no time is left, so that work past its deadline is not started.
    """
    timeout = min(limit_s, time_left_s())
    if timeout <= 0:
        raise DeadlineError("the deadline passed before the call could be made")
    request_id = request_id_var.get()
    return {"timeout": timeout, "metadata": ((REQUEST_ID_KEY, request_id),) if request_id else None}
