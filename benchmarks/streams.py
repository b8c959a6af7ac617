"""A thousand devices that upload at once, each over its own slow connection.

    python benchmarks/streams.py [--streams 1000] [--seconds 60] [--payload-bytes 32768]

A real server (FedAvg over all devices, journal on the disk) in a process of its own; each device opens
its own connection and sends one update of 1 MiB at an even pace. Ideal is the time that the pace takes;
printed is when the last update was taken, by how much that is more, and what the server needed.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from served import (
    RUN_ID,
    cpu_s,
    join_request,
    peak_mib,
    serve_and_tell,
    server_config,
    status,
)

from fadelab_agent.encoded_update import EncodedUpdate, UpdateIdentity, encode_update
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.codecs import DenseF32
from fadelab_proto.wire import SERVICE, channel_options, serialize_part

DIMENSION = 1 << 18
SAMPLES = 60
_JOINED_AT_ONCE = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--payload-bytes", type=int, default=32768)
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = Path(tempfile.mkdtemp(prefix="streams-"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            config = server_config(
                folder,
                dimension=DIMENSION,
                devices=arguments.streams,
                max_payload_bytes=arguments.payload_bytes,
            )
            serve_and_tell(config, writer)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader) as pipe:
            port = int(pipe.readline())
            took_s, sent_s = asyncio.run(Devices(port, folder, arguments).run())
        report(child, arguments, took_s, sent_s)
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
        shutil.rmtree(folder)
    return 0


def report(server: int, arguments: argparse.Namespace, took_s: float, sent_s: float) -> None:
    print(
        f"{arguments.streams} streams of 1 MiB over {arguments.seconds:g} s: the last was taken after "
        f"{took_s:.2f} s ({took_s / arguments.seconds:.3f} of ideal), sent after {sent_s:.2f} s"
    )
    print(
        f"server: at most {peak_mib(server):.0f} MiB, "
        f"{status(server)['Threads']} threads, {cpu_s(server):.1f} s of CPU"
    )


class Devices:
    """All devices, in one process."""

    def __init__(self, port: int, folder: Path, arguments: argparse.Namespace) -> None:
        self._address = f"127.0.0.1:{port}"
        self._folder = folder
        self._arguments = arguments
        self._sent_s: list[float] = []

    async def run(self) -> tuple[float, float]:
        """Return when the last update was taken and when the last packet was handed to gRPC."""
        arguments = self._arguments
        draw = np.random.default_rng(1)
        encoding = DenseF32().encode(
            draw.standard_normal(DIMENSION, dtype=np.float32),
            max_payload_bytes=arguments.payload_bytes,
            generator=draw,
        )
        async with contextlib.AsyncExitStack() as stack:
            gate = asyncio.Semaphore(_JOINED_AT_ONCE)
            channels = [
                await stack.enter_async_context(
                    grpc.aio.insecure_channel(self._address, options=channel_options())
                )
                for _ in range(arguments.streams)
            ]
            sessions = await asyncio.gather(
                *(self._join(channel, device, gate) for device, channel in enumerate(channels))
            )
            local = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"unix:{self._folder / 'operator'}")
            )
            start = pb.StartRequest(start_mono_s=time.monotonic())
            await pb_grpc.OperatorStub(local).Start(start)
            updates = [
                encode_update(
                    UpdateIdentity(
                        run_id=RUN_ID,
                        device=device,
                        session=session,
                        task_index=0,
                        update_id=1,
                        base_version=0,
                        dimension=DIMENSION,
                        samples=SAMPLES,
                    ),
                    encoding,
                )
                for device, (session, _) in enumerate(sessions)
            ]
            begin_s = time.monotonic()
            await asyncio.gather(
                *(
                    self._upload(channel, update, device, begin_s)
                    for device, (channel, update) in enumerate(zip(channels, updates, strict=True))
                )
            )
            for _, stream in sessions:
                stream.cancel()
        return time.monotonic() - begin_s, max(self._sent_s) - begin_s

    async def _join(
        self, channel: grpc.aio.Channel, device: int, gate: asyncio.Semaphore
    ) -> tuple[int, grpc.aio.UnaryStreamCall[pb.WatchDirectivesRequest, pb.Directive]]:
        request = join_request(device, dimension=DIMENSION, samples=SAMPLES)
        async with gate:
            stub = pb_grpc.FederationStub(channel)
            joined = await stub.Join(request)
            stream = stub.WatchDirectives(pb.WatchDirectivesRequest(session=joined.session))
            await stream.read()
        return joined.session, stream

    async def _upload(
        self, channel: grpc.aio.Channel, update: EncodedUpdate, device: int, begin_s: float
    ) -> None:
        upload = channel.stream_stream(
            f"/{SERVICE}/UploadUpdate",
            request_serializer=serialize_part,
            response_deserializer=pb.UploadReply.FromString,
        )
        call = upload()
        await call.write(pb.UploadPart(header=update.header))
        pause_s = self._arguments.seconds / len(update.packets)
        # Devices do not send in step; the last packet of each is due within the last pause.
        offset_s = pause_s * (device / self._arguments.streams)
        for number, packet in enumerate(update.packets):
            due_s = begin_s + offset_s + number * pause_s
            await asyncio.sleep(due_s - time.monotonic())
            await call.write(packet)
        await call.done_writing()
        self._sent_s.append(time.monotonic())
        last = pb.UploadReply()
        async for reply in call:
            last = reply
        if last.status != pb.UPLOAD_STATUS_COMPLETE:
            raise RuntimeError(f"the server answered {last}")


if __name__ == "__main__":
    sys.exit(main())
