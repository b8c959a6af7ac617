"""A new agent process goes on with the update that a killed one had under way."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.device_agent.agent_harness import (
    LARGE,
    FakeWork,
    agent_events,
    go,
    large_config,
    proxied,
    until,
)
from tests.server.harness import (
    DIMENSION,
    LAYOUT,
    RUN,
    SAMPLES,
    Running,
    Update,
    initial_vector,
    logged,
    make_config,
    newest,
    running,
)

from fadelab_agent.agent import Agent
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.encoded_update import UpdateIdentity, encode_update
from fadelab_agent.membership import RefusedError
from fadelab_agent.settling import settled
from fadelab_agent.spool import Owner, Spool, Spooled, SpoolError
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import TopK

F32 = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[2]
OWNER = Owner(
    run_id=RUN,
    device=0,
    task="digits",
    dimension=DIMENSION,
    layout_hash=LAYOUT,
    memory="ErrorMemory",
)
KEPT = 200
"""Entries of the update that was under way: it takes several packets."""


def spool_of(folder: Path) -> Spool:
    return Spool(folder / "state" / "digits.spool", OWNER)


def leave(folder: Path, *, update_id: int = 1, base_version: int = 0) -> Spooled:
    """Leave what an agent leaves that is killed when it begins to send an update."""
    state = FakeWork().delta(3) + np.float32(0.25)
    draw = np.random.default_rng(0)
    encoding = TopK(KEPT).encode(state, max_payload_bytes=256, generator=draw)
    identity = UpdateIdentity(
        run_id=RUN,
        device=0,
        session=1,
        task_index=0,
        update_id=update_id,
        base_version=base_version,
        dimension=DIMENSION,
        samples=SAMPLES,
    )
    left = Spooled(
        encode_update(identity, encoding), state, encoding.nominal_bits, encoding.coded_bits
    )
    (folder / "state").mkdir()
    spool_of(folder).write(left)
    return left


async def sent_before(
    server: Running, left: Spooled, packets: list[int], *, closes: bool = False
) -> None:
    """Do at the server what the killed agent did before its end."""
    device = server.device()
    reply = await device.join()
    left.update.header.session = reply.session
    update = Update(left.update.header, list(left.update.packets))
    messages = update.messages(packets)
    if closes:
        messages.append(b"\x1a\x00")  # UploadPart.close, an empty message
    await device.upload(messages)
    server.federation.sessions.alive(0)[0].ever_streamed = True


def config_of(folder: Path, port: int, **changes: Any) -> AgentConfig:
    settings: dict[str, Any] = {
        "run_id": RUN,
        "device": 0,
        "server": f"127.0.0.1:{port}",
        "events_dir": folder / "events",
        "state_dir": folder / "state",
        "policy": {"kind": "topk", "fraction": 1 / 3},
        "max_payload_bytes": 512,
    }
    return AgentConfig.model_validate(settings | changes)


def agent(config: AgentConfig, work: FakeWork | None = None) -> Agent:
    return Agent(config, [work or FakeWork()], SystemClock())


async def run_to_the_end(folder: Path, server: Running) -> list[dict[str, Any]]:
    """Run a new agent; return how its uploads ended."""
    server.federation.start(server.federation.clock.now_s())
    await agent(config_of(folder, server.port)).run()
    # The end of the run may be heard before the last update's.
    return agent_events(folder, "upload_ended")


def ends_at(versions: int) -> dict[str, Any]:
    return {"duration_s": 3600, "max_versions": versions}


def kept_of(folder: Path, update_id: int) -> F32:
    """Return what the device had to send when it sent its last update, which has this number."""
    spooled = spool_of(folder).read()
    assert spooled is not None
    assert spooled.update.header.update_id == update_id
    assert spooled.state is not None
    return spooled.state


def test_packets_that_the_server_lacks_are_sent_and_no_others(tmp_path: Path) -> None:
    left = leave(tmp_path)

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(1))) as server:
            await sent_before(server, left, [1])
            (ended,) = await run_to_the_end(tmp_path, server)
            assert ended["update_id"] == 1
            assert ended["packets_sent"] == len(left.update.packets) - 1 > 1
            assert (ended["nominal_bits"], ended["coded_bits"]) == (
                left.nominal_bits,
                left.coded_bits,
            )
            (taken,) = logged(tmp_path, "upload_complete")
            assert taken["duplicates"] == 0
            assert not logged(tmp_path, "upload_abandoned")
        (resumed,) = agent_events(tmp_path, "update_resumed")
        assert resumed["packets"] == len(left.update.packets)
        assert not agent_events(tmp_path, "trained")

    go(scenario)


def test_an_update_that_was_taken_meanwhile_is_settled(tmp_path: Path) -> None:
    left = leave(tmp_path)
    assert left.state is not None

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(2))) as server:
            await sent_before(server, left, list(range(len(left.update.packets))))
            first, second = (await run_to_the_end(tmp_path, server))[:2]
            assert (first["status"], first["packets_sent"]) == ("UPLOAD_STATUS_DUPLICATE", 0)
            assert second["update_id"] == 2

    go(scenario)
    rest = left.state - settled(left.update.chunks(), left.state, None)
    np.testing.assert_array_equal(kept_of(tmp_path, 2), rest + FakeWork().delta(2))


def test_of_an_update_taken_in_part_the_rest_stays(tmp_path: Path) -> None:
    left = leave(tmp_path)
    assert left.state is not None

    async def scenario() -> None:
        config = make_config(tmp_path, stop=ends_at(2), partial_updates="keep")
        async with running(config) as server:
            await sent_before(server, left, [0, 2], closes=True)
            assert server.federation.tasks[0].updates == 1
            first, second = (await run_to_the_end(tmp_path, server))[:2]
            assert (first["status"], first["packets_sent"]) == ("UPLOAD_STATUS_CLOSED", 0)
            assert second["update_id"] == 2

    go(scenario)
    rest = left.state - settled(left.update.chunks([0, 2]), left.state, None)
    np.testing.assert_array_equal(kept_of(tmp_path, 2), rest + FakeWork().delta(2))


def test_of_an_update_whose_base_is_gone_everything_stays(tmp_path: Path) -> None:
    left = leave(tmp_path, base_version=5)
    assert left.state is not None

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(1))) as server:
            first, second = (await run_to_the_end(tmp_path, server))[:2]
            assert first["status"] == "UPLOAD_STATUS_REFUSED_BASE_VERSION"
            assert second["update_id"] == 2

    go(scenario)
    np.testing.assert_array_equal(kept_of(tmp_path, 2), left.state + FakeWork().delta(2))


def test_what_the_server_has_left_behind_is_set_aside(tmp_path: Path) -> None:
    leave(tmp_path, update_id=2)

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(2))) as server:
            device = server.device()
            await device.join()
            await device.send(device.update(update_id=3))
            server.federation.sessions.alive(0)[0].ever_streamed = True
            (ended,) = await run_to_the_end(tmp_path, server)
            assert ended["update_id"] == 4
        (aside,) = agent_events(tmp_path, "spool_set_aside")
        assert aside["cause"] == "it holds update 2, and the server has update 3"

    go(scenario)
    np.testing.assert_array_equal(kept_of(tmp_path, 4), FakeWork().delta(4))


def test_a_damaged_file_is_set_aside_and_the_device_begins_anew(tmp_path: Path) -> None:
    leave(tmp_path)
    path = spool_of(tmp_path).path
    path.write_bytes(path.read_bytes()[:-1])

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(1))) as server:
            (ended,) = await run_to_the_end(tmp_path, server)
            assert ended["update_id"] == 1
        (aside,) = agent_events(tmp_path, "spool_set_aside")
        assert aside["cause"] == "it is damaged: its checksum does not match"
        assert (tmp_path / "state" / "digits.spool.aside").exists()

    go(scenario)


def test_a_disk_that_is_full_ends_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Spool, spooled: Spooled) -> int:
        raise SpoolError("no room")

    monkeypatch.setattr(Spool, "write", refuse)

    async def scenario() -> None:
        async with running(make_config(tmp_path, stop=ends_at(2))) as server:
            ended = await run_to_the_end(tmp_path, server)
            assert [e["update_id"] for e in ended] == [1, 2]
        failed = agent_events(tmp_path, "spool_failed")
        assert [(e["update_id"], e["cause"]) for e in failed] == [(1, "no room"), (2, "no room")]

    go(scenario)


_PROGRAM = """
import asyncio, sys
from fadelab_agent.agent import run_agent
from fadelab_agent.agent_config import AgentConfig
from tests.device_agent.agent_harness import LARGE, FakeWork

asyncio.run(run_agent(AgentConfig.model_validate_json(sys.argv[1]), [FakeWork(LARGE)]))
"""


async def killed(config: AgentConfig, when: asyncio.Event) -> None:
    """Run an agent process until an event, and kill it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PROGRAM, config.model_dump_json(), stderr=PIPE, cwd=ROOT
    )
    try:
        await asyncio.wait_for(when.wait(), 30)
    finally:
        child.kill()
        await child.communicate()


def test_an_agent_killed_on_a_connection_that_stays_is_followed_at_once(tmp_path: Path) -> None:
    """The server never hears of the first agent's end, as when its device changes its address."""

    async def scenario() -> None:
        async with (
            running(large_config(tmp_path, stop=ends_at(3))) as server,
            proxied(server, hold_up=30_000) as (proxy, _),
        ):
            dense = {"policy": {"kind": "dense"}}
            first = config_of(tmp_path, server.port, server=proxy.address, **dense)
            server.federation.start(server.federation.clock.now_s())
            await killed(first, proxy.held)
            (held,) = server.federation.uploads.values()
            arrived = len(held.received)
            assert 10 < arrived < held.header.packets
            (session,) = server.federation.sessions.alive(server.federation.clock.now_s())
            assert session.streams == 1
            stranger = config_of(tmp_path, server.port, state_dir=None, **dense)
            with pytest.raises(RefusedError, match="held by another live agent"):
                await agent(stranger, FakeWork(LARGE)).run()
            await agent(config_of(tmp_path, server.port, **dense), FakeWork(LARGE)).run()
            await until(server, lambda: session.streams == 0)
            expected = initial_vector(LARGE)
            for number in (1, 2, 3):
                expected = expected + np.float32(0.5) * FakeWork(LARGE).delta(number)
            np.testing.assert_allclose(newest(server), expected, atol=1e-4)
        taken = logged(tmp_path, "upload_complete")
        assert [(t["update_id"], t["duplicates"]) for t in taken] == [(1, 0), (2, 0), (3, 0)]
        ended = agent_events(tmp_path, "upload_ended")
        # What the killed one had sent and the server had not read yet is not sent again either.
        assert ended[0]["packets_sent"] <= ended[0]["packets"] - arrived

    go(scenario)
