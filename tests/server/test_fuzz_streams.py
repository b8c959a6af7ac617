"""Streams of damaged packets, many of them: the server says how each ended, and goes on as before.

``FADELAB_FUZZ`` is the number of packets in ``test_fuzz_packets.py``; here it is one stream in twenty of
these, about six messages each.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tests.proto.codec_cases import CASES
from tests.proto.mutations import Mutator, all_packets
from tests.server.harness import (
    DIMENSION,
    Device,
    Running,
    Update,
    make_config,
    make_update,
    newest,
    running,
)

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import parse_packet
from fadelab_proto.process_memory import private_memory_mib
from fadelab_proto.wire import frame_packet
from fadelab_server.transfer import TransferService

STREAMS = int(os.environ.get("FADELAB_FUZZ", "20000")) // 20
ENDINGS = set(pb.UploadStatus.values()) - {
    pb.UPLOAD_STATUS_UNSPECIFIED,
    pb.UPLOAD_STATUS_RECEIVING,
}
MORE_MEMORY_MIB = 400


class Attack:
    """Sends one stream after another, in this process and without gRPC."""

    def __init__(self, server: Running, device: Device) -> None:
        self.endings: Counter[int] = Counter()
        self._draw = random.Random(3)
        self._noise = np.random.default_rng(3)
        self._mutator = Mutator(self._draw, all_packets())
        self._server = server
        self._device = device
        self._service = TransferService(server.federation)

    async def send_one(self) -> None:
        messages = self._messages(self._next_update())
        task = self._server.federation.tasks[0]
        before = task.updates
        replies = [reply async for reply in self._replies(messages)]
        assert replies[-1].status in ENDINGS
        assert {reply.status for reply in replies[:-1]} <= {pb.UPLOAD_STATUS_RECEIVING}
        taken = (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_CLOSED)
        assert task.updates - before == (replies[-1].status in taken)
        assert np.isfinite(newest(self._server)).all()
        self.endings[replies[-1].status] += 1

    def _next_update(self) -> Update:
        task = self._server.federation.tasks[0]
        delta = self._noise.standard_normal(DIMENSION).astype(np.float32) * np.float32(0.01)
        return make_update(
            delta,
            session=self._device.session,
            update_id=task.last_update.get(0, 0) + 1,
            base_version=task.store.newest.number,
            codec=self._draw.choice(list(CASES.values())).codec,
        )

    def _messages(self, update: Update) -> list[bytes]:
        """Return an update's messages of which some are damaged, repeated, left out or misplaced."""
        draw, mutator = self._draw, self._mutator
        messages = update.messages()
        for _ in range(draw.choice((0, 1, 1, 2, 4))):
            at = draw.randrange(len(messages))
            packet = parse_packet(draw.choice(update.packets))
            messages[at : at + draw.randint(0, 1)] = draw.choice(
                (
                    [frame_packet(mutator.damaged(packet))],
                    [frame_packet(mutator.damaged(packet))],
                    [mutator.injured(draw.choice(messages))],
                    [draw.choice(messages)],
                    [],
                    [pb.UploadPart(close=pb.UploadClose()).SerializeToString()],
                )
            )
            messages = messages or [update.head()]
        return messages

    async def _replies(self, messages: Sequence[bytes]) -> AsyncIterator[pb.UploadReply]:
        async def stream() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        context = SimpleNamespace(peer=lambda: "attacker")
        async for reply in self._service.upload_update(stream(), context):  # type: ignore[arg-type]
            yield reply


def test_damaged_streams_end_with_a_word_and_leave_the_server_as_it_was(tmp_path: Path) -> None:
    async def scenario() -> Counter[int]:
        async with running(make_config(tmp_path, journal_sync=False)) as server:
            device = server.device()
            await device.join()
            attack = Attack(server, device)
            memory_mib = private_memory_mib()
            for _ in range(STREAMS):
                # A stream that nobody answers is an error too.
                await asyncio.wait_for(attack.send_one(), timeout=60)
            assert private_memory_mib() - memory_mib < MORE_MEMORY_MIB
            task = server.federation.tasks[0]
            last = device.update(
                update_id=task.last_update[0] + 1, base_version=task.store.newest.number
            )
            assert (await device.send(last)).status == pb.UPLOAD_STATUS_COMPLETE
            return attack.endings

    endings = asyncio.run(scenario())
    assert endings[pb.UPLOAD_STATUS_COMPLETE] > STREAMS / 20
    assert endings[pb.UPLOAD_STATUS_REFUSED_PACKET] > STREAMS / 20
