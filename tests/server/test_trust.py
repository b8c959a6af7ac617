"""Who is let in by the server: certificates, join tokens, messages; and what it logs of the others."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import ValidationError
from tests.server.harness import Device, Running, join_request, logged, make_config, running
from tests.trusting import agent_trust, deployment, expire, server_trust, token

from fadelab_agent.trust import AgentTrust, ServerDoor
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.join_proof import join_proof, token_key
from fadelab_proto.tls import TrustError
from fadelab_proto.wire import MAX_CONTROL_BYTES, MAX_MESSAGE_BYTES
from fadelab_server.handshakes import HandshakeReader
from fadelab_server.sessions import JoinRefusedError

JOIN = "/fadelab.v1.Federation/Join"


@asynccontextmanager
async def trusting(folder: Path, **changes: Any) -> AsyncIterator[tuple[Running, Path]]:
    files = deployment(folder / "trust")
    async with running(make_config(folder, **(server_trust(files) | changes))) as server:
        yield server, files


def connected(server: Running, files: Path, number: int = 0, name: str = "device-0") -> Device:
    trust = AgentTrust.model_validate(agent_trust(files, name))
    channel = ServerDoor(f"127.0.0.1:{server.port}", trust).channel()
    server.channels.append(channel)
    return Device(channel, number)


async def challenged(device: Device, secret: str, **changes: Any) -> pb.JoinRequest:
    """Return a join that answers a challenge drawn for ``device``."""
    challenge = await device._federation.Challenge(pb.ChallengeRequest(device=device.number))
    request = join_request(device.number, nonce=challenge.nonce, **changes)
    request.proof = join_proof(token_key(secret), request)
    return request


async def answer(device: Device, request: pb.JoinRequest) -> pb.JoinReply:
    reply: pb.JoinReply = await device._federation.Join(request)
    return reply


def go(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def test_certificate_and_token_let_a_device_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trusting(tmp_path) as (server, files):
            device = connected(server, files)
            reply = await answer(device, await challenged(device, token(files)))
            assert reply.status == pb.JOIN_STATUS_ACCEPTED
            device.session = reply.session
            assert (await device.send(device.update())).status == pb.UPLOAD_STATUS_COMPLETE

    go(scenario())
    assert logged(tmp_path, "join_refused") == []


async def _no_proof(device: Device, files: Path) -> pb.JoinRequest:
    return join_request(0)


async def _wrong_token(device: Device, files: Path) -> pb.JoinRequest:
    return await challenged(device, token(files, device=1))


async def _replayed(device: Device, files: Path) -> pb.JoinRequest:
    request = await challenged(device, token(files))
    assert (await answer(device, request)).status == pb.JOIN_STATUS_ACCEPTED
    return request


async def _own_challenge(device: Device, files: Path) -> pb.JoinRequest:
    request = join_request(0, nonce=bytes(32))
    request.proof = join_proof(token_key(token(files)), request)
    return request


async def _changed_on_the_way(device: Device, files: Path) -> pb.JoinRequest:
    request = await challenged(device, token(files))
    request.device_key = 7
    return request


async def _other_devices_challenge(device: Device, files: Path) -> pb.JoinRequest:
    request = await challenged(device, token(files))
    request.device = 1
    request.proof = join_proof(token_key(token(files, device=1)), request)
    return request


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        (_no_proof, pb.JOIN_STATUS_WRONG_TOKEN, "asks for a join token; the agent has none"),
        (_wrong_token, pb.JOIN_STATUS_WRONG_TOKEN, "is not that of device 0"),
        (_changed_on_the_way, pb.JOIN_STATUS_WRONG_TOKEN, "is not that of device 0"),
        (_replayed, pb.JOIN_STATUS_STALE_CHALLENGE, "a join works once"),
        (_own_challenge, pb.JOIN_STATUS_STALE_CHALLENGE, "a join works once"),
        (_other_devices_challenge, pb.JOIN_STATUS_STALE_CHALLENGE, "device 1 may answer"),
    ],
)
def test_a_join_without_the_token_is_refused_on_both_sides(
    tmp_path: Path, spoil: Any, status: pb.JoinStatus.ValueType, reason: str
) -> None:
    async def scenario() -> None:
        # Tokens need no TLS: this is what a device without a certificate could try.
        async with trusting(tmp_path, trust=None) as (server, files):
            device = server.device()
            reply = await answer(device, await spoil(device, files))
            assert reply.status == status
            assert reason in reply.reason
            assert reply.session == 0

    go(scenario())
    (event,) = logged(tmp_path, "join_refused")
    assert event["status"] == pb.JoinStatus.Name(status)
    assert reason in event["reason"]
    assert event["peer"].startswith("ipv4:127.0.0.1:")


def test_a_refused_join_spends_its_challenge(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trusting(tmp_path, trust=None) as (server, files):
            device = server.device()
            request = await challenged(device, token(files, device=1))
            assert (await answer(device, request)).status == pb.JOIN_STATUS_WRONG_TOKEN
            request.proof = join_proof(token_key(token(files)), request)
            assert (await answer(device, request)).status == pb.JOIN_STATUS_STALE_CHALLENGE

    go(scenario())


def test_challenges_take_bounded_memory(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with trusting(tmp_path, trust=None) as (server, _):
            gatekeeper = server.server._gatekeeper
            first = gatekeeper.challenge(0)
            for _ in range(5000):
                gatekeeper.challenge(70000)
            assert len(gatekeeper._waiting) == 1024
            with pytest.raises(JoinRefusedError, match="a join works once"):
                gatekeeper.admit(join_request(0, nonce=first, proof=b"x"), {})

    go(scenario())


@pytest.mark.parametrize("name", ["device-1", "operator"])
def test_the_certificate_of_another_is_refused(tmp_path: Path, name: str) -> None:
    async def scenario() -> None:
        async with trusting(tmp_path) as (server, files):
            device = connected(server, files, name=name)
            reply = await answer(device, await challenged(device, token(files)))
            assert reply.status == pb.JOIN_STATUS_WRONG_CERTIFICATE
            assert reply.reason == f"the client certificate was made for {name}, not for device-0"

    go(scenario())
    assert [event["device"] for event in logged(tmp_path, "join_refused")] == [0]


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "not a message of this method"),
        (
            bytes(MAX_CONTROL_BYTES + 1),
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "65537 bytes; at most 65536",
        ),
    ],
)
def test_a_request_that_is_none_is_refused_on_both_sides(
    tmp_path: Path, message: bytes, code: grpc.StatusCode, reason: str
) -> None:
    async def scenario() -> None:
        async with trusting(tmp_path) as (server, files):
            connected(server, files)
            with pytest.raises(grpc.aio.AioRpcError, match=reason) as error:
                await server.channels[0].unary_unary(JOIN)(message)
            assert error.value.code() is code

    go(scenario())
    (event,) = logged(tmp_path, "message_refused")
    assert event["method"] == JOIN
    assert reason in event["reason"]
    assert event["peer"].startswith("ipv4:127.0.0.1:")


def test_what_is_longer_than_any_packet_is_refused_by_grpc_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            # A client that does not bound what it sends.
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.port}")
            server.channels.append(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as error:
                await channel.unary_unary(JOIN)(bytes(MAX_MESSAGE_BYTES + 1))
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    go(scenario())


def test_a_malformed_upload_is_logged_with_its_peer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            (reply,) = await server.device().upload([b"\xff\xff"])
            assert reply.status == pb.UPLOAD_STATUS_REFUSED_PACKET

    go(scenario())
    (event,) = logged(tmp_path, "stream_refused")
    assert event["status"] == "UPLOAD_STATUS_REFUSED_PACKET"
    assert event["peer"].startswith("ipv4:127.0.0.1:")


def test_datagrams_beside_tls_must_be_meant(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")
    changes = server_trust(files) | {"datagram_listen": "127.0.0.1:0"}
    with pytest.raises(ValidationError, match="TLS does not protect datagrams"):
        make_config(tmp_path, **changes)
    changes["trust"]["datagrams_in_clear"] = True
    assert make_config(tmp_path, **changes).datagram_listen is not None


def _broken(files: Path) -> None:
    (files / "server.pem").write_text("no certificate")


def _mixed_up(files: Path) -> None:
    (files / "server.key").write_bytes((files / "operator.key").read_bytes())


def _no_authority(files: Path) -> None:
    (files / "ca.pem").unlink()


def _not_all_tokens(files: Path) -> None:
    (files / "tokens.json").write_text('{"sha256": {"0": "%s"}}' % ("0" * 64))


def _no_tokens(files: Path) -> None:
    (files / "tokens.json").write_text('{"sha256": {"0": "secret"}}')


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_broken, "server.pem and .*server.key are not a certificate and its key"),
        (_mixed_up, "are not a certificate and its key: key values mismatch"),
        (_no_authority, "cannot read the authority's certificate .*No such file"),
        (_not_all_tokens, "has no join token of device 1"),
        (_no_tokens, "is not a file of join tokens: sha256.0"),
    ],
)
def test_files_that_cannot_be_used_stop_the_server_with_a_sentence(
    tmp_path: Path, spoil: Any, reason: str
) -> None:
    files = deployment(tmp_path / "trust")
    spoil(files)

    async def scenario() -> None:
        with pytest.raises(TrustError, match=reason):
            async with running(make_config(tmp_path, **server_trust(files))):
                pass

    go(scenario())


_PROGRAM = """
import sys
from fadelab_server import app
from fadelab_server.config import ServerConfig

def listening(port):
    sys.stderr.write("words of another library\\n")
    sys.stdout.write(f"{port}\\n")
    sys.stdout.flush()

config = ServerConfig.model_validate_json(sys.argv[1])
app.serve(config, listening=listening, watch_handshakes=True)
"""


def _knock(port: int, context: ssl.SSLContext | None) -> str:
    """Connect as a client that is not welcome; return its address once the server has hung up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        host, own_port = plain.getsockname()
        # Hanging up with bytes unread is a reset.
        with contextlib.suppress(ConnectionResetError):
            if context is None:
                plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                while plain.recv(4096):
                    pass
            else:
                with context.wrap_socket(plain) as secure:
                    while secure.recv(4096):
                        pass
    return f"ipv4:{host}:{own_port}"


def _client(files: Path | None) -> ssl.SSLContext:
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2"])
    if files is not None:
        context.load_cert_chain(files / "device-0.pem", files / "device-0.key")
    return context


@pytest.mark.parametrize("traced", [True, False])
def test_refused_handshakes_are_logged_by_reason_and_peer(tmp_path: Path, traced: bool) -> None:
    files = deployment(tmp_path / "trust")
    foreign = deployment(tmp_path / "foreign")
    expired = deployment(tmp_path / "expired")
    expire(expired, "device-0")
    (files / "authorities.pem").write_text(
        (files / "ca.pem").read_text() + (expired / "ca.pem").read_text()
    )
    clients = {
        "the client speaks no TLS": None,
        "the client showed no certificate": _client(None),
        "the client certificate is of an authority unknown here": _client(foreign),
        "the client certificate has expired": _client(expired),
    }
    changes = server_trust(files)
    changes["trust"]["client_ca"] = files / "authorities.pem"
    config = make_config(tmp_path, **changes)
    environment = os.environ | {"GRPC_VERBOSITY": "INFO"}
    environment["GRPC_TRACE"] = "handshaker" if traced else ""
    peers: dict[str, str] = {}

    async def scenario() -> None:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, config.model_dump_json()),
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
        )
        assert child.stdout is not None
        try:
            port = int(await child.stdout.readline())
            for reason, context in clients.items():
                peers[reason] = await asyncio.to_thread(_knock, port, context)
            child.send_signal(signal.SIGTERM)
            _, errors = await child.communicate()
            assert errors.decode() == "words of another library\n"
        finally:
            if child.returncode is None:
                child.kill()
                await child.communicate()

    go(scenario())
    events = logged(tmp_path, "handshake_refused")
    assert {event["reason"]: event["peer"] for event in events} == (
        peers if traced else dict.fromkeys(peers)
    )
    assert len(events) == len(clients)


def test_a_refusal_whose_peer_is_not_told_is_reported_without() -> None:
    heard: list[tuple[str, str | None]] = []
    reader = HandshakeReader(lambda reason, peer: heard.append((reason, peer)), traced=True)
    head = b"I1121 23:20:40.956865   15564 handshaker.cc:155] "
    line = b"CallNextHandshakerLocked: error=UNKNOWN: Ssl handshake failed: certificate has expired"
    assert reader.take(head + line + b": OK\n")
    for _ in range(20):
        reader.take(b"=== Source Location Trace: ===\n")
    assert heard == [("the client certificate has expired", None)]
    assert not reader.take(b"Traceback (most recent call last):\n")
