"""Agents and servers that do not trust each other: the agent ends with a sentence that says why."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.device_agent.agent_harness import FakeWork, agent_config, agent_events, go, until
from tests.server.harness import logged, make_config, running
from tests.trusting import agent_trust, deployment, expire, server_trust

from fadelab.certificates import make_certificates
from fadelab_agent.agent import Agent
from fadelab_agent.membership import RefusedError
from fadelab_agent.trust import AgentTrust, HandshakeError, ServerDoor
from fadelab_proto.clock import SystemClock
from fadelab_proto.tls import TrustError, certificate_problem

Changes = dict[str, Any]


async def take_part(folder: Path, port: int, **changes: Any) -> None:
    await Agent(agent_config(folder, port, **changes), [FakeWork()], SystemClock()).run()


def whole(files: Path, name: str | None = "device-0") -> Changes:
    return {"trust": agent_trust(files, name), "token": files / "device-0.token"}


def test_an_agent_with_certificate_and_token_takes_part(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = deployment(tmp_path / "trust")
        stop = {"duration_s": 3600, "max_versions": 3}
        async with running(make_config(tmp_path, stop=stop, **server_trust(files))) as server:
            classes = {"update": {"kind": "stream", "dscp": 10}}
            job = asyncio.create_task(
                take_part(tmp_path, server.port, classes=classes, **whole(files))
            )
            await until(server, lambda: bool(server.federation.sessions.alive(0.0)))
            server.federation.start(server.federation.clock.now_s())
            await job
            assert server.federation.tasks[0].store.newest.number == 3

    go(scenario)
    assert [event["update_id"] for event in agent_events(tmp_path, "upload_ended")][:2] == [1, 2]


def _expired_server(good: Path, other: Path) -> tuple[Changes, Changes]:
    expire(good, "server")
    return server_trust(good), {"trust": agent_trust(good)}


def _foreign_server(good: Path, other: Path) -> tuple[Changes, Changes]:
    return server_trust(good, mutual=False), {"trust": agent_trust(other, None)}


def _misnamed_server(good: Path, other: Path) -> tuple[Changes, Changes]:
    make_certificates(good / "misnamed", servers=["lab.example", "192.0.2.1"], devices=1, days=5)
    return server_trust(good / "misnamed", tokens=False), {"trust": agent_trust(good / "misnamed")}


def _plain_server(good: Path, other: Path) -> tuple[Changes, Changes]:
    return {}, {"trust": agent_trust(good)}


def _plain_agent(good: Path, other: Path) -> tuple[Changes, Changes]:
    return server_trust(good), {}


def _no_certificate(good: Path, other: Path) -> tuple[Changes, Changes]:
    return server_trust(good), {"trust": agent_trust(good, None)}


def _expired_certificate(good: Path, other: Path) -> tuple[Changes, Changes]:
    expire(good, "device-0")
    return server_trust(good), {"trust": agent_trust(good)}


def _foreign_certificate(good: Path, other: Path) -> tuple[Changes, Changes]:
    return server_trust(good), {"trust": agent_trust(other) | {"ca": good / "ca.pem"}}


def _unknown_authority(good: Path, other: Path) -> tuple[Changes, Changes]:
    server = server_trust(good)
    server["trust"]["client_ca"] = other / "ca.pem"
    return server, {"trust": agent_trust(good)}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (_expired_server, "the server's certificate is not accepted: certificate has expired"),
        (_foreign_server, "the server's certificate is not accepted: .*certificate"),
        (_misnamed_server, "mismatch, certificate is not valid for '127.0.0.1'"),
        (_plain_server, "the server speaks no TLS"),
        (_plain_agent, "the server speaks TLS, and this agent has no 'trust'"),
        (_no_certificate, "the server asks for a client certificate: give trust.certificate"),
        (
            _expired_certificate,
            "not accept the certificate .*device-0.pem: certificate has expired",
        ),
        (_foreign_certificate, "not accept the certificate .*device-0.pem: .*"),
        (_unknown_authority, "it is of an authority that the server does not know"),
    ],
)
def test_a_handshake_that_cannot_succeed_ends_the_agent_with_the_reason(
    tmp_path: Path, case: Callable[[Path, Path], tuple[Changes, Changes]], reason: str
) -> None:
    server_changes, agent_changes = case(
        deployment(tmp_path / "good"), deployment(tmp_path / "other")
    )

    async def scenario() -> None:
        async with running(make_config(tmp_path, **server_changes)) as server:
            with pytest.raises(HandshakeError, match=reason) as error:
                await take_part(tmp_path, server.port, **agent_changes)
            assert f"no connection to 127.0.0.1:{server.port}: " in str(error.value)

    go(scenario)
    assert agent_events(tmp_path, "joined") == []
    assert logged(tmp_path, "device_joined") == []


@pytest.mark.parametrize(
    ("server_keys", "agent_keys", "reason"),
    [
        ({"trust", "tokens"}, {"trust"}, "asks for a join token; the agent has none"),
        ({"tokens"}, {"token"}, None),
        ({"trust"}, {"trust", "token"}, "has a join token, but the server asks for none"),
    ],
)
def test_tokens_must_be_on_both_sides(
    tmp_path: Path, server_keys: set[str], agent_keys: set[str], reason: str | None
) -> None:
    files = deployment(tmp_path / "trust")
    server_changes = {k: v for k, v in server_trust(files).items() if k in server_keys}
    agent_changes = {k: v for k, v in whole(files).items() if k in agent_keys}

    async def scenario() -> None:
        async with running(make_config(tmp_path, **server_changes)) as server:
            job = asyncio.create_task(take_part(tmp_path, server.port, **agent_changes))
            if reason is None:
                await until(server, lambda: bool(server.federation.sessions.alive(0.0)))
                server.federation.stop("enough")
                await job
            else:
                with pytest.raises(RefusedError, match=reason):
                    await job

    go(scenario)


def test_an_agent_with_another_devices_token_is_refused(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")

    async def scenario() -> None:
        async with running(make_config(tmp_path, **server_trust(files))) as server:
            changes = whole(files) | {"token": files / "device-1.token"}
            with pytest.raises(RefusedError, match="join token is not that of device 0"):
                await take_part(tmp_path, server.port, **changes)

    go(scenario)
    assert [event["status"] for event in logged(tmp_path, "join_refused")] == [
        "JOIN_STATUS_WRONG_TOKEN"
    ]


def test_a_challenge_that_was_forgotten_is_asked_for_anew(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")

    async def scenario() -> None:
        async with running(make_config(tmp_path, **server_trust(files))) as server:
            gatekeeper = server.server._gatekeeper
            draw = gatekeeper.challenge
            drawn: list[bytes] = []

            def forgetful(device: int) -> bytes:
                drawn.append(draw(device))
                if len(drawn) < 3:
                    gatekeeper._waiting.clear()
                return drawn[-1]

            gatekeeper.challenge = forgetful  # type: ignore[method-assign]
            job = asyncio.create_task(take_part(tmp_path, server.port, **whole(files)))
            await until(server, lambda: bool(server.federation.sessions.alive(0.0)))
            assert len(set(drawn)) == 3
            server.federation.stop("enough")
            await job

    go(scenario)


def test_a_server_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def scenario() -> None:
        door = ServerDoor(
            f"127.0.0.1:{port}", AgentTrust.model_validate(agent_trust(files, "device-0"))
        )
        assert door.why_refused() is None
        job = asyncio.create_task(take_part(tmp_path, port, **whole(files)))
        config = make_config(tmp_path, **server_trust(files), listen=f"127.0.0.1:{port}")
        async with door.channel() as channel:
            # A failure to connect is no refusal: this returns only if somebody calls it one.
            hopeless = asyncio.create_task(door.hopeless(channel))
            channel.get_state(try_to_connect=True)
            while (state := channel.get_state()).name != "TRANSIENT_FAILURE":
                await channel.wait_for_state_change(state)
            async with running(config) as server:
                await until(server, lambda: bool(server.federation.sessions.alive(0.0)))
                assert not hopeless.done()
                hopeless.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await hopeless
                server.federation.stop("enough")
                await job

    go(scenario)


def test_a_link_that_breaks_during_the_handshake_is_no_refusal(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")
    trust = AgentTrust.model_validate(agent_trust(files))

    async def scenario() -> None:
        async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        server = await asyncio.start_server(cut, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for door in (ServerDoor(f"127.0.0.1:{port}", trust), ServerDoor(f"127.0.0.1:{port}")):
            assert await asyncio.to_thread(door.why_refused) is None
        server.close()

    go(scenario)


def test_a_certificate_is_checked_as_the_server_would(tmp_path: Path) -> None:
    good, old = deployment(tmp_path / "good"), deployment(tmp_path / "old")
    expire(old, "device-0")

    def problem(files: Path, name: str, authority: Path) -> str | None:
        return certificate_problem(files / f"{name}.pem", files / f"{name}.key", authority)

    assert problem(good, "device-0", good / "ca.pem") is None
    assert problem(old, "device-0", old / "ca.pem") == "certificate has expired"
    assert "issuer" in str(problem(good, "device-0", old / "ca.pem"))
    assert "purpose" in str(problem(good, "server", good / "ca.pem"))


def test_datagrams_beside_tls_must_be_meant(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")
    changes: Changes = {"classes": {"update": {"kind": "datagrams"}}, "trust": agent_trust(files)}
    with pytest.raises(ValidationError, match=r"the class 'update' .* TLS does not protect them"):
        agent_config(tmp_path, 1, **changes)
    changes["trust"]["datagrams_in_clear"] = True
    assert agent_config(tmp_path, 1, **changes).classes.datagrams()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    files = deployment(tmp_path / "trust")

    def run(**changes: Any) -> None:
        go(lambda: take_part(tmp_path, 1, **changes))

    with pytest.raises(ValidationError, match="certificate and key belong together"):
        agent_config(tmp_path, 1, trust={"ca": files / "ca.pem", "key": files / "device-0.key"})
    with pytest.raises(TrustError, match="are not a certificate and its key"):
        run(trust=agent_trust(files) | {"key": files / "device-1.key"})
    with pytest.raises(TrustError, match=r"the authority's certificate .*missing\.pem"):
        run(trust={"ca": files / "missing.pem"})
    with pytest.raises(TrustError, match="holds no certificate"):
        run(trust={"ca": files / "tokens.json"})
    with pytest.raises(TrustError, match="holds no join token"):
        run(token=files / "tokens.json")
