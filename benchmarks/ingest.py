"""How many updates per second one server takes in, through gRPC, with its sender on the same machine.

    python benchmarks/ingest.py [--dimension 11173962] [--seconds 8] [--devices N] [--accelerate]

A real server (FedAvg in rounds) in a process of its own; one client sends a network's gradient for all
devices, eight uploads at a time. Each codec is measured with the journal on the disk, with the journal left to the kernel, and
with a journal that writes nothing, in turns, which shows what journalling costs. The first two lines of
each codec are a yardstick: servers that read the same messages and answer once, without sessions, rounds,
acknowledgements and journal; the second also decodes the packets and adds them up, in one thread. The last
line is a server without rounds (FedBuff): nobody is told of each version, and nobody waits for the last one.

An update of one packet goes in one message, as an agent sends it on a fast link, the others as streams.
A round's updates are made before the clock runs; CPU times are those of the server's and the sender's
process while they are sent.
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import uvloop
from google.protobuf.message import Message
from served import RUN_ID, cpu_s, join_request, peak_mib, serve_and_tell, server_config

from fadelab_agent.encoded_update import EncodedUpdate, UpdateIdentity, encode_update
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.codecs import (
    Codec,
    DenseF16,
    DenseF32,
    Encoding,
    TopK,
    Uniform,
    accelerate,
    decode,
)
from fadelab_proto.packet import parse_packet
from fadelab_proto.wire import (
    SERVICE,
    channel_options,
    frame_whole_upload,
    parse_upload_part,
    parse_whole_upload,
    serialize_part,
    server_options,
)
from fadelab_server.journal import log as journal_log
from fadelab_server.scheduling import prefer_throughput

AT_ONCE = 8
BARE = ("gRPC alone", "and adding")
BUFFERED = "no rounds"
PAYLOAD_BYTES = (1 << 20) - 64
SAMPLES = 600


@dataclass(frozen=True)
class Case:
    """One kind of update."""

    name: str
    codec: Codec
    target: float
    """Updates per second that are asked for with two processors."""
    devices: int
    """In a round, which ends with a new model."""


@dataclass(frozen=True)
class Rate:
    """What one measurement saw."""

    updates_per_s: float
    server_cpu_ms: float
    client_cpu_ms: float
    rss_mib: float


def cases(dimension: int) -> list[Case]:
    kept = dimension // 100
    return [
        Case("top 1 %, 4 bits", TopK(kept, Uniform(4)), 800, 512),
        Case("top 1 %, float16", TopK(kept, DenseF16()), 800, 512),
        Case("dense, 8 bits", Uniform(8), 60, 64),
        Case("dense, float32", DenseF32(), 20, 16),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimension", type=int, default=11_173_962)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--devices", type=int, help="in each round; 512, 64 or 16, by size")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--accelerate", action="store_true", help="servers use compiled kernels")
    arguments = parser.parse_args()
    if arguments.accelerate:
        accelerate()  # before anything is forked
    prefer_throughput()  # the sender too: agents of a local run are not let interrupt a server
    draw = np.random.default_rng(1)
    vector = update(arguments.dimension)
    print(
        f"{'':17} {'journal':>10} {'KB':>7} {'updates/s':>10} {'server ms':>10} "
        f"{'sender ms':>10} {'RSS MiB':>8}"
    )
    for case in [own for own in cases(arguments.dimension) if arguments.only in own.name]:
        encoding = case.codec.encode(vector, max_payload_bytes=PAYLOAD_BYTES, generator=draw)
        kinds = (*BARE, "disk", "kernel", "none", BUFFERED)
        seen: dict[str, list[Rate]] = {kind: [] for kind in kinds}
        for _ in range(arguments.repetitions):
            for kind in kinds:
                devices = arguments.devices or case.devices
                seen[kind].append(measure(encoding, arguments, kind, devices))
        for kind in kinds:
            print(row(case, kind, encoding, seen[kind]), flush=True)
        print(verdict(case, seen), flush=True)
    return 0


def update(dimension: int) -> np.ndarray:
    """Return a gradient, computed in a process of its own: the server must not inherit torch."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_gradient, dimension).result()


def _gradient(dimension: int) -> np.ndarray:
    from codec_vectors import gradient  # noqa: PLC0415 (it imports torch)

    return gradient(dimension)


def row(case: Case, kind: str, encoding: Encoding, rates: list[Rate]) -> str:
    middle = sorted(rates, key=lambda rate: rate.updates_per_s)[len(rates) // 2]
    return (
        f"{case.name:17} {kind:>10} {encoding.coded_bits / 8e3:7.0f} {middle.updates_per_s:10.1f} "
        f"{middle.server_cpu_ms:10.2f} {middle.client_cpu_ms:10.2f} {middle.rss_mib:8.0f}"
    )


def verdict(case: Case, seen: dict[str, list[Rate]]) -> str:
    median = {
        kind: statistics.median(rate.updates_per_s for rate in rates)
        for kind, rates in seen.items()
    }
    cost = 100 * (1 - median["disk"] / median["none"])
    to_kernel = 100 * (1 - median["kernel"] / median["none"])
    return (
        f"{'':17} {median['disk']:.0f} in rounds, {median[BUFFERED]:.0f} without, of {case.target:.0f} "
        f"asked for; the journal costs {cost:.0f} % "
        f"with the disk, {to_kernel:.0f} % without"
    )


# -- processes ---------------------------------------------------------------------------------------


def measure(encoding: Encoding, arguments: argparse.Namespace, kind: str, devices: int) -> Rate:
    folder = Path(tempfile.mkdtemp(prefix="ingest-"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if kind in BARE:
                uvloop.run(run_bare_server(arguments.dimension, kind, writer))
            else:
                run_server(folder, arguments, kind, devices, writer)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            port = int(pipe.readline())
            sender = Sender(port, folder, encoding, arguments, devices, child)
            return uvloop.run(sender.bare() if kind in BARE else sender.rounds())
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        shutil.rmtree(folder)


def run_server(
    folder: Path, arguments: argparse.Namespace, journal: str, devices: int, tell: int
) -> None:
    config = server_config(
        folder,
        dimension=arguments.dimension,
        devices=devices,
        max_payload_bytes=PAYLOAD_BYTES,
        rounds=journal != BUFFERED,
    )
    changes = {
        "accelerate": arguments.accelerate,
        "upload_memory_bytes": 1 << 30,  # a journal that writes nothing cannot be read
        "journal_sync": journal in ("disk", BUFFERED),
    }
    if journal == "none":
        journal_log._write_whole = lambda file, pieces: None  # noqa: ARG005
    serve_and_tell(config.model_copy(update=changes), tell)


async def run_bare_server(dimension: int, kind: str, tell: int) -> None:
    total = np.zeros(dimension, dtype=np.float32)

    def take(part: object) -> None:
        if kind == BARE[1] and isinstance(part, memoryview):
            packet = parse_packet(part)
            decode(packet.codec, packet.payload, first=packet.first, count=packet.count).add_to(
                total, SAMPLES
            )

    async def read_all(stream: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for message in stream:
            take(parse_upload_part(message))
        yield b""

    async def read_one(message: bytes, _: object) -> bytes:
        take(parse_whole_upload(message)[1])
        return b""

    keep_freed_memory()
    server = grpc.aio.server(options=server_options())
    handlers = {
        "UploadUpdate": grpc.stream_stream_rpc_method_handler(read_all),
        "UploadWhole": grpc.unary_unary_rpc_method_handler(read_one),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    os.write(tell, f"{port}\n".encode())
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


# -- the sender --------------------------------------------------------------------------------------


class Instant(NamedTuple):
    """Readings of the clocks."""

    wall_s: float
    server_s: float
    sender_s: float

    @classmethod
    def now(cls, server: int) -> "Instant":
        """Read the clocks of the server's and of this process."""
        return cls(time.monotonic(), cpu_s(server), cpu_s(os.getpid()))


class Uploads:
    """The two calls that carry updates, and which of them a device uses on a fast link."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stream: grpc.aio.StreamStreamMultiCallable[Message | bytes, bytes] = (
            channel.stream_stream(f"/{SERVICE}/UploadUpdate", request_serializer=serialize_part)
        )
        self._whole: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/{SERVICE}/UploadWhole"
        )

    async def send(self, update: EncodedUpdate) -> bytes:
        """Send an update; return the last reply."""
        if len(update.packets) == 1:
            return await self._whole(frame_whole_upload(update.header, update.packets[0]))
        call = self._stream()
        await call.write(pb.UploadPart(header=update.header))
        for packet in update.packets:
            await call.write(packet)
        await call.done_writing()
        last = b""
        async for reply in call:
            last = reply
        return last


class Sender:
    """Uploads the same update for one device after the other, round after round."""

    def __init__(
        self,
        port: int,
        folder: Path,
        encoding: Encoding,
        arguments: argparse.Namespace,
        devices: int,
        server: int,
    ) -> None:
        keep_freed_memory()
        self._address = f"127.0.0.1:{port}"
        self._folder = folder
        self._encoding = encoding
        self._arguments = arguments
        self._server = server
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._version = 0
        self._sessions = [0] * devices

    async def bare(self) -> Rate:
        """Send to a server that takes everything."""
        async with grpc.aio.insecure_channel(self._address, options=channel_options()) as channel:
            return await self._measured(channel)

    async def rounds(self) -> Rate:
        """Join as all devices, start the run, send."""
        async with (
            grpc.aio.insecure_channel(self._address, options=channel_options()) as channel,
            grpc.aio.insecure_channel(f"unix:{self._folder / 'operator'}") as local,
        ):
            stub = pb_grpc.FederationStub(channel)
            streams = []
            for device in range(len(self._sessions)):
                joined = await stub.Join(
                    join_request(device, dimension=self._arguments.dimension, samples=SAMPLES)
                )
                self._sessions[device] = joined.session
                streams.append(
                    stub.WatchDirectives(pb.WatchDirectivesRequest(session=joined.session))
                )
            start = pb.StartRequest(start_mono_s=time.monotonic())
            await pb_grpc.OperatorStub(local).Start(start)
            rate = await self._measured(channel)
            for stream in streams:
                stream.cancel()
            return rate

    async def _measured(self, channel: grpc.aio.Channel) -> Rate:
        uploads = Uploads(channel)
        await self._round(uploads)  # memory is asked for, connections stand
        wall_s, server_s, sender_s, updates = 0.0, 0.0, 0.0, 0
        while wall_s < self._arguments.seconds:
            before = await self._round(uploads)
            after = Instant.now(self._server)
            wall_s += after.wall_s - before.wall_s
            server_s += after.server_s - before.server_s
            sender_s += after.sender_s - before.sender_s
            updates += len(self._sessions)
        per_update = 1e3 / updates
        return Rate(
            updates / wall_s, per_update * server_s, per_update * sender_s, peak_mib(self._server)
        )

    async def _round(self, uploads: Uploads) -> "Instant":
        """Upload for all devices; return when it began."""
        updates = [self._update(device) for device in range(len(self._sessions))]
        before = Instant.now(self._server)
        await asyncio.gather(*(self._one(uploads, update) for update in updates))
        self._version += 1
        return before

    def _update(self, device: int) -> EncodedUpdate:
        identity = UpdateIdentity(
            run_id=RUN_ID,
            device=device,
            session=self._sessions[device],
            task_index=0,
            update_id=self._version + 1,
            base_version=self._version,
            dimension=self._arguments.dimension,
            samples=SAMPLES,
        )
        return encode_update(identity, self._encoding)

    async def _one(self, uploads: Uploads, update: EncodedUpdate) -> None:
        async with self._gate:
            last = await uploads.send(update)
        if last and pb.UploadReply.FromString(last).status != pb.UPLOAD_STATUS_COMPLETE:
            raise RuntimeError(f"the server answered {pb.UploadReply.FromString(last)}")


if __name__ == "__main__":
    sys.exit(main())
