"""Control messages that are no such messages: refused with a sentence and logged, not a traceback."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from fadelab_proto.events import EventLog
from fadelab_proto.wire import MAX_CONTROL_BYTES

# Quoted: at run time gRPC's class takes no parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class MessageGuard(grpc.aio.ServerInterceptor):
    """Parse the requests of calls with one request, and refuse those that are too long or broken.

    gRPC's own answer to a broken message is a traceback in the server's log and "Internal error"
    for the peer. Messages above ``MAX_MESSAGE_BYTES`` never get here: gRPC refuses those itself.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Give the call's handler, wrapped if it has one request to parse."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        method = str(handler_call_details.method)
        parse = handler.request_deserializer

        async def parsed(data: bytes, context: Context) -> Any:
            if len(data) > MAX_CONTROL_BYTES:
                await self._refuse(
                    context,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    method,
                    f"a request of {len(data)} bytes; at most {MAX_CONTROL_BYTES} are allowed",
                )
            try:
                return parse(data)
            except DecodeError as error:
                await self._refuse(
                    context,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    method,
                    f"the request is not a message of this method: {error}",
                )

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(handler.unary_stream, parsed),
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _single(handler.unary_unary, parsed), response_serializer=handler.response_serializer
        )

    async def _refuse(
        self, context: Context, code: grpc.StatusCode, method: str, reason: str
    ) -> NoReturn:
        self._log.write("message_refused", method=method, peer=context.peer(), reason=reason)
        await context.abort(code, reason)


def _single(answer: Any, parsed: Any) -> Any:
    async def guarded(data: bytes, context: Context) -> Any:
        return await answer(await parsed(data, context), context)

    return guarded


def _streaming(answer: Any, parsed: Any) -> Any:
    async def guarded(data: bytes, context: Context) -> AsyncIterator[Any]:
        async for reply in answer(await parsed(data, context), context):
            yield reply

    return guarded
