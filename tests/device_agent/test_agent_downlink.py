"""Downloads: resumed after a cut, and nothing damaged is taken for a model."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import numpy as np
import pytest
from tests.device_agent.agent_harness import (
    LARGE,
    ArrivalClock,
    HandRadio,
    HurriedClock,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
)
from tests.server.harness import F32, RUN, Running, initial_vector, make_config, offer, running

from fadelab_agent.downlink import Downlink, Model, ModelDamagedError
from fadelab_agent.progress import StalledError
from fadelab_agent.radio import Radio
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.codecs import DenseF32, SignOnly
from fadelab_proto.packet import Packet
from fadelab_proto.wire import (
    NEWEST_VERSION,
    SERVICE,
    channel_options,
    frame_packet,
    server_options,
)

PACKETS = 100
PACKET_ON_THE_WIRE = 512 + 40 + 60


def publish(server: Running, vector: F32) -> None:
    store = server.federation.tasks[0].store
    store.show(store.publish(vector, 0.0))


@asynccontextmanager
async def downlink(
    folder: Path,
    channel: grpc.aio.Channel,
    *,
    radio: Radio | None = None,
    stall_s: float = 30.0,
    keeps_model: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator[Downlink]:
    with agent_log(folder) as log:
        yield Downlink(
            channel,
            radio=radio or HandRadio(),
            clock=clock or HurriedClock(),
            log=log,
            stall_s=stall_s,
            keeps_model=keeps_model,
        )


async def session(server: Running) -> int:
    dimension = server.config.tasks[0].dimension
    return (await server.device().join(tasks=[offer(dimension=dimension)])).session


def test_a_version_arrives_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(large_config(tmp_path)) as server:
            publish(server, initial_vector(LARGE) * 2)
            channel = server.connect(f"127.0.0.1:{server.port}")
            token = await session(server)
            async with downlink(tmp_path, channel) as down:
                newest = await down.fetch(session=token, task_index=0, dimension=LARGE)
                first = await down.fetch(session=token, task_index=0, dimension=LARGE, version=0)
            assert (newest.version, first.version) == (1, 0)
            np.testing.assert_array_equal(newest.vector, initial_vector(LARGE) * 2)
            np.testing.assert_array_equal(first.vector, initial_vector(LARGE))
            assert first.payload_bytes == 4 * LARGE

    go(scenario)


def test_a_download_that_was_cut_goes_on_where_it_stood(tmp_path: Path) -> None:
    clock = ArrivalClock()

    async def scenario() -> None:
        async with (
            running(large_config(tmp_path)) as server,
            proxied(server, hold_down=30000) as (proxy, channel),
            downlink(tmp_path, channel, clock=clock) as down,
        ):
            token = await session(server)
            fetching = asyncio.create_task(down.fetch(session=token, task_index=0, dimension=LARGE))
            await proxy.held.wait()
            await clock.asked.wait()
            # What is asked for is the newest version; a newer one must not get mixed in.
            publish(server, initial_vector(LARGE) * 2)
            proxy.cut()
            model = await fetching
            assert model.version == 0
            np.testing.assert_array_equal(model.vector, initial_vector(LARGE))
            (event,) = agent_events(tmp_path, "download_interrupted")
            missing = PACKETS - event["packets"]
            assert 0 < missing < PACKETS
            assert proxy.passed_down[1] < missing * PACKET_ON_THE_WIRE + 2000

    go(scenario)


def test_a_version_that_went_while_the_connection_was_cut_is_replaced_by_the_newest(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with (
            running(large_config(tmp_path, history_bytes=0)) as server,
            proxied(server, hold_down=30000) as (proxy, channel),
            downlink(tmp_path, channel) as down,
        ):
            token = await session(server)
            fetching = asyncio.create_task(down.fetch(session=token, task_index=0, dimension=LARGE))
            await proxy.held.wait()
            for factor in (2, 3):
                publish(server, initial_vector(LARGE) * factor)
            proxy.cut()
            model = await fetching
            assert model.version == 2
            np.testing.assert_array_equal(model.vector, initial_vector(LARGE) * 3)

    go(scenario)


@pytest.mark.parametrize(
    ("token", "fields", "code"),
    [
        (None, {"version": 7}, grpc.StatusCode.NOT_FOUND),
        (1, {}, grpc.StatusCode.UNAUTHENTICATED),
        (None, {"task_index": 4}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_the_server_refuses_is_not_tried_again(
    tmp_path: Path, token: int | None, fields: dict[str, int], code: grpc.StatusCode
) -> None:
    async def scenario() -> None:
        async with running(make_config(tmp_path)) as server:
            channel = server.connect(f"127.0.0.1:{server.port}")
            asked = {"session": token or await session(server), "task_index": 0, "dimension": 300}
            async with downlink(tmp_path, channel) as down:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await down.fetch(**(asked | fields))
            assert caught.value.code() == code
        assert agent_events(tmp_path, "download_interrupted") == []

    go(scenario)


def test_attempts_that_bring_nothing_end_with_the_figures(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e6)
        async with (
            running(make_config(tmp_path)) as server,
            proxied(server, hold_down=0) as (_, channel),
            downlink(tmp_path, channel, radio=radio, stall_s=1.0) as down,
        ):
            token = await session(server)
            radio.per_question_s = 10.0
            with pytest.raises(
                StalledError,
                match=r"3 attempts in a row brought no packet of the model beyond 0; "
                r"last cause: nothing moved on the downlink for \d+\.0 s in contact",
            ):
                await down.fetch(session=token, task_index=0, dimension=300)

    go(scenario)


# -- a server that sends something else than it announced --------------------------------------

VECTOR = initial_vector(300)
CHECKSUM_OF_ANOTHER = 12345
Parts = list[bytes]
BREAK_OFF = b""


def info(**changes: int) -> bytes:
    checksum = {"checksum": google_crc32c.value(VECTOR.astype("<f4").tobytes())}
    fields = {"version": 4, "dimension": 300, "packets": 3} | checksum | changes
    return pb.ModelPart(info=pb.ModelInfo(**fields)).SerializeToString()


def packets(**changes: Any) -> list[Packet]:
    chunks = DenseF32().chunks(VECTOR, max_payload_bytes=512)
    return [
        dataclasses.replace(
            Packet(
                packet_class=pb.PACKET_CLASS_MODEL,
                codec=chunk.codec,
                task_index=0,
                device=0,
                run_id=RUN,
                update_id=0,
                base_version=4,
                first=chunk.first,
                count=chunk.count,
                sequence=sequence,
                packets=len(chunks),
                payload=chunk.payload,
            ),
            **changes,
        )  # type: ignore[arg-type]
        for sequence, chunk in enumerate(chunks)
    ]


def signs() -> list[Packet]:
    """One packet that has the signs of all entries and nothing else."""
    draw = np.random.default_rng(1)
    (chunk,) = SignOnly().encode(VECTOR, max_payload_bytes=512, generator=draw).chunks
    whole = {"first": 0, "count": 300, "sequence": 0, "packets": 1}
    return packets(codec=chunk.codec, payload=chunk.payload, **whole)[:1]


def framed(parts: list[Packet]) -> Parts:
    return [frame_packet(packet.encode()) for packet in parts]


def one_bit_turned() -> Parts:
    first = bytearray(packets()[0].encode())
    first[100] ^= 1
    return [info(), frame_packet(bytes(first)), *framed(packets()[1:])]


@asynccontextmanager
async def answering(
    folder: Path, answer: Callable[[pb.FetchModelRequest], Parts], *, keeps_model: bool = False
) -> AsyncIterator[Downlink]:
    async def fetch_model(request: pb.FetchModelRequest, context: Any) -> AsyncIterator[bytes]:
        for part in answer(request):
            if part == BREAK_OFF:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")
            yield part

    server = grpc.aio.server(options=server_options())
    handler = grpc.unary_stream_rpc_method_handler(
        fetch_model, request_deserializer=pb.FetchModelRequest.FromString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"FetchModel": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=channel_options()) as channel,
            downlink(folder, channel, keeps_model=keeps_model) as down,
        ):
            yield down
    finally:
        await server.stop(None)


async def fetch_from(folder: Path, answer: Callable[[pb.FetchModelRequest], Parts]) -> Model:
    async with answering(folder, answer) as down:
        return await down.fetch(session=1, task_index=0, dimension=300)


def test_the_answers_below_are_wrong_in_one_point_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = await fetch_from(tmp_path, lambda _: [info(), *framed(packets())])
        np.testing.assert_array_equal(model.vector, VECTOR)

    go(scenario)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (one_bit_turned(), "the packet was damaged"),
        ([info(checksum=CHECKSUM_OF_ANOTHER), *framed(packets())], "checksum does not match"),
        ([info(dimension=299), *framed(packets())], "has 299 parameters, ours 300"),
        ([info(), *framed(packets()[:2])], "ended the model early"),
        ([], "ended the model early"),
        (framed(packets()), "before the model's description"),
        ([info(), *framed(packets(packet_class=pb.PACKET_CLASS_UPDATE))], "of class 1 came with a"),
        (
            [info(), *framed(packets(packets=4))],
            "packet 0 of 4 of version 4 came where packet 0 of 3",
        ),
        ([info(packets=65536)], "a model in 65536 packets"),
        ([info(base_version=3), *framed(packets())], "changed since version 3, we hold None"),
        ([info(adds=True), *framed(packets())], "steps without saying from which version"),
        ([info(packets=1), *framed(signs())], "holds no entries of a model"),
        ([info(), *framed(packets()[1:])], "packet 1 of 3 of version 4 came where packet 0 of 3"),
        ([info(), *framed(packets(base_version=5))], "packet 0 of 3 of version 5 came where"),
        ([info(), *framed(packets(first=250))], "reaches beyond the model"),
        ([info(), b"\x12\x05abc"], "declared length"),
        ([b"\xff\xff"], "not a protobuf message"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path: Path, parts: Parts, reason: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ModelDamagedError, match=reason):
            await fetch_from(tmp_path, lambda _: parts)

    go(scenario)


def test_another_model_under_the_same_version_is_not_appended(tmp_path: Path) -> None:
    """A server that lost a version and published it anew must not be resumed from."""
    asked: list[tuple[int, int]] = []

    def answer(request: pb.FetchModelRequest) -> Parts:
        asked.append((request.version, request.skip_packets))
        if len(asked) == 1:
            return [info(), *framed(packets()[:1]), BREAK_OFF]
        return [info(checksum=CHECKSUM_OF_ANOTHER), *framed(packets()[1:])]

    async def scenario() -> None:
        with pytest.raises(ModelDamagedError, match="another model than it had begun"):
            await fetch_from(tmp_path, answer)
        assert asked == [(NEWEST_VERSION, 0), (4, 1)]

    go(scenario)
