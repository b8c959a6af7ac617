"""How many updates per second one server takes in, through gRPC, with its sender on the same machine.

    python benchmarks/ingest.py [--dimension 11173962] [--seconds 8]

A real server (FedAvg in rounds of 32 devices) in a process of its own; one client sends, four uploads at
a time. Each codec is measured with the journal on the disk, with the journal left to the kernel, and
with a journal that writes nothing, which shows what journalling costs.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from fadelab_agent.encoded_update import UpdateIdentity, encode_update
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.allocator import keep_freed_memory
from fadelab_proto.codecs import Codec, DenseF16, DenseF32, Encoding, TopK, Uniform
from fadelab_proto.wire import PROTOCOL_VERSION, SERVICE, channel_options, serialize_part
from fadelab_server.app import serve
from fadelab_server.config import ServerConfig
from fadelab_server.journal import log as journal_log

DEVICES, AT_ONCE = 32, 4
PAYLOAD_BYTES = (1 << 20) - 64


@dataclass(frozen=True)
class Case:
    """One kind of update."""

    name: str
    codec: Codec


def cases(dimension: int) -> list[Case]:
    kept = dimension // 100
    return [
        Case("top 1 %, float16", TopK(kept, DenseF16())),
        Case("top 1 %, 4 bits", TopK(kept, Uniform(4))),
        Case("dense, 8 bits", Uniform(8)),
        Case("dense, float32", DenseF32()),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimension", type=int, default=11_173_962)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    draw = np.random.default_rng(1)
    vector = draw.standard_normal(arguments.dimension, dtype=np.float32)
    vector *= draw.standard_normal(arguments.dimension, dtype=np.float32)
    print(
        f"{'':18} {'journal':>8} {'KB':>9} {'updates/s':>10} {'server CPU ms':>14} {'RSS MiB':>8}"
    )
    for case in cases(arguments.dimension):
        encoding = case.codec.encode(vector, max_payload_bytes=PAYLOAD_BYTES, generator=draw)
        for journal in ("disk", "kernel", "none"):
            row = measure(encoding, arguments.dimension, arguments.seconds, journal)
            size = encoding.coded_bits / 8e3
            print(
                f"{case.name:18} {journal:>8} {size:9.0f} {row[0]:10.1f} {row[1]:14.2f} {row[2]:8.0f}",
                flush=True,
            )
    return 0


def measure(
    encoding: Encoding, dimension: int, seconds: float, journal: str
) -> tuple[float, float, float]:
    """Return updates per second, the server's CPU milliseconds for each, and its memory in MiB."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run_server(folder, dimension, journal, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        port = int(pipe.readline())
        count, took_s = asyncio.run(send(port, folder, encoding, dimension, seconds))
    os.kill(child, 15)
    _, _, usage = os.wait4(child, 0)
    shutil.rmtree(folder)
    cpu_s = usage.ru_utime + usage.ru_stime
    return count / took_s, 1e3 * cpu_s / count, usage.ru_maxrss / 1024


def run_server(folder: Path, dimension: int, journal: str, tell: int) -> None:
    initial = folder / "initial.npy"
    np.save(initial, np.zeros(dimension, dtype=np.float32))
    task = {"name": "bench", "dimension": dimension, "layout_hash": 1, "initial": initial}
    config = ServerConfig.model_validate(
        {
            "run_id": 1,
            "listen": "127.0.0.1:0",
            "operator_socket": folder / "operator",
            "events_dir": folder / "events",
            "checkpoint_dir": folder / "checkpoint",
            "devices": DEVICES,
            "tasks": [task],
            "aggregation": {"kind": "fedavg"},
            "stop": {"duration_s": 1e6},
            "max_payload_bytes": PAYLOAD_BYTES,
            "history_bytes": 0,
            "journal_sync": journal == "disk",
        }
    )
    if journal == "none":
        journal_log._write_whole = lambda file, pieces: None  # noqa: ARG005
    asyncio.run(serve(config, listening=lambda port: os.write(tell, f"{port}\n".encode())))


async def send(
    port: int, folder: Path, encoding: Encoding, dimension: int, seconds: float
) -> tuple[int, float]:
    """Upload the same update for one device after the other, round after round."""
    keep_freed_memory()
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        upload = channel.stream_stream(
            f"/{SERVICE}/UploadUpdate",
            request_serializer=serialize_part,
            response_deserializer=pb.UploadReply.FromString,
        )
        stub = pb_grpc.FederationStub(channel)
        sessions, streams = [], []
        for device in range(DEVICES):
            joined = await stub.Join(join_request(device, dimension))
            sessions.append(joined.session)
            streams.append(stub.WatchDirectives(pb.WatchDirectivesRequest(session=joined.session)))
        async with grpc.aio.insecure_channel(f"unix:{folder / 'operator'}") as local:
            await pb_grpc.OperatorStub(local).Start(pb.StartRequest(start_mono_s=time.monotonic()))
        gate, count, version = asyncio.Semaphore(AT_ONCE), 0, 0

        async def one(device: int) -> int:
            async with gate:
                identity = UpdateIdentity(
                    1, device, sessions[device], 0, version + 1, version, dimension, 1
                )
                update = encode_update(identity, encoding)
                call = upload()
                await call.write(pb.UploadPart(header=update.header))
                for packet in update.packets:
                    await call.write(packet)
                await call.done_writing()
                last = pb.UploadReply()
                async for reply in call:
                    last = reply
                if last.status != pb.UPLOAD_STATUS_COMPLETE:
                    raise RuntimeError(f"the server answered {last}")
                return last.newest_version

        begin_s = time.monotonic()
        while time.monotonic() - begin_s < seconds:
            version = max(await asyncio.gather(*(one(device) for device in range(DEVICES))))
            count += DEVICES
        took_s = time.monotonic() - begin_s
        for stream in streams:
            stream.cancel()
    return count, took_s


def join_request(device: int, dimension: int) -> pb.JoinRequest:
    offer = pb.TaskOffer(name="bench", dimension=dimension, layout_hash=1, samples=1)
    return pb.JoinRequest(
        protocol_version=PROTOCOL_VERSION,
        run_id=1,
        device=device,
        incarnation=device,
        tasks=[offer],
    )


if __name__ == "__main__":
    sys.exit(main())
