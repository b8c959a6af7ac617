"""A server killed at any moment goes on as if nothing had happened, and forgets nothing it has told."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.server.harness import FEDASYNC, FEDAVG, make_config
from tests.server.lives import DEVICES, digest, kill_again_and_again, live_to_the_end

from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation

RULES = {
    "fedasync": {"aggregation": FEDASYNC},
    "fedavg": {"aggregation": FEDAVG},
    "lazy": {"aggregation": {"kind": "lazy"}},
    "afl": {"aggregation": {"kind": "afl", "staleness": {"kind": "polynomial"}}},
    "fedbuff": {"aggregation": {"kind": "fedbuff", "buffer": 2}},
    "lone signs": {
        "aggregation": {"kind": "fedavg", "missing": "reweigh"},
        "partial_updates": "keep",
        "substitute": {"kind": "last_step"},
    },
}
"""With lone signs, updates are closed with any of their moduli missing."""
every_rule = pytest.mark.parametrize("settings", RULES.values(), ids=RULES)


def make(folder: Path, settings: dict[str, Any]) -> ServerConfig:
    return make_config(
        folder, devices=DEVICES, stop={"duration_s": 1e9}, journal_sync=False, **settings
    )


@every_rule
def test_a_server_killed_at_fifty_moments_loses_and_repeats_nothing(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    witness = kill_again_and_again(make(tmp_path, settings), times=50, seed=7)
    assert witness.newest > 50
    assert sum(witness.taken.values()) > 100


@every_rule
def test_the_journal_replayed_from_the_beginning_gives_the_final_model(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = make(tmp_path, settings)
    first = tmp_path / "first"
    final = live_to_the_end(config, updates=40, first=first)
    assert final["ended"] >= 20

    async def replay() -> str:
        with EventLog(tmp_path / "again", "server", "0", SystemClock()) as log:
            federation = Federation(config, SystemClock(), log)
            federation.keeper.restore(first)
            shown = federation.tasks[0].store.shown
            assert shown.number == final["ended"]
            return digest(shown.vector)

    assert asyncio.run(replay()) == final["model"]
