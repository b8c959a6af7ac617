"""Netlink requests and the socket that sends them in batches."""

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_ECHO = 0x8
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_DUMP = 0x300

CREATE = NLM_F_CREATE | NLM_F_EXCL
"""Make a new object; an existing one is an error."""
CREATE_OR_REPLACE = NLM_F_CREATE | NLM_F_REPLACE
CHANGE = 0
"""Alter an existing object in place; a missing one is an error."""

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_CAPPED = 0x100
_NLM_F_ACK_TLVS = 0x200
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF
_NLMSGERR_ATTR_MSG = 1

_SOL_NETLINK = 270
_ANSWER_TIMEOUT = struct.pack("@ll", 30, 0)
"""The kernel answers in microseconds; an answer still missing then will never come."""

_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHECK = 12
_SO_RCVBUFFORCE = 33

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_ACKNOWLEDGEMENT = struct.Struct("=IHHIIi")
"""Header and error number: all that matters of an answer that reports success."""

_RECEIVE_BYTES = 1 << 20
_BATCH_BYTES = 1 << 16
"""A send stays well below the default socket send buffer (208 KiB)."""
_QUERY_BATCH = 32
"""Replies of one batch must fit into the receive buffer before the first of them is read."""


class Request(NamedTuple):
    """One netlink request without its header."""

    operation: str
    """What it does, for the error message: ``"set rate"``."""
    kind: int
    """``RTM_*``."""
    flags: int
    """``NLM_F_*`` besides REQUEST and ACK."""
    body: bytes


class NetlinkError(OSError):
    """The kernel refused a request; says which one and, where the kernel does, why."""

    def __init__(self, number: int, operation: str, kernel_message: str) -> None:
        reason = os.strerror(number) + (f" ({kernel_message})" if kernel_message else "")
        super().__init__(number, f"cannot {operation}: {reason}")
        self.operation = operation
        self.kernel_message = kernel_message

    def __reduce__(self) -> tuple[type[Self], tuple[int | None, str, str]]:
        return type(self), (self.errno, self.operation, self.kernel_message)


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute: length, type, payload, padded to 4 bytes."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds other attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def string(kind: int, text: str) -> bytes:
    """Return an attribute that holds a zero-terminated string."""
    return attribute(kind, text.encode() + b"\0")


def unsigned(kind: int, value: int) -> bytes:
    """Return an attribute that holds a u32."""
    return attribute(kind, struct.pack("=I", value))


def attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, payload) of the attributes in ``data`` from ``offset`` on."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def find_attribute(data: bytes, offset: int, wanted: int) -> int:
    """Return where the payload of an attribute begins, from ``offset`` on.

    Raises ValueError where there is none. Answers with counters are read by the hundred at every
    tick: this makes nothing of the attributes it passes.
    """
    end = len(data) - 4
    while offset <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if kind & _NLA_TYPE_MASK == wanted:
            return offset + 4
        offset += max(4, (length + 3) & ~3)
    raise ValueError(f"the kernel's answer lacks attribute {wanted}")


# The kernel answers within the very call that asks, in microseconds. Python's own send and recv
# would hand the interpreter to another thread around each of them and queue up to get it back,
# which at a thousand links made a tick last seconds: these calls keep it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_libc.send.restype = ctypes.c_ssize_t
_libc.recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.recv.restype = ctypes.c_ssize_t


class _Buffers(threading.local):
    """One buffer for answers for each thread."""

    def __init__(self) -> None:
        self.answer = ctypes.create_string_buffer(_BATCH_BYTES)


_buffers = _Buffers()


def _os_error(operation: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{operation}: {os.strerror(number)}")


class NetlinkSocket:
    """A netlink socket, bound to the network namespace of the thread that creates it.

    It may be used from any one thread at a time afterwards. Raises OSError where the kernel does
    not know the protocol.
    """

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._descriptor = self._socket.fileno()
        self._socket.bind((0, 0))
        # A kernel timeout costs nothing; Python's own would poll before every receive.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _ANSWER_TIMEOUT)
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
        except PermissionError:  # root of a user namespace: the system's limit holds
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._sequence = 0

    def change(self, requests: Sequence[Request]) -> None:
        """Carry out all requests, many to one system call, and wait until the last is done.

        Raises NetlinkError for the first one that failed; the others have been carried out.
        """
        # Only the last message of a batch asks for an acknowledgement: the kernel works through a
        # batch in order and reports failures unasked, so that one answer tells all.
        batch: list[bytes] = []
        size = 0
        for index, (_, kind, flags, body) in enumerate(requests):
            self._sequence += 1
            length = _HEADER.size + len(body)
            size += length
            full = size >= _BATCH_BYTES or index == len(requests) - 1
            header_flags = flags | NLM_F_REQUEST | (NLM_F_ACK if full else 0)
            batch.append(_HEADER.pack(length, kind, header_flags, self._sequence, 0))
            batch.append(body)
            if full:
                self._send(b"".join(batch))
                self._await_end(requests, self._sequence - index, (self._sequence,))
                batch.clear()
                size = 0

    def commit(self, requests: Sequence[Request], begin: Request, end: Request) -> None:
        """Carry out all requests or none, between the two messages that enclose a transaction.

        Raises NetlinkError for the first one that failed; then nothing has been carried out.
        """
        # Only the last request asks for an acknowledgement, for older kernels give none for the
        # end; the answer to the beginning is an error of the transaction as a whole.
        first, last = self._sequence + 1, self._sequence + 1 + len(requests)
        frames: list[bytes] = []
        for _, kind, flags, body in (begin, *requests, end):
            self._sequence += 1
            acknowledge = NLM_F_ACK if self._sequence == last else 0
            length = _HEADER.size + len(body)
            header_flags = flags | NLM_F_REQUEST | acknowledge
            frames += (_HEADER.pack(length, kind, header_flags, self._sequence, 0), body)
        self._send(b"".join(frames))
        self._await_end((begin, *requests), first, (first, last))

    def query(self, requests: Sequence[Request]) -> list[bytes]:
        """Return the body of the one answer that each request gets, in order."""
        answers: list[bytes] = []
        for start in range(0, len(requests), _QUERY_BATCH):
            batch = requests[start : start + _QUERY_BATCH]
            self._send_queries(batch)
            answers.extend(self._read_answer(request) for request in batch)
        return answers

    def dump(self, request: Request) -> list[bytes]:
        """Return the bodies of all objects that ``request`` lists."""
        dump = request._replace(flags=request.flags | NLM_F_DUMP)
        self._send_queries([dump])
        found: list[bytes] = []
        while True:
            for kind, flags, _, body in _messages(self._receive()):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise _error(dump, flags, body)
                found.append(body)

    def join(self, group: int) -> None:
        """Have the kernel tell this socket of what happens, unasked."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def unasked(self) -> list[bytes]:
        """Return the bodies of what the kernel has told so far; never waits.

        Raises OSError (ENOBUFS) once if it had more to tell than there was room for.
        """
        found: list[bytes] = []
        while True:
            try:
                data = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            found += [body for _, _, _, body in _messages(data)]

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, data: bytes) -> None:
        if _libc.send(self._descriptor, data, len(data), 0) < 0:
            raise _os_error("send to the kernel")

    def _receive_into_buffer(self, flags: int = 0) -> int:
        size = _libc.recv(self._descriptor, _buffers.answer, _BATCH_BYTES, flags)
        if size < 0:
            raise _os_error("receive from the kernel")
        return int(size)

    def _receive(self, flags: int = 0) -> bytes:
        size = self._receive_into_buffer(flags)
        return ctypes.string_at(_buffers.answer, size)

    def _await_end(self, requests: Sequence[Request], base: int, final: tuple[int, ...]) -> None:
        """Read until one of the numbers ``final`` is answered; ``base`` numbers ``requests[0]``."""
        failure: NetlinkError | None = None
        while True:
            size = self._receive_into_buffer()
            _, kind, _, sequence, _, number = _ACKNOWLEDGEMENT.unpack_from(_buffers.answer)
            if kind == _NLMSG_ERROR and not number and failure is None and sequence in final:
                return
            for kind, flags, sequence, body in _messages(ctypes.string_at(_buffers.answer, size)):
                if kind != _NLMSG_ERROR:
                    continue
                if _ERROR.unpack_from(body)[0] and failure is None:
                    failure = _error(requests[sequence - base], flags, body)
                if sequence in final:
                    if failure is not None:
                        raise failure
                    return

    def _send_queries(self, requests: Sequence[Request]) -> None:
        batch: list[bytes] = []
        for _, kind, flags, body in requests:
            self._sequence += 1
            length = _HEADER.size + len(body)
            batch.append(_HEADER.pack(length, kind, flags | NLM_F_REQUEST, self._sequence, 0))
            batch.append(body)
        self._send(b"".join(batch))

    def _read_answer(self, request: Request) -> bytes:
        answer = self._receive()
        length, kind, flags, _, _ = _HEADER.unpack_from(answer)
        body = answer[_HEADER.size : length]
        if kind == _NLMSG_ERROR:
            raise _error(request, flags, body)
        return body


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence, body) of the messages in ``data``."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _error(request: Request, flags: int, body: bytes) -> NetlinkError:
    """Return the exception for an NLMSG_ERROR answer (error number, echoed header, attributes)."""
    number = -_ERROR.unpack_from(body)[0]
    text = ""
    if flags & _NLM_F_ACK_TLVS:
        echoed = _HEADER.size
        if not flags & _NLM_F_CAPPED:
            echoed = (_HEADER.unpack_from(body, 4)[0] + 3) & ~3
        for kind, payload in attributes(body, 4 + echoed):
            if kind == _NLMSGERR_ATTR_MSG:
                text = payload.rstrip(b"\0").decode(errors="replace")
    return NetlinkError(number, request.operation, text)
