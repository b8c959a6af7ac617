"""A device that holds a model meets a server that sends other changes than it announced."""

from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from tests.device_agent.agent_harness import agent_events, go
from tests.device_agent.test_agent_downlink import (
    BREAK_OFF,
    VECTOR,
    answering,
    framed,
    info,
    packets,
)
from tests.server.harness import F32

from fadelab_agent.downlink import Downlink, ModelDamagedError
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs.changes import changed_entries
from fadelab_proto.packet import Packet

HELD = (VECTOR + 1).astype(np.float32)


def changes(base: F32 = HELD, **other: Any) -> list[Packet]:
    """Return the packets that turn ``base`` into the model of version 4."""
    chunks = changed_entries(base, VECTOR, max_payload_bytes=512)
    assert chunks is not None
    return [
        packets(
            codec=chunk.codec,
            first=chunk.first,
            count=chunk.count,
            payload=chunk.payload,
            sequence=sequence,
            packets=len(chunks),
            **other,
        )[0]
        for sequence, chunk in enumerate(chunks)
    ]


def delta_info(**fields: int) -> bytes:
    return info(**({"base_version": 3, "packets": len(changes())} | fields))


async def hold_version_3(down: Downlink) -> None:
    await down.fetch(session=1, task_index=0, dimension=300, version=3)


def whole(vector: F32, version: int) -> list[bytes]:
    sum_of_it = google_crc32c.value(vector.astype("<f4").tobytes())
    dense = [
        packets(
            base_version=version,
            payload=vector[first : first + 100].tobytes(),
            first=first,
            count=100,
            sequence=first // 100,
        )[0]
        for first in (0, 100, 200)
    ]
    return [info(version=version, checksum=sum_of_it), *framed(dense)]


def test_a_device_whose_own_copy_is_wrong_fetches_the_whole_model_once(tmp_path: Path) -> None:
    asked: list[tuple[int, int | None]] = []

    def answer(request: pb.FetchModelRequest) -> list[bytes]:
        held = request.held_version if request.HasField("held_version") else None
        asked.append((request.version, held))
        if request.version == 3:
            return whole(HELD, 3)
        # The server's version 3 was another one: entry 7 of it needed no change.
        other = HELD.copy()
        other[7] = VECTOR[7]
        sent = changes(other)
        return whole(VECTOR, 4) if held is None else [delta_info(packets=len(sent)), *framed(sent)]

    async def scenario() -> None:
        async with answering(tmp_path, answer, keeps_model=True) as down:
            await hold_version_3(down)
            model = await down.fetch(session=1, task_index=0, dimension=300, version=4)
            np.testing.assert_array_equal(model.vector, VECTOR)
            assert (model.kind, asked) == ("full", [(3, None), (4, 3), (4, None)])
            # Both ways crossed the link.
            assert model.packets == 3 + len(changes())
            (event,) = agent_events(tmp_path, "download_interrupted")
            assert "version 3 is not what the server holds" in event["cause"]

    go(scenario)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([delta_info(base_version=2), *framed(changes())], "since version 2, we hold 3"),
        ([delta_info(packets=4), *framed(changes())], "packet 0 of 3 of version 4 came where"),
        ([delta_info(), *framed(changes()[1:])], "packet 1 of 3 of version 4 came where packet 0"),
        ([delta_info(), *framed(changes()[:-1])], "ended the model early"),
        ([delta_info(), *framed([*changes(), *changes()])], "came where packet 3 of 3"),
        ([delta_info(), *framed(changes(base_version=3))], "packet 0 of 3 of version 3 came"),
        ([delta_info(), *framed(packets(count=4_000_000_000))], "reaches beyond the model"),
        ([delta_info(dimension=10**9)], "has 1000000000 parameters, ours 300"),
    ],
)
def test_changes_that_do_not_belong_are_refused(
    tmp_path: Path, parts: list[bytes], reason: str
) -> None:
    async def scenario() -> None:
        def answer(request: pb.FetchModelRequest) -> list[bytes]:
            return whole(HELD, 3) if request.version == 3 else parts

        async with answering(tmp_path, answer, keeps_model=True) as down:
            await hold_version_3(down)
            with pytest.raises(ModelDamagedError, match=reason):
                await down.fetch(session=1, task_index=0, dimension=300, version=4)

    go(scenario)


def test_a_held_model_stays_as_it_is_while_changes_arrive(tmp_path: Path) -> None:
    attempts: list[int] = []

    def answer(request: pb.FetchModelRequest) -> list[bytes]:
        if request.version == 3:
            return whole(HELD, 3)
        attempts.append(request.skip_packets)
        if len(attempts) == 1:
            return [delta_info(), *framed(changes()[:1]), BREAK_OFF]
        if request.skip_packets:
            # It goes on in another way: whoever had spoilt his copy could not begin again.
            return [delta_info(packets=2), *framed(changes()[1:])]
        return [delta_info(), *framed(changes())]

    async def scenario() -> None:
        async with answering(tmp_path, answer, keeps_model=True) as down:
            await hold_version_3(down)
            model = await down.fetch(session=1, task_index=0, dimension=300, version=4)
            np.testing.assert_array_equal(model.vector, VECTOR)
            assert attempts == [0, 1, 0]

    go(scenario)
