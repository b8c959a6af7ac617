"""Many slow uploads at once: no thread for each, bounded memory, nothing lost."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
from tests.server.harness import (
    DIMENSION,
    FEDAVG,
    QUERY,
    Device,
    Running,
    initial_vector,
    make_config,
    newest,
    next_reply,
    outcome,
    running,
)

from fadelab_proto import federation_pb2 as pb

STREAMS = 150
MEMORY_BYTES = 40_000
"""Of the 80 kB that the packets of all first halves take."""


def one_connection_for_all(run: Running) -> list[Device]:
    channel = run.connect(f"127.0.0.1:{run.port}")
    return [Device(channel, number) for number in range(STREAMS)]


async def half_way(device: Device) -> Any:
    """Send the header and the first of three packets; return the open stream."""
    call = device.open_upload()
    for message in (*device.update(1.0 + device.number).messages([0]), QUERY):
        await call.write(message)
    assert (await next_reply(call)).received
    return call


async def the_rest(device: Device, call: Any) -> pb.UploadReply:
    for message in device.update(1.0 + device.number).messages()[2:]:
        await call.write(message)
    await call.done_writing()
    return await outcome(call)


def test_many_slow_streams_need_neither_threads_nor_memory_of_their_own(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, devices=STREAMS, aggregation=FEDAVG, upload_memory_bytes=MEMORY_BYTES
    )

    async def scenario() -> None:
        async with running(config) as run:
            devices = one_connection_for_all(run)
            for device in devices:
                await device.join()
            streams = [device.directives() for device in devices]
            for stream in streams:
                await stream.read()
            run.federation.start(run.federation.clock.now_s())
            threads_before = threading.active_count()
            calls = await asyncio.gather(*(half_way(device) for device in devices))
            keeper = run.federation.keeper
            assert len(keeper.uploads) == STREAMS
            assert 0 < keeper.memory_bytes <= MEMORY_BYTES
            assert any(not upload.in_memory for upload in keeper.uploads.values())
            assert threading.active_count() - threads_before < 10
            pairs = zip(devices, calls, strict=True)
            replies = await asyncio.gather(*(the_rest(*pair) for pair in pairs))
            assert {reply.status for reply in replies} == {pb.UPLOAD_STATUS_COMPLETE}
            assert keeper.memory_bytes == 0
            assert run.federation.tasks[0].store.newest.number == 1
            mean = np.float32((1.0 + STREAMS) / 2)
            expected = initial_vector() + np.full(DIMENSION, mean, dtype=np.float32)
            np.testing.assert_allclose(newest(run), expected, rtol=1e-5)
            for stream in streams:
                stream.cancel()

    asyncio.run(scenario())
