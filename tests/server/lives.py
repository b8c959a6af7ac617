"""Servers that are killed at any moment, and a witness who holds their successors to what they told.

Each of them takes updates of devices of its own, without a network. It tells every step through a
pipe, of which nothing is lost when it dies.
"""

import asyncio
import hashlib
import json
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
from tests.processes import CLEAN
from tests.server.harness import DIMENSION, F32, join_request, make_update

from fadelab_emulation import linux
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import SignModulus
from fadelab_proto.events import EventLog
from fadelab_server import state_keeper
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation
from fadelab_server.sessions import Session
from fadelab_server.task_state import ContributionRefusedError

DEVICES = 3
_MOST_WORDS = 60
_SMALL_FILES = {"_SNAPSHOT_BYTES": 20_000, "_SNAPSHOT_EVERY": 1, "_SEGMENT_BYTES": 8_000}
"""Small enough for several snapshots and segments in every life."""


def digest(vector: F32) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()[:16]


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


def kill_again_and_again(config: ServerConfig, *, times: int, seed: int) -> Witness:
    """Start so many servers one after the other and kill each at a random moment."""
    draw = random.Random(seed)
    witness = Witness()
    for _ in range(times):
        kill_after = draw.randrange(1, _MOST_WORDS)
        server, reader = _start(config, updates=1000, limits=_SMALL_FILES)
        for words, word in enumerate(_told(reader), 1):
            witness.hear(word)
            if words == kill_after:
                server.kill()
        server.join()
        assert server.exitcode == -signal.SIGKILL, "it ended by itself"
    return witness


def live_to_the_end(config: ServerConfig, *, updates: int, first: Path) -> dict[str, Any]:
    """Let a server take so many updates of each device; return its last word.

    Its first snapshot and its whole journal are put into the folder ``first``.
    """
    server, reader = _start(config, updates=updates, limits={})
    for word in _told(reader):
        if "resumed" in word:
            first.mkdir()
            shutil.copy(config.checkpoint_dir / "server.state", first)
        final = word
    server.join()
    assert server.exitcode == 0
    shutil.copytree(config.checkpoint_dir / "journal", first / "journal")
    return final


def _start(
    config: ServerConfig, *, updates: int, limits: dict[str, int]
) -> tuple[ForkServerProcess, Connection]:
    """Start a server; return its process and where it tells what it does."""
    reader, writer = CLEAN.Pipe(duplex=False)
    server = CLEAN.Process(target=_live, args=(config, updates, limits, writer), daemon=True)
    with closing(writer):
        server.start()
    return server, reader


def _told(reader: Connection) -> Iterator[dict[str, Any]]:
    with reader:
        while True:
            try:
                yield json.loads(reader.recv_bytes())
            except EOFError:
                return


def _live(config: ServerConfig, updates: int, limits: dict[str, int], tell_to: Connection) -> None:
    linux.signal_on_parent_death(signal.SIGKILL)
    for name, value in limits.items():
        setattr(state_keeper, name, value)
    with EventLog(config.events_dir, "server", "0", SystemClock()) as log:
        asyncio.run(_Life(config, log, tell_to).run(updates))


class _Life:
    """What one server process does between its start and its death; it tells every step."""

    def __init__(self, config: ServerConfig, log: EventLog, tell_to: Connection) -> None:
        self._federation = Federation(config, SystemClock(), log)
        self._in_parts = config.substitute is not None
        self._directory = config.checkpoint_dir
        self._tell_to = tell_to

    def _tell(self, **what: Any) -> None:
        self._tell_to.send_bytes(json.dumps(what).encode())

    async def run(self, updates: int) -> None:
        federation = self._federation
        task = federation.tasks[0]
        if (self._directory / "server.state").exists():
            federation.resume(self._directory)
        await federation.begin()
        self._tell(
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
        self._tell(ended=task.store.shown.number, model=digest(task.store.shown.vector))

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
            self._tell(device=session.device, taken=number)
            self._tell(shown=shown.number, model=digest(shown.vector))
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
