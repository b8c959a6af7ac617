"""What the server's tests share: a configuration, a clock to turn by hand, a device that talks gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock, SystemClock
from fadelab_proto.codecs import Codec, DenseF32
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.packet import Packet, parse_packet
from fadelab_proto.wire import (
    PROTOCOL_VERSION,
    SERVICE,
    channel_options,
    frame_packet,
    frame_whole_upload,
    parse_model_part,
)
from fadelab_server.app import Server
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation

F32 = NDArray[np.float32]
RUN = 0xFADE1AB
LAYOUT = 77
DIMENSION = 300
SAMPLES = 10
PAYLOAD_BYTES = 512
"""Three packets for a dense model: 128, 128 and 44 entries."""

FEDAVG = {"kind": "fedavg"}
FEDASYNC = {"kind": "fedasync", "alpha": 0.5, "staleness": {"kind": "constant"}}


class FakeClock:
    """Time that passes only when a test says so."""

    def __init__(self, now_s: float = 100.0) -> None:
        self._now_s = now_s
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now_s(self) -> float:
        return self._now_s

    def advance(self, by_s: float) -> None:
        self._now_s += by_s
        for when_s, woken in self._sleepers:
            if when_s <= self._now_s:
                woken.set()

    async def sleep_until(self, when_s: float) -> None:
        if when_s > self._now_s:
            woken = asyncio.Event()
            self._sleepers.append((when_s, woken))
            await woken.wait()


def initial_vector(dimension: int = DIMENSION) -> F32:
    return np.linspace(-1, 1, dimension, dtype=np.float32)


def make_config(folder: Path, **changes: Any) -> ServerConfig:
    initial = folder / "initial.npy"
    np.save(initial, initial_vector())
    task = {
        "name": "digits",
        "dimension": DIMENSION,
        "layout_hash": LAYOUT,
        "initial": initial,
    }
    settings: dict[str, Any] = {
        "run_id": RUN,
        "listen": "127.0.0.1:0",
        "operator_socket": folder / "operator",
        "events_dir": folder / "events",
        "checkpoint_dir": folder / "checkpoint",
        "devices": 2,
        "tasks": [task],
        "aggregation": FEDASYNC,
        "stop": {"duration_s": 3600},
        "max_payload_bytes": PAYLOAD_BYTES,
    }
    return ServerConfig.model_validate(settings | changes)


def offer(**changes: Any) -> pb.TaskOffer:
    fields: dict[str, Any] = {
        "name": "digits",
        "dimension": DIMENSION,
        "layout_hash": LAYOUT,
        "samples": SAMPLES,
    }
    return pb.TaskOffer(**fields | changes)


def join_request(device: int = 0, **changes: Any) -> pb.JoinRequest:
    fields: dict[str, Any] = {
        "protocol_version": PROTOCOL_VERSION,
        "run_id": RUN,
        "device": device,
        "incarnation": 1000 + device,
        "tasks": [offer()],
    }
    return pb.JoinRequest(**fields | changes)


QUERY = pb.UploadPart(query=pb.UploadQuery(number=1)).SerializeToString()
"""Asks what the server holds of an update."""


@dataclass
class Update:
    """One update as a device would send it; tests may spoil any part of it."""

    header: pb.UploadHeader
    packets: list[bytes]

    def messages(self, sequences: Iterable[int] | None = None) -> list[bytes]:
        """Return the stream's messages: the header, then these packets (all by default)."""
        chosen = range(len(self.packets)) if sequences is None else sequences
        return [self.head(), *(frame_packet(self.packets[number]) for number in chosen)]

    def whole(self) -> bytes:
        """Return the one message of an update of one packet."""
        (packet,) = self.packets
        return frame_whole_upload(self.header, packet)

    def head(self) -> bytes:
        return pb.UploadPart(header=self.header).SerializeToString()


def make_update(
    delta: F32,
    *,
    device: int = 0,
    session: int = 0,
    update_id: int = 1,
    base_version: int = 0,
    samples: int = SAMPLES,
    codec: Codec | None = None,
    task_index: int = 0,
) -> Update:
    draw = np.random.default_rng(update_id)
    encoding = (codec or DenseF32()).encode(delta, max_payload_bytes=PAYLOAD_BYTES, generator=draw)
    chunks = encoding.chunks
    packets = [
        Packet(
            packet_class=chunk.packet_class,
            codec=chunk.codec,
            task_index=task_index,
            device=device,
            run_id=RUN,
            update_id=update_id,
            base_version=base_version,
            first=chunk.first,
            count=chunk.count,
            sequence=sequence,
            packets=len(chunks),
            payload=chunk.payload,
        ).encode()
        for sequence, chunk in enumerate(chunks)
    ]
    header = pb.UploadHeader(
        session=session,
        task_index=task_index,
        update_id=update_id,
        base_version=base_version,
        dimension=len(delta),
        packets=len(packets),
        payload_bytes=sum(len(chunk.payload) for chunk in chunks),
        samples=samples,
        content=google_crc32c.value(b"".join(packets)),
    )
    return Update(header, packets)


class Device:
    """A device on a channel of its own."""

    def __init__(self, channel: grpc.aio.Channel, number: int = 0) -> None:
        self.number = number
        self.session = 0
        # The generated stubs' types are those of the blocking API.
        self._federation: Any = pb_grpc.FederationStub(channel)
        self._upload: Any = channel.stream_stream(f"/{SERVICE}/UploadUpdate")
        self._whole: Any = channel.unary_unary(f"/{SERVICE}/UploadWhole")
        self._fetch: Any = channel.unary_stream(
            f"/{SERVICE}/FetchModel", request_serializer=pb.FetchModelRequest.SerializeToString
        )

    async def join(self, **changes: Any) -> pb.JoinReply:
        reply: pb.JoinReply = await self._federation.Join(join_request(self.number, **changes))
        self.session = reply.session
        return reply

    def directives(self) -> Any:
        return self._federation.WatchDirectives(pb.WatchDirectivesRequest(session=self.session))

    def update(self, value: float = 1.0, **changes: Any) -> Update:
        delta = np.full(DIMENSION, value, dtype=np.float32)
        return make_update(delta, device=self.number, session=self.session, **changes)

    def open_upload(self) -> Any:
        return self._upload()

    async def upload(self, messages: Sequence[bytes]) -> list[pb.UploadReply]:
        """Send these messages, end the stream and return every reply."""
        return [pb.UploadReply.FromString(reply) async for reply in self._upload(iter(messages))]

    async def send(self, update: Update, sequences: Iterable[int] | None = None) -> pb.UploadReply:
        """Upload these packets (all by default) and return the last reply."""
        return (await self.upload(update.messages(sequences)))[-1]

    async def send_whole(self, message: bytes) -> pb.UploadReply:
        """Send a message that holds a whole update."""
        return pb.UploadReply.FromString(await self._whole(message))

    async def fetch(self, **fields: int) -> tuple[pb.ModelInfo, list[Packet]]:
        request = pb.FetchModelRequest(session=self.session, **fields)
        parts = [parse_model_part(data) async for data in self._fetch(request)]
        info, *packets = parts
        assert isinstance(info, pb.ModelInfo)
        return info, [parse_packet(packet) for packet in packets if isinstance(packet, memoryview)]


@dataclass
class Running:
    """A server in this process, reached through real sockets."""

    server: Server
    port: int
    config: ServerConfig
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def federation(self) -> Federation:
        return self.server.federation

    def device(self, number: int = 0) -> Device:
        return Device(self.connect(f"127.0.0.1:{self.port}"), number)

    def operator(self) -> Any:
        return pb_grpc.OperatorStub(self.connect(f"unix:{self.config.operator_socket}"))

    def connect(self, address: str) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(address, options=channel_options())
        self.channels.append(channel)
        return channel


DeviceScenario = Callable[[Running, Device], Awaitable[None]]
ServeDevice = Callable[..., None]


@asynccontextmanager
async def running(
    config: ServerConfig, clock: Clock | None = None, *, resumes: bool = False
) -> AsyncIterator[Running]:
    """Run a server; leaving ends it at once, without a drain, as a crash would."""
    clock = clock or SystemClock()
    with EventLog(config.events_dir, "server", "0", clock) as log:
        server = Server(config, clock, log)
        if resumes:
            server.federation.resume(config.checkpoint_dir)
        run = Running(server, await server.start(), config)
        try:
            yield run
        finally:
            for channel in run.channels:
                await channel.close()
            await server._data.stop(None)
            await server._local.stop(None)
            if server._datagrams is not None:
                server._datagrams.stop()
            await server.federation.keeper.log.close()


def ranges(reply: pb.UploadReply) -> list[tuple[int, int]]:
    return [(span.first, span.last) for span in reply.received]


def newest(server: Running) -> F32:
    return server.federation.tasks[0].store.newest.vector


async def next_reply(call: Any) -> pb.UploadReply:
    data = await call.read()
    assert isinstance(data, bytes)
    return pb.UploadReply.FromString(data)


async def outcome(call: Any) -> pb.UploadReply:
    """Return the reply that ends an upload; how many tell of its progress is a matter of time."""
    while (reply := await next_reply(call)).status == pb.UPLOAD_STATUS_RECEIVING:
        pass
    return reply


async def begin(device: Device, update: Update) -> Any:
    """Open a stream, send the header and the first packet, leave it open."""
    call = device.open_upload()
    for message in (*update.messages([0]), QUERY):
        await call.write(message)
    assert ranges(await next_reply(call)) == [(0, 0)]
    return call


async def resume(device: Device, update: Update) -> tuple[Any, list[tuple[int, int]]]:
    """Open a stream, announce an update, ask what the server has of it; leave it open."""
    call = device.open_upload()
    for message in (update.head(), QUERY):
        await call.write(message)
    return call, ranges(await next_reply(call))


async def go_on(call: Any, update: Update, sequences: Iterable[int]) -> pb.UploadReply:
    """Send these packets on an open stream, end it and return the last reply."""
    for number in sequences:
        await call.write(frame_packet(update.packets[number]))
    await call.done_writing()
    return await outcome(call)


def logged(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = read_events(folder / "events" / "server-0.jsonl")
    return [line for line in lines if line["event"] == name]
