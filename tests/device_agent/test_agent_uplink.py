"""Uploads: whole, cut in the middle, refused, stalled - over real connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.device_agent.agent_harness import (
    LARGE,
    HandRadio,
    HurriedClock,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
    resumed,
    until,
)
from tests.server.harness import (
    FEDASYNC,
    Device,
    Running,
    Update,
    logged,
    make_config,
    make_update,
    newest,
    offer,
    running,
)

from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_agent.progress import StalledError
from fadelab_agent.radio import Radio
from fadelab_agent.uplink import SessionLostError, Uplink, UploadOutcome
from fadelab_agent.upload_ways import UploadWays
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import TopK

DELTA = np.linspace(-3, 3, LARGE, dtype=np.float32)
PACKETS = 100
# A packet and what gRPC and HTTP/2 put around it.
PACKET_ON_THE_WIRE = 512 + 40 + 60


def encoded(update: Update) -> EncodedUpdate:
    return EncodedUpdate(update.header, tuple(update.packets))


def large_update(device: Device) -> EncodedUpdate:
    return encoded(make_update(DELTA, session=device.session))


@asynccontextmanager
async def uplink(
    folder: Path,
    channel: grpc.aio.Channel | UploadWays,
    *,
    radio: Radio | None = None,
    stall_s: float = 30.0,
) -> AsyncIterator[Uplink]:
    with agent_log(folder) as log:
        yield Uplink(
            channel, radio=radio or HandRadio(), clock=HurriedClock(), log=log, stall_s=stall_s
        )


async def joined(server: Running) -> Device:
    device = server.device()
    await join(server, device)
    return device


async def join(server: Running, device: Device) -> None:
    dimension = server.config.tasks[0].dimension
    reply = await device.join(tasks=[offer(dimension=dimension)])
    assert reply.status == pb.JOIN_STATUS_ACCEPTED


def the_upload(folder: Path) -> dict[str, Any]:
    (upload,) = logged(folder, "upload_complete")
    return upload


def held_packets(server: Running) -> int:
    upload = server.federation.uploads.get((0, 0))
    return 0 if upload is None else len(upload.received)


def mixed_in() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the model after one update: FedAsync with weight one half."""
    initial = np.linspace(-1, 1, LARGE, dtype=np.float32)
    return (initial + np.float32(0.5) * DELTA).astype(np.float32)


def test_a_complete_upload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(large_config(tmp_path)) as server:
            device = await joined(server)
            channel = server.connect(f"127.0.0.1:{server.port}")
            async with uplink(tmp_path, channel) as up:
                outcome = await up.upload(large_update(device))
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.packets_sent == PACKETS
            assert outcome.acknowledged == set(range(PACKETS))
            assert (outcome.attempts, outcome.staleness, outcome.newest_version) == (1, 0, 1)
            assert the_upload(tmp_path)["duplicates"] == 0
            np.testing.assert_allclose(newest(server), mixed_in(), atol=1e-6)

    go(scenario)


def small_update(device: Device) -> EncodedUpdate:
    """Return an update of one packet, of some 350 bytes."""
    return encoded(make_update(DELTA, session=device.session, codec=TopK(60)))


@pytest.mark.parametrize(("rate_bps", "messages"), [(1e9, 1), (1e3, 0)], ids=["fast", "slow"])
def test_an_update_that_takes_a_moment_goes_in_one_message(
    tmp_path: Path, rate_bps: float, messages: int
) -> None:
    async def scenario() -> None:
        async with running(large_config(tmp_path)) as server:
            device = await joined(server)
            ways = UploadWays.one_stream(server.connect(f"127.0.0.1:{server.port}"))
            whole = ways.send_whole
            sent: list[bytes] = []

            async def noted(dscp: int, header: pb.UploadHeader, packet: bytes) -> pb.UploadReply:
                sent.append(packet)
                return await whole(dscp, header, packet)

            ways.send_whole = noted  # type: ignore[method-assign]
            async with uplink(tmp_path, ways, radio=HandRadio(rate_bps=rate_bps)) as up:
                outcome = await up.upload(small_update(device))
            assert len(sent) == messages
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert (outcome.packets_sent, outcome.acknowledged) == (1, {0})
            assert (outcome.attempts, outcome.newest_version) == (1, 1)

    go(scenario)


@pytest.mark.parametrize(
    ("held", "status"),
    [
        ({"hold_up": 300}, pb.UPLOAD_STATUS_COMPLETE),
        ({"hold_down": 100}, pb.UPLOAD_STATUS_DUPLICATE),
    ],
    ids=["message", "reply"],
)
def test_an_update_in_one_message_that_was_cut_is_taken_once(
    tmp_path: Path, held: dict[str, int], status: pb.UploadStatus.ValueType
) -> None:
    async def scenario() -> None:
        async with (
            running(large_config(tmp_path)) as server,
            proxied(server, **held) as (proxy, channel),
            uplink(tmp_path, channel) as up,
        ):
            device = await joined(server)
            uploading = asyncio.create_task(up.upload(small_update(device)))
            await proxy.held.wait()
            if status == pb.UPLOAD_STATUS_DUPLICATE:
                await until(server, lambda: server.federation.tasks[0].updates == 1)
            proxy.cut()
            outcome = await uploading
            assert outcome.status == status
            # Attempts may break until gRPC knows the connection to be gone.
            assert outcome.attempts >= 2
            assert server.federation.tasks[0].updates == 1

    go(scenario)


def test_an_upload_that_was_cut_goes_on_where_it_stood(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()

    async def upload(folder: Path, *, cut: bool) -> Any:
        async with (
            running(large_config(folder)) as server,
            proxied(server, hold_up=30000 if cut else None) as (proxy, channel),
            uplink(folder, channel) as up,
        ):
            device = await joined(server)
            work = up.upload(large_update(device))
            if not cut:
                await work
                return newest(server).copy()
            outcome = await _cut_in_the_middle(server, proxy, work)
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.acknowledged == set(range(PACKETS))
            return newest(server).copy()

    async def _cut_in_the_middle(server: Running, proxy: Any, work: Any) -> UploadOutcome:
        uploading = asyncio.create_task(work)
        await proxy.held.wait()
        await until(server, lambda: held_packets(server) >= 20)
        held = held_packets(server)
        proxy.cut()
        outcome: UploadOutcome = await uploading
        assert outcome.attempts == 2
        assert len(proxy.passed_up) == 2
        assert proxy.passed_up[1] < (PACKETS - held) * PACKET_ON_THE_WIRE + 2000
        return outcome

    async def scenario() -> None:
        whole = await upload(tmp_path / "whole", cut=False)
        np.testing.assert_array_equal(await upload(tmp_path / "cut", cut=True), whole)
        assert the_upload(tmp_path / "cut")["duplicates"] == 0
        (event,) = agent_events(tmp_path / "cut", "upload_interrupted")
        # gRPC tells a cut connection as UNAVAILABLE or, if it was just writing, as INTERNAL.
        assert event["cause"]
        assert 0 <= event["acknowledged"] < event["packets"] == PACKETS

    go(scenario)


def test_a_lost_session_is_told_and_a_new_one_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            running(large_config(tmp_path)) as server,
            proxied(server, hold_up=30000) as (proxy, channel),
            uplink(tmp_path, channel) as up,
        ):
            device = await joined(server)
            update, outcome = large_update(device), UploadOutcome()
            uploading = asyncio.create_task(up.upload(update, outcome))
            await proxy.held.wait()
            await until(server, lambda: held_packets(server) >= 20)
            held = held_packets(server)
            # The same agent joins anew, as it does when its directive stream breaks.
            await join(server, device)
            proxy.cut()
            with pytest.raises(SessionLostError, match="unknown session: join again"):
                await uploading
            before = sum(proxy.passed_up)
            update.header.session = device.session
            assert await up.upload(update, outcome) is outcome
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.acknowledged == set(range(PACKETS))
            assert outcome.attempts == 3
            assert sum(proxy.passed_up) - before < (PACKETS - held) * PACKET_ON_THE_WIRE + 2000
            assert the_upload(tmp_path)["duplicates"] == 0

    go(scenario)


def test_a_server_that_was_restarted_gets_only_what_it_lacks(tmp_path: Path) -> None:
    config = large_config(tmp_path, aggregation=FEDASYNC)

    async def scenario() -> None:
        outcome = UploadOutcome()
        with agent_log(tmp_path) as log:
            async with running(config) as server, proxied(server, hold_up=200_000) as (proxy, way):
                up = Uplink(way, radio=HandRadio(), clock=HurriedClock(), log=log, stall_s=30)
                device = await joined(server)
                first = await up.upload(large_update(device))
                assert first.status == pb.UPLOAD_STATUS_COMPLETE
                proxy.hold_after(30000)
                update = encoded(
                    make_update(DELTA, session=device.session, update_id=2, base_version=1)
                )
                uploading = asyncio.create_task(up.upload(update, outcome))
                await proxy.held.wait()
                await until(server, lambda: held_packets(server) >= 20)
                held, port = held_packets(server), server.port
                await server.server._data.stop(None)
                await server.server._local.stop(None)
                # What was not acknowledged yet might be on its way to the disk still.
                await server.federation.keeper.log.close()
                async with resumed(config, port) as again:
                    proxy.cut()
                    with pytest.raises(SessionLostError):
                        await uploading
                    before = outcome.packets_sent
                    device = await joined(again)
                    update.header.session = device.session
                    await up.upload(update, outcome)
                    assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
                    assert outcome.acknowledged == set(range(PACKETS))
                    assert outcome.packets_sent - before <= PACKETS - held
                    assert again.federation.tasks[0].store.newest.number == 2
        assert [event["duplicates"] for event in logged(tmp_path, "upload_complete")] == [0, 0]

    go(scenario)


@pytest.mark.parametrize(
    ("spoilt", "status", "reason"),
    [
        ({"task_index": 3}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "did not offer task 3"),
        ({"base_version": 9}, pb.UPLOAD_STATUS_REFUSED_BASE_VERSION, "version 9 is not held"),
        ({"dimension": 5}, pb.UPLOAD_STATUS_REFUSED_SHAPE, "5 parameters, the model 300"),
        ({"packets": 2}, pb.UPLOAD_STATUS_REFUSED_PACKET, "the packet's packet count is 3"),
    ],
)
def test_a_refusal_is_reported_with_the_servers_reason(
    tmp_path: Path, spoilt: dict[str, int], status: pb.UploadStatus.ValueType, reason: str
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            device = await joined(server)
            update = device.update()
            for name, value in spoilt.items():
                setattr(update.header, name, value)
            channel = server.connect(f"127.0.0.1:{server.port}")
            async with uplink(tmp_path, channel) as up:
                outcome = await up.upload(encoded(update))
            assert outcome.status == status
            assert reason in outcome.reason

    go(scenario)


def test_an_update_that_was_taken_before_is_a_duplicate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            device = await joined(server)
            channel = server.connect(f"127.0.0.1:{server.port}")
            async with uplink(tmp_path, channel) as up:
                await up.upload(encoded(device.update()))
                again = await up.upload(encoded(device.update()))
            assert again.status == pb.UPLOAD_STATUS_DUPLICATE
            assert server.federation.tasks[0].updates == 1

    go(scenario)


def test_an_upload_waits_for_contact(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(is_open=False)
        async with running(make_config(tmp_path)) as server:
            device = await joined(server)
            channel = server.connect(f"127.0.0.1:{server.port}")
            async with uplink(tmp_path, channel, radio=radio) as up:
                uploading = asyncio.create_task(up.upload(encoded(device.update())))
                # The server answers another device meanwhile: it would have heard of this one.
                await server.device(1).join()
                assert not server.federation.uploads
                assert server.federation.tasks[0].updates == 0
                radio.opened.set()
                assert (await uploading).status == pb.UPLOAD_STATUS_COMPLETE

    go(scenario)


def test_attempts_that_move_nothing_end_with_the_figures(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e6)
        async with (
            running(make_config(tmp_path)) as server,
            proxied(server, hold_up=0) as (_, channel),
            uplink(tmp_path, channel, radio=radio, stall_s=1.0) as up,
        ):
            device = await joined(server)
            radio.per_question_s = 10.0
            with pytest.raises(
                StalledError,
                match=r"update 1: 3 attempts in a row moved no packet beyond 0 of 3; "
                r"last cause: nothing moved on the uplink for \d+\.0 s in contact; "
                r"at 1\.000 Mbit/s 1\.0 s are allowed for 552 bytes",
            ):
                await up.upload(encoded(device.update()))
        assert len(agent_events(tmp_path, "upload_interrupted")) == 3

    go(scenario)


@pytest.mark.parametrize(
    ("policy", "status"),
    [("keep", pb.UPLOAD_STATUS_CLOSED), ("discard", pb.UPLOAD_STATUS_DISCARDED)],
)
def test_an_update_that_its_window_cuts_ends_with_what_arrived(
    tmp_path: Path, policy: str, status: int
) -> None:
    async def scenario() -> None:
        radio = HandRadio()
        async with (
            running(large_config(tmp_path, partial_updates=policy)) as server,
            proxied(server, hold_up=30000) as (proxy, channel),
            uplink(tmp_path, channel, radio=radio) as up,
        ):
            device = await joined(server)
            uploading = asyncio.create_task(up.upload(large_update(device), gives_up=True))
            await proxy.held.wait()
            await until(server, lambda: held_packets(server) >= 20)
            radio.blink()
            proxy.cut()
            outcome = await uploading
            assert outcome.status == status
            assert outcome.given_up
            kept = outcome.acknowledged
            if policy == "keep":
                assert 20 <= len(kept) < PACKETS
                expected = np.linspace(-1, 1, LARGE, dtype=np.float32)
                for sequence in kept:
                    part = slice(128 * sequence, 128 * (sequence + 1))
                    expected[part] += np.float32(0.5) * DELTA[part]
                np.testing.assert_allclose(newest(server), expected, atol=1e-6)
            else:
                assert kept == set()
                assert server.federation.tasks[0].updates == 0

    go(scenario)
