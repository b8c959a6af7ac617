"""TLS handshakes that gRPC refused, as events: by reason, and by peer where gRPC tells.

gRPC ends such a connection inside its C core; neither handlers nor interceptors hear of it. It says
so on standard error alone, so that is where this listens. The peer's address is only in the lines of
gRPC's tracer ``handshaker``, which the environment must ask for before gRPC is imported; so does the
command ``fadelab server``.
"""

import asyncio
import contextlib
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator

from fadelab_proto.events import EventLog

# "I1121 23:19:48.009 7960 file.cc:110] ", as absl::log writes it.
_CORE_LINE = re.compile(rb"^[IWEF]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] ")
# What an entry of several lines goes on with.
_FURTHER_LINE = re.compile(rb"^(=== Source Location Trace: === *|src/core/\S+:\d+| shutdown=.*|)$")
_PLAIN = re.compile(rb"Handshake failed with error (.*)")
_TRACED = re.compile(rb"CallNextHandshakerLocked: error=(\S.*[Hh]andshake failed.*)")
_PEER = re.compile(rb"endpoint_peer_address=([^,}\s]+)")
_MOST_LINES = 8
"""A traced refusal spans a few lines; beyond these the search for the peer is given up."""

# BoringSSL's words, as far as they are not plain enough (openssl/ssl.h, err_data).
_SENTENCES = (
    (b"certificate has expired", "the client certificate has expired"),
    (b"certificate is not yet valid", "the client certificate is not valid yet"),
    (b"CERTIFICATE_VERIFY_FAILED", "the client certificate is of an authority unknown here"),
    (b"PEER_DID_NOT_RETURN_A_CERTIFICATE", "the client showed no certificate"),
    (b"WRONG_VERSION_NUMBER", "the client speaks no TLS"),
    (b"HTTP_REQUEST", "the client speaks no TLS"),
    (b"ALERT_UNKNOWN_CA", "the client does not know the authority of this server's certificate"),
    (b"ALERT_CERTIFICATE_EXPIRED", "the client finds this server's certificate expired"),
    (b"ALERT_BAD_CERTIFICATE", "the client does not accept this server's certificate"),
    (b"BAD_PACKET_LENGTH", "the client gave up in the middle of the handshake"),
)

Refused = Callable[[str, str | None], None]
"""Takes the reason and the peer's address, if known; called in another thread."""


def reason_in(words: bytes) -> str:
    """Return a sentence for what the TLS library said; its own words if it is none of the known."""
    for part, sentence in _SENTENCES:
        if part in words:
            return sentence
    return words.decode(errors="replace")


class HandshakeReader:
    """Find refused handshakes in the lines of gRPC's core.

    Args:
        refused: told of each.
        traced: whether the tracer ``handshaker`` is on; the lines that name no peer are then
            passed over, because each is followed by one that does.

    """

    def __init__(self, refused: Refused, *, traced: bool) -> None:
        self._refused = refused
        self._traced = traced
        self._reason: str | None = None
        self._lines_left = 0
        self._inside = False

    def take(self, line: bytes) -> bool:
        """Read one line; return whether it is gRPC's."""
        core = _CORE_LINE.match(line) is not None
        self._inside = core or (self._inside and _FURTHER_LINE.match(line) is not None)
        if core:
            self._look_for_refusal(line)
        if self._reason is not None:
            self._look_for_peer(line)
        return self._inside

    def _look_for_refusal(self, line: bytes) -> None:
        found = (_TRACED if self._traced else _PLAIN).search(line)
        if found:
            self._reason = reason_in(found[1])
            self._lines_left = _MOST_LINES if self._traced else 1

    def _look_for_peer(self, line: bytes) -> None:
        assert self._reason is not None
        peer = _PEER.search(line)
        self._lines_left -= 1
        if peer is not None or self._lines_left == 0:
            self._refused(self._reason, None if peer is None else peer[1].decode(errors="replace"))
            self._reason = None


@contextlib.contextmanager
def watching_handshakes(log: EventLog) -> Iterator[None]:
    """Write an event ``handshake_refused`` for each, until left; to be entered in the event loop.

    Standard error goes through a thread meanwhile: gRPC's own lines end there, all others go on.
    """
    traced = "handshaker" in os.environ.get("GRPC_TRACE", "").split(",")

    loop = asyncio.get_running_loop()
    heard: deque[tuple[str, str | None]] = deque()

    def write() -> None:
        while heard:
            reason, peer = heard.popleft()
            log.write("handshake_refused", reason=reason, peer=peer)

    def refused(reason: str, peer: str | None) -> None:
        heard.append((reason, peer))
        loop.call_soon_threadsafe(write)

    reader = HandshakeReader(refused, traced=traced)
    original = os.dup(2)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)
    thread = threading.Thread(
        target=_pump, args=(read_end, original, reader), name="handshakes", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        os.dup2(original, 2)  # closes the pipe's only other end, and so ends the thread
        thread.join()
        os.close(original)
        write()


def _pump(read_end: int, original: int, reader: HandshakeReader) -> None:
    with os.fdopen(read_end, "rb") as lines:
        for line in lines:
            if not reader.take(line):
                os.write(original, line)
