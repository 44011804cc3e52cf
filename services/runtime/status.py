"""Domain errors as gRPC statuses: one table, one interceptor."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from services.runtime import errors

log = logging.getLogger(__name__)

# The nearest class in an error's ancestry decides.
STATUS_BY_ERROR: dict[type[Exception], grpc.StatusCode] = {
    errors.InvalidFieldError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.NotReadyError: grpc.StatusCode.UNAVAILABLE,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.SetupError: grpc.StatusCode.FAILED_PRECONDITION,
}

INTERNAL_TEXT = "internal error; quote the request_id to the operators"


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """The status and the message a client sees for `error`. An unknown error leaks nothing of itself."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[ancestor], str(error)
    return grpc.StatusCode.INTERNAL, INTERNAL_TEXT


async def _fail(context: Any, error: Exception, method: str) -> None:
    code, message = status_of(error)
    if code is grpc.StatusCode.INTERNAL:
        log.exception("unexpected error in %s", method, exc_info=error)
    if isinstance(error, errors.TryLaterError):
        context.set_trailing_metadata((("retry-after-ms", str(error.retry_after_ms)),))
    await context.abort(code, message)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns every exception that a servicer lets out into its status."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method

        if handler.response_streaming:
            stream = handler.unary_stream or handler.stream_stream

            async def answer_stream(request: Any, context: Any) -> AsyncIterator[Any]:
                try:
                    async for response in stream(request, context):
                        yield response
                except (grpc.aio.AbortError, asyncio.CancelledError, GeneratorExit):
                    raise
                except Exception as error:
                    await _fail(context, error, method)

            make = (
                grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.stream_stream_rpc_method_handler
            )
            return make(answer_stream, handler.request_deserializer, handler.response_serializer)

        unary = handler.unary_unary or handler.stream_unary

        async def answer(request: Any, context: Any) -> Any:
            try:
                return await unary(request, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:
                await _fail(context, error, method)

        make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.stream_unary_rpc_method_handler
        return make(answer, handler.request_deserializer, handler.response_serializer)
