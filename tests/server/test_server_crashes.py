"""A server killed at any moment goes on as if nothing had happened, and forgets nothing it has told."""

import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import (
    DIMENSION,
    FEDASYNC,
    FEDAVG,
    join_request,
    make_config,
    make_update,
)

from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import SignModulus
from fadelab_proto.events import EventLog
from fadelab_server import state_keeper
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.sessions import Session
from fadelab_server.task_state import ContributionRefusedError

DEVICES = 3
RULES = {
    "fedasync": {"aggregation": FEDASYNC},
    "fedavg": {"aggregation": FEDAVG},
    "lazy": {"aggregation": {"kind": "lazy"}},
    "lone signs": {
        "aggregation": {"kind": "fedavg", "missing": "reweigh"},
        "partial_updates": "keep",
        "substitute": {"kind": "last_step"},
    },
}
"""With lone signs, updates are closed with any of their moduli missing."""
every_rule = pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
_LINE = struct.Struct("<I")


def digest(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()[:16]


class Life:
    """What one server process does between its start and its death; it tells every step."""

    def __init__(self, config: ServerConfig, log: EventLog, tell: int) -> None:
        self._federation = Federation(config, SystemClock(), log)
        self._in_parts = config.substitute is not None
        self._directory = config.checkpoint_dir
        self._tell_to = tell

    def tell(self, **what: Any) -> None:
        line = json.dumps(what).encode()
        os.write(self._tell_to, _LINE.pack(len(line)) + line)

    async def run(self, updates: int) -> None:
        federation = self._federation
        task = federation.tasks[0]
        if (self._directory / "server.npz").exists():
            federation.resume(self._directory)
        await federation.begin()
        self.tell(
            resumed=task.store.shown.number,
            model=digest(task.store.shown.vector),
            taken={str(device): number for device, number in task.last_update.items()},
        )
        sessions = [federation.join(join_request(device)) for device in range(DEVICES)]
        for session in sessions:
            federation.stream_opened(session)
        federation.start(100.0)
        await asyncio.gather(*(self._device(session, updates) for session in sessions))
        await federation.close()
        assert federation.stop_reason is None
        self.tell(ended=task.store.shown.number, model=digest(task.store.shown.vector))

    async def _device(self, session: Session, updates: int) -> None:
        task = self._federation.tasks[0]
        for _ in range(updates):
            number = task.last_update.get(session.device, 0) + 1
            await self._round(session)
            base = task.store.shown
            task.fetched[session.device] = base
            try:
                await self._upload(session, number)
            except ContributionRefusedError:
                continue
            shown = task.store.shown
            self.tell(device=session.device, taken=number)
            self.tell(shown=shown.number, model=digest(shown.vector))
        # Nobody waits in a round for one that has left.
        self._federation.stream_closed(session)

    async def _round(self, session: Session) -> None:
        """Wait until the rule takes an update of the device: in rounds, it gives one in each."""
        federation, seen = self._federation, -1
        task = federation.tasks[0]
        while task.refuse(device=session.device, base_version=task.store.shown.number):
            seen = await federation.changed.changed_since(seen)

    async def _upload(self, session: Session, number: int) -> None:
        federation = self._federation
        base = federation.tasks[0].store.shown
        # The same update whenever it is computed: what a device resumes, it resumes unchanged.
        draw = np.random.default_rng([session.device, number, base.number])
        update = make_update(
            draw.standard_normal(DIMENSION, dtype=np.float32),
            device=session.device,
            update_id=number,
            base_version=base.number,
            codec=SignModulus(16) if self._in_parts else None,
        )
        assembly = federation.open_upload(update.header, session, base)
        first, *others = update.packets
        arriving = [own for own in others if not self._in_parts or draw.random() < 0.5]
        for packet in (first, *arriving):
            federation.add_packet(assembly, packet)
            await asyncio.sleep(0)
        await federation.finish_upload(assembly)


def live(config: ServerConfig, updates: int) -> tuple[int, int]:
    """Fork a server; return its process id and where it tells what it does."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            with EventLog(config.events_dir, "server", "0", SystemClock()) as log:
                asyncio.run(Life(config, log, writer).run(updates))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return child, reader


def told(reader: int) -> Iterator[dict[str, Any]]:
    with os.fdopen(reader, "rb") as pipe:
        while len(head := pipe.read(_LINE.size)) == _LINE.size:
            (length,) = _LINE.unpack(head)
            line = pipe.read(length)
            if len(line) == length:
                yield json.loads(line)


class Witness:
    """Believes what servers have told, and holds their successors to it."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.models: dict[int, str] = {}
        self.newest = 0

    def hear(self, word: dict[str, Any]) -> None:
        if "resumed" in word:
            assert word["resumed"] >= self.newest
            for device, number in self.taken.items():
                assert word["taken"].get(device, 0) >= number, "an acknowledged update is lost"
            assert sum(word["taken"].values()) >= sum(self.taken.values())
            self.taken.update(word["taken"])
            self._see(word["resumed"], word["model"])
        elif "shown" in word:
            self._see(word["shown"], word["model"])
        elif "taken" in word:
            device = str(word["device"])
            assert word["taken"] == self.taken.get(device, 0) + 1, "an update was taken twice"
            self.taken[device] = word["taken"]

    def _see(self, version: int, model: str) -> None:
        assert self.models.setdefault(version, model) == model, f"version {version} has changed"
        self.newest = max(self.newest, version)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerConfig:
    # Small enough for several snapshots and segments in every life.
    monkeypatch.setattr(state_keeper, "_SNAPSHOT_BYTES", 20_000)
    monkeypatch.setattr(state_keeper, "_SNAPSHOT_EVERY", 1)
    monkeypatch.setattr(state_keeper, "_SEGMENT_BYTES", 8_000)
    return make_config(tmp_path, devices=DEVICES, stop={"duration_s": 1e9}, journal_sync=False)


@every_rule
def test_a_server_killed_at_fifty_moments_loses_and_repeats_nothing(
    config: ServerConfig, settings: dict[str, Any]
) -> None:
    config = ServerConfig.model_validate(config.model_dump() | settings)
    draw = random.Random(7)
    witness = Witness()
    for _ in range(50):
        child, reader = live(config, updates=1000)
        kill_after = draw.randrange(1, 60)
        for words, word in enumerate(told(reader), 1):
            witness.hear(word)
            if words == kill_after:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it ended by itself"
    assert witness.newest > 50
    assert sum(witness.taken.values()) > 100


@every_rule
def test_the_journal_replayed_from_the_beginning_gives_the_final_model(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = make_config(
        tmp_path, devices=DEVICES, stop={"duration_s": 1e9}, journal_sync=False, **settings
    )
    first = tmp_path / "first"
    child, reader = live(config, updates=40)
    for word in told(reader):
        if "resumed" in word:
            first.mkdir()
            shutil.copy(config.checkpoint_dir / "server.npz", first)
        final = word
    assert os.waitpid(child, 0)[1] == 0
    assert final["ended"] >= 20
    shutil.copytree(config.checkpoint_dir / "journal", first / "journal")

    async def replay() -> str:
        with EventLog(tmp_path / "again", "server", "0", SystemClock()) as log:
            federation = Federation(config, SystemClock(), log)
            federation.keeper.restore(first)
            shown = federation.tasks[0].store.shown
            assert shown.number == final["ended"]
            return digest(shown.vector)

    assert asyncio.run(replay()) == final["model"]
