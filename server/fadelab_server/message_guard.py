"""Control messages that are no such messages: refused with a sentence and logged, not a traceback."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from fadelab_proto.events import EventLog
from fadelab_proto.wire import MAX_CONTROL_BYTES

# Quoted: at run time gRPC's class takes no parameters.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class MessageGuard:
    """Stands in for a server where services register, and has their requests parsed with care.

    Requests that are too long or broken are refused. gRPC's own answer to a broken message is a
    traceback in the server's log and "Internal error" for the peer. Messages above
    ``MAX_MESSAGE_BYTES`` never get here: gRPC refuses those itself. An interceptor could do the
    same, but is asked anew at each call, which costs every update tens of microseconds.

    Args:
        server: where the handlers are registered.
        log: is told of refusals.

    """

    def __init__(self, server: grpc.aio.Server, log: EventLog) -> None:
        self._server = server
        self._log = log

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register handlers that are found by asking for them; see ``grpc.aio.Server``."""
        self._server.add_generic_rpc_handlers([_Guarded(self, handler) for handler in handlers])

    def add_registered_method_handlers(
        self, service_name: str, handlers: Mapping[str, Handler]
    ) -> None:
        """Register handlers that are found by their name; see ``grpc.aio.Server``."""
        guarded = {
            name: self.guarded(f"/{service_name}/{name}", handler)
            for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service_name, guarded)

    def guarded(self, method: str, handler: Handler) -> Handler:
        """Return a method's handler, wrapped if it has one request to parse."""
        if handler.request_streaming or handler.request_deserializer is None:
            return handler
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


class _Guarded(grpc.GenericRpcHandler):
    """A service whose handlers are guarded, each when it is first asked for."""

    def __init__(self, guard: MessageGuard, service: grpc.GenericRpcHandler) -> None:
        self._guard = guard
        self._service = service
        self._known: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        method = str(handler_call_details.method)
        if method not in self._known:
            handler = self._service.service(handler_call_details)
            if handler is None:
                return None
            self._known[method] = self._guard.guarded(method, handler)
        return self._known[method]


def _single(answer: Any, parsed: Any) -> Any:
    async def guarded(data: bytes, context: Context) -> Any:
        return await answer(await parsed(data, context), context)

    return guarded


def _streaming(answer: Any, parsed: Any) -> Any:
    async def guarded(data: bytes, context: Context) -> AsyncIterator[Any]:
        async for reply in answer(await parsed(data, context), context):
            yield reply

    return guarded
