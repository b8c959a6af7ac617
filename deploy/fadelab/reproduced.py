"""The models of a finished run with scheduled local periods, made again from what it left behind."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.results.record import RunRecord
from fadelab_proto.codecs import CodecError
from fadelab_proto.events import read_events
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.periods.reproduction import Reproduction, journalled_updates, reproduce
from fadelab_server.scheduler.event_log import EventLogError


def reproduced(run_dir: Path) -> Iterator[tuple[str, Reproduction]]:
    """Yield each task's name and what came of doing its aggregations once more.

    Raises:
        FadelabError: USAGE, if it is no run directory or its server did not schedule periods one
            by one; CHECKPOINT, if log or journal are damaged.

    """
    experiment = RunRecord.load(run_dir).experiment
    periods = experiment.method.pieces().periods
    if periods is None or periods.schedule == "rounds":
        raise FadelabError(
            ExitCode.USAGE,
            f"{run_dir} is a run of method {experiment.method.name}; its log of receptions and "
            "uploads is kept with method dma_fl and schedule rolling or at_once alone",
        )
    folder = run_dir / "checkpoints"
    try:
        lines = read_events(run_dir / "events" / "server-0.jsonl")
        for number, name in enumerate(experiment.learning):
            found = reproduce(
                lines,
                journalled_updates(folder / "journal", number),
                np.load(folder / f"{name}-initial.npy", allow_pickle=False),
                task=name,
                devices=experiment.devices.count,
            )
            yield name, found
    except (EventLogError, CheckpointError, CodecError, OSError, ValueError) as error:
        raise FadelabError(ExitCode.CHECKPOINT, f"{run_dir}: {error}") from None
