"""A server whose model moves by coded steps makes the same steps again after it was killed."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.server.harness import FEDASYNC, FEDAVG, make_config
from tests.server.lives import DEVICES, digest, kill_again_and_again, live_to_the_end

from fadelab_proto.clock import SystemClock
from fadelab_proto.events import EventLog
from fadelab_server import checkpoint
from fadelab_server.config import ServerConfig
from fadelab_server.federation import Federation

RULES = pytest.mark.parametrize("rule", [FEDASYNC, FEDAVG], ids=["fedasync", "fedavg"])
STEPS = {"kind": "quantised", "codec": {"kind": "uniform", "bits": 5, "block": 64}}
"""Its rounding is random: a step that is made again with other dither would be another one."""


def make(folder: Path, rule: Any) -> ServerConfig:
    return make_config(
        folder,
        devices=DEVICES,
        stop={"duration_s": 1e9},
        journal_sync=False,
        aggregation=rule,
        downlink=STEPS,
        seed=11,
    )


@RULES
def test_no_version_is_another_one_after_a_crash(tmp_path: Path, rule: Any) -> None:
    witness = kill_again_and_again(make(tmp_path, rule), times=20, seed=13)
    assert witness.newest > 20


@RULES
def test_the_journal_replayed_from_the_beginning_gives_model_and_residual(
    tmp_path: Path, rule: Any
) -> None:
    config = make(tmp_path, rule)
    first = tmp_path / "first"
    final = live_to_the_end(config, updates=20, first=first)
    assert final["ended"] >= 10
    _, arrays = checkpoint.load(config.checkpoint_dir)
    residual = arrays["0.residual"]
    assert residual.any()

    async def replay() -> None:
        with EventLog(tmp_path / "again", "server", "0", SystemClock()) as log:
            federation = Federation(config, SystemClock(), log)
            federation.keeper.restore(first)
            task = federation.tasks[0]
            assert task.store.shown.number == final["ended"]
            assert digest(task.store.shown.vector) == final["model"]
            assert task.steps is not None
            np.testing.assert_array_equal(task.steps.residual, residual)
            # A replay makes the steps again: devices that hold older versions are served by them.
            made = [held for held in range(final["ended"]) if task.steps.between(held, held + 1)]
            assert len(made) >= 10

    asyncio.run(replay())
