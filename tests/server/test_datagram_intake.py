"""Updates whose packets come as datagrams: the same packets, the same journal, the same aggregation."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    RUN,
    Device,
    Running,
    Update,
    initial_vector,
    logged,
    make_config,
    newest,
    next_reply,
    ranges,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_proto.packet import parse_packet
from fadelab_server import datagram_intake
from fadelab_server.app import ListenError, Server
from fadelab_server.datagrams import ArrivedPacket
from fadelab_server.federation import Federation
from fadelab_server.reading import Messages

UPDATE = pb.PACKET_CLASS_UPDATE


class Sender:
    """A device that announces on a stream and sends by UDP."""

    def __init__(self, run: Running, device: Device) -> None:
        self._run = run
        self.device = device
        self._to = ("127.0.0.1", run.federation.datagram_port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        self._socket.close()

    def update(self, value: float = 1.0, **changes: Any) -> Update:
        update = self.device.update(value, **changes)
        update.header.datagram_classes.append(UPDATE)
        return update

    async def announce(self, update: Update) -> Any:
        call = self.device.open_upload()
        await call.write(update.head())
        assert (await ask(call, 1)).status == pb.UPLOAD_STATUS_RECEIVING
        return call

    def cast(self, packets: Iterable[bytes]) -> None:
        for packet in packets:
            self._socket.sendto(packet, self._to)

    async def until(self, condition: Callable[[], bool]) -> None:
        seen = -1
        while not condition():
            seen = await self._run.federation.changed.changed_since(seen)

    async def until_held(self, packets: int) -> None:
        uploads = self._run.federation.uploads
        await self.until(lambda: len(uploads[0, self.device.number].received) == packets)


@asynccontextmanager
async def sending(folder: Path, **changes: Any) -> AsyncIterator[tuple[Running, Sender]]:
    config = make_config(folder, datagram_listen="127.0.0.1:0", **changes)
    async with running(config) as run:
        device = run.device()
        reply = await device.join()
        assert reply.datagram_port == run.federation.datagram_port > 0
        sender = Sender(run, device)
        try:
            yield run, sender
        finally:
            sender.close()


def go(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 30)

    asyncio.run(limited())


async def ask(call: Any, number: int = 2) -> pb.UploadReply:
    await call.write(pb.UploadPart(query=pb.UploadQuery(number=number)).SerializeToString())
    while (reply := await next_reply(call)).answered < number:
        pass
    return reply


async def close(call: Any) -> pb.UploadReply:
    await call.write(pb.UploadPart(close=pb.UploadClose()).SerializeToString())
    return await last_reply(call)


async def last_reply(call: Any) -> pb.UploadReply:
    while (reply := await next_reply(call)).status == pb.UPLOAD_STATUS_RECEIVING:
        pass
    return reply


def deliver(run: Running, packets: Iterable[bytes]) -> None:
    """Hand packets over as the receiver would."""
    intake = run.server._datagrams
    assert intake is not None
    intake._deliver([ArrivedPacket(data, parse_packet(data), 0.0) for data in packets])


def mixed_in(value: float) -> Any:
    """Return the model after one update: FedAsync with weight one half."""
    return (initial_vector() + np.float32(0.5 * value)).astype(np.float32)


def test_datagrams_complete_an_update_and_the_stream_tells(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with sending(tmp_path) as (run, sender):
            update = sender.update(2.0)
            call = await sender.announce(update)
            sender.cast(reversed(update.packets))
            reply = await next_reply(call)
            assert reply.status == pb.UPLOAD_STATUS_COMPLETE
            assert ranges(reply) == [(0, 2)]
            np.testing.assert_array_equal(newest(run), mixed_in(2.0))
        (event,) = logged(tmp_path, "upload_complete")
        assert event["datagram_packets"] == event["packets"] == 3
        assert event["datagram_payload_bytes"] == event["payload_bytes"] == 4 * DIMENSION
        assert (event["classes"], event["class_packets"]) == (["update"], [3])

    go(scenario)


def test_a_reply_that_the_stream_did_not_wait_for_is_not_cut_off(tmp_path: Path) -> None:
    """The device may be writing when others complete its update: its stream must not just end."""

    async def scenario() -> None:
        async with sending(tmp_path) as (_, sender):
            for number in range(1, 31):
                update = sender.update(update_id=number, base_version=number - 1)
                call = await sender.announce(update)
                sender.cast(update.packets)
                asked = pb.UploadPart(query=pb.UploadQuery(number=2)).SerializeToString()
                writing = [asyncio.create_task(call.write(asked))]
                assert (await last_reply(call)).status == pb.UPLOAD_STATUS_COMPLETE
                await asyncio.gather(*writing)
                await call.done_writing()

    go(scenario)


def test_a_wait_for_a_message_that_is_broken_off_loses_none() -> None:
    async def scenario() -> None:
        written: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def stream() -> AsyncIterator[bytes]:
            while (message := await written.get()) is not None:
                yield message

        messages = Messages(stream())
        messages.patient = True
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(messages), 0.001)
            written.put_nowait(bytes([number]))
            assert await anext(messages) == bytes([number])
        written.put_nowait(None)
        assert [message async for message in messages] == []

    go(scenario)


def test_streams_and_datagrams_make_one_update(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with sending(tmp_path) as (run, sender):
            update = sender.update(3.0)
            call = await sender.announce(update)
            sender.cast(update.packets[:1])
            await sender.until_held(1)
            await call.write(update.messages([1])[1])
            assert ranges(await next_reply(call)) == [(0, 1)]
            sender.cast(update.packets[2:])
            assert (await next_reply(call)).status == pb.UPLOAD_STATUS_COMPLETE
            np.testing.assert_array_equal(newest(run), mixed_in(3.0))
        (event,) = logged(tmp_path, "upload_complete")
        assert (event["packets"], event["datagram_packets"]) == (3, 2)

    go(scenario)


def test_a_query_names_what_is_durable_and_nothing_else_is_told_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with sending(tmp_path) as (run, sender):
            update = sender.update()
            call = await sender.announce(update)
            assert ranges(await ask(call)) == []
            sender.cast([update.packets[2], update.packets[0], update.packets[2]])
            await sender.until(lambda: run.federation.uploads[0, 0].duplicates == 1)
            reply = await ask(call, 3)
            assert ranges(reply) == [(0, 0), (2, 2)]
            again = Federation(run.config, SystemClock(), run.federation.log)
            again.keeper.restore(run.config.checkpoint_dir)
            assert again.uploads[0, 0].received.messages() == list(reply.received)

    go(scenario)


@pytest.mark.parametrize(
    ("policy", "status"),
    [("keep", pb.UPLOAD_STATUS_CLOSED), ("discard", pb.UPLOAD_STATUS_DISCARDED)],
)
def test_what_was_lost_is_treated_as_that_of_a_cut_update(
    tmp_path: Path, policy: str, status: int
) -> None:
    async def scenario() -> None:
        async with sending(tmp_path, partial_updates=policy) as (run, sender):
            update = sender.update(1.0)
            call = await sender.announce(update)
            sender.cast(update.packets[1:])
            await sender.until_held(2)
            reply = await close(call)
            assert reply.status == status
            expected = initial_vector()
            if policy == "keep":
                assert ranges(reply) == [(1, 2)]
                expected[128:] += np.float32(0.5)
            np.testing.assert_allclose(newest(run), expected, atol=1e-6)

    go(scenario)


def test_what_does_not_belong_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = make_config(tmp_path, datagram_listen="127.0.0.1:0")
        with EventLog(config.events_dir, "server", "0", SystemClock()) as log:
            server = Server(config, SystemClock(), log)
            run = Running(server, await server.start(), config)
            device = run.device()
            await device.join()
            sender = Sender(run, device)
            early = sender.update(update_id=7)
            sender.cast(early.packets)  # nobody has announced it
            update = sender.update()
            call = await sender.announce(update)
            sender.cast([b"", b"no packet", update.packets[0][:-1], bytes(1400)])
            other = run.device(1).update()
            sender.cast(other.packets[:1])  # of a device that has announced nothing
            spoilt = bytearray(update.packets[0])
            spoilt[12:16] = (RUN + 1).to_bytes(4, "little")
            sender.cast([bytes(spoilt)])
            fields = {"base_version": 5}
            sender.cast(device.update(**fields).packets)  # of this update, but contradicts it
            sender.cast(update.packets)
            assert (await next_reply(call)).status == pb.UPLOAD_STATUS_COMPLETE
            sender.cast(update.packets[:1])  # too late
            sender.close()
            for channel in run.channels:
                await channel.close()
            await server.drain()
        (counts,) = logged(tmp_path, "datagram_receiver")
        assert counts["damaged_packets"] == 5
        assert counts["refused_packets"] == 3
        assert 4 <= counts["unannounced_packets"] <= 5
        flows = logged(tmp_path, "datagrams_received")
        assert [(flow["device"], flow["packet_class"]) for flow in flows] == [
            (0, "update"),
            (1, "update"),
        ]
        whole = counts["refused_packets"] + counts["unannounced_packets"] + 3
        assert sum(flow["packets"] for flow in flows) == whole
        assert not logged(tmp_path, "upload_refused")

    go(scenario)


def test_a_class_that_was_not_announced_is_not_taken_from_datagrams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with sending(tmp_path) as (run, sender):
            update = sender.device.update()
            update.header.datagram_classes.append(pb.PACKET_CLASS_MODULUS)
            call = await sender.announce(update)
            deliver(run, update.packets)
            assert ranges(await ask(call)) == []
            for message in update.messages()[1:]:
                await call.write(message)
            assert (await last_reply(call)).status == pb.UPLOAD_STATUS_COMPLETE
        (event,) = logged(tmp_path, "upload_complete")
        assert (event["packets"], event["datagram_packets"], event["duplicates"]) == (3, 0, 0)

    go(scenario)


def test_while_the_disk_is_behind_datagrams_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with sending(tmp_path) as (run, sender):
            update = sender.update()
            call = await sender.announce(update)
            monkeypatch.setattr(datagram_intake, "BACKLOG_BYTES", -1)
            deliver(run, update.packets)
            assert ranges(await ask(call)) == []
            monkeypatch.undo()
            deliver(run, update.packets[:2])
            assert ranges(await ask(call, 3)) == [(0, 1)]
            assert run.server._datagrams is not None
            run.server._datagrams.stop()
            run.server._datagrams = None
        (counts,) = logged(tmp_path, "datagram_receiver")
        assert counts["backlog_packets"] == 3

    go(scenario)


def test_a_server_without_a_port_for_datagrams_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as run:
            device = run.device()
            assert (await device.join()).datagram_port == 0
            update = device.update()
            update.header.datagram_classes.append(UPDATE)
            reply = await device.send(update)
            assert reply.status == pb.UPLOAD_STATUS_REFUSED_SHAPE
            assert reply.reason == "this server takes no packets in datagrams"

    go(scenario)


def test_a_port_that_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            config = make_config(tmp_path, datagram_listen=f"127.0.0.1:{port}")
            with EventLog(config.events_dir, "server", "0", SystemClock()) as log:
                server = Server(config, SystemClock(), log)
                with pytest.raises(
                    ListenError, match=f"cannot listen for datagrams on 127.0.0.1:{port}: .*in use"
                ):
                    await server.start()
                await server.federation.keeper.log.close()

    go(scenario)
