"""How the agent knows its server and is known by it: TLS channels, and why a handshake failed."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Self

import grpc
from pydantic import Field, model_validator

from fadelab_proto.config import StrictModel
from fadelab_proto.tls import (
    ALPN,
    TrustError,
    certificate_problem,
    check_authority,
    check_pair,
    read_file,
    reason_of,
)
from fadelab_proto.wire import channel_options

# A handshake takes two round trips; a link that needs longer than this tells nothing about trust.
_PROBE_S = 10.0
_NO_TLS = ("wrong version number", "http request", "record layer failure", "packet length too long")


class HandshakeError(RuntimeError):
    """Agent and server do not trust each other; the message says why."""


class AgentTrust(StrictModel):
    """TLS to the server; `fadelab certs` makes these files."""

    ca: Path = Field(description="PEM file of the authority that signed the server's certificate.")
    certificate: Path | None = Field(
        None, description="PEM file with this device's certificate, for mutual TLS."
    )
    key: Path | None = Field(None, description="PEM file with its private key.")
    datagrams_in_clear: bool = Field(default=False, description="As in the server's configuration.")

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or neither")
        return self


class ServerDoor:
    """Open connections to the server, and say why it does not let this agent in.

    Args:
        address: HOST:PORT of the server.
        trust: TLS; plain text if None.

    Raises:
        TrustError: if a file is missing, or key and certificate do not belong together.

    """

    def __init__(self, address: str, trust: AgentTrust | None = None) -> None:
        self.address = address
        self._trust = trust
        self._credentials = None if trust is None else _credentials(trust)

    @property
    def secure(self) -> bool:
        """Whether connections are TLS."""
        return self._trust is not None

    def channel(self, dscp: int = 0) -> grpc.aio.Channel:
        """Return a new connection whose packets carry ``dscp``."""
        options = channel_options()
        if dscp:
            options.append(("grpc.dscp", dscp))
        if self._credentials is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        return grpc.aio.secure_channel(self.address, self._credentials, options=options)

    async def hopeless(self, channel: grpc.aio.Channel) -> NoReturn:
        """Wait until connections of ``channel`` fail for a reason that no waiting mends.

        gRPC tells a broken link from a refusal only in words for people, and a refused client
        certificate not at all. So each failure is followed by one handshake of the agent's own.

        Raises:
            HandshakeError: with the reason.

        """
        state = channel.get_state()
        while True:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                reason = await asyncio.to_thread(self.why_refused)
                if reason is not None:
                    raise HandshakeError(f"no connection to {self.address}: {reason}")
            await channel.wait_for_state_change(state)
            state = channel.get_state()

    def why_refused(self) -> str | None:
        """Return why server and agent do not trust each other; None if that is not the trouble."""
        try:
            return self._try_plain() if self._trust is None else self._try_tls(self._trust)
        except OSError:
            return None  # not reached, or lost on the way: that may mend

    def _try_plain(self) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(ALPN)
        try:
            with self._connected(context):
                pass
        except ssl.SSLError as error:
            if "alert" not in reason_of(error):
                return None
        return "the server speaks TLS, and this agent has no 'trust' in its file"

    def _try_tls(self, trust: AgentTrust) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(trust.ca)
        context.set_alpn_protocols(ALPN)
        if trust.certificate is not None:
            context.load_cert_chain(trust.certificate, trust.key)
        try:
            # Twice, because a server that was just ending would look the same once.
            if self._let_in(context) or self._let_in(context):
                return None
        except ssl.SSLCertVerificationError as error:
            return f"the server's certificate is not accepted: {reason_of(error)}"
        except ssl.SSLError as error:
            reason = reason_of(error)
            if reason in _NO_TLS:
                return "the server speaks no TLS"
            return f"the TLS handshake failed: {reason}" if "alert" in reason else None
        return _why_dropped(trust)

    def _let_in(self, context: ssl.SSLContext) -> bool:
        """Whether the server, whose certificate is accepted, begins to talk HTTP/2."""
        with self._connected(context) as connection:
            return bool(connection.recv(1))

    @contextlib.contextmanager
    def _connected(self, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        host, _, port = self.address.rpartition(":")
        host = host.strip("[]")
        with (
            socket.create_connection((host, int(port)), timeout=_PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            yield connection


def read_token(path: Path) -> str:
    """Return the join token in a file.

    Raises:
        TrustError: if the file cannot be read or is no token.

    """
    token = read_file(path, "join token").decode(errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TrustError(f"{path} holds no join token")
    return token


def _why_dropped(trust: AgentTrust) -> str:
    """Say why a server that was accepted closes the connection right after the handshake."""
    if trust.certificate is None or trust.key is None:
        return (
            "the server asks for a client certificate: give trust.certificate and trust.key "
            "in the agent's file"
        )
    problem = certificate_problem(trust.certificate, trust.key, trust.ca)
    if problem is None:
        problem = "it is of an authority that the server does not know"
    return f"the server does not accept the certificate {trust.certificate}: {problem}"


def _credentials(trust: AgentTrust) -> grpc.ChannelCredentials:
    check_authority(trust.ca)
    key = certificate = None
    if trust.certificate is not None and trust.key is not None:
        check_pair(trust.certificate, trust.key)
        key = read_file(trust.key, "key")
        certificate = read_file(trust.certificate, "certificate")
    return grpc.ssl_channel_credentials(
        read_file(trust.ca, "authority's certificate"), key, certificate
    )
