"""Who may call: the identities in clients' certificates against a server's list."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

_NAMES = ("x509_subject_alternative_name", "x509_common_name")
# Probes and balancers ask for health with certificates of their own, and learn nothing else from it.
_OPEN_PREFIX = "/grpc.health.v1.Health/"


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> set[str]:
    """The names in a peer's certificate; empty without one."""
    return {name.decode(errors="replace") for key in _NAMES for name in auth_context.get(key, ())}


class CallersInterceptor(grpc.aio.ServerInterceptor):
    """PERMISSION_DENIED for clients none of whose names is allowed. Health checks are let through."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_OPEN_PREFIX):
            return handler

        async def check(context: Any) -> None:
            names = identities(context.auth_context())
            if not names & self._allowed:
                known = ", ".join(sorted(names)) or "no name"
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED,
                    f"the client certificate names {known}; add one of these to server.allowed_clients",
                )

        if handler.response_streaming:
            stream = handler.unary_stream or handler.stream_stream

            async def answer_stream(request: Any, context: Any) -> Any:
                await check(context)
                async for response in stream(request, context):
                    yield response

            make = (
                grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
            )
            return make(answer_stream, handler.request_deserializer, handler.response_serializer)

        unary = handler.unary_unary or handler.stream_unary

        async def answer(request: Any, context: Any) -> Any:
            await check(context)
            return await unary(request, context)

        make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)
