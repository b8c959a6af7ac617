"""What devices learn in rounds, without a network: the same training, coding and aggregation.

Devices and server are the product's own parts: workbench, policy, memories, codecs, packets and the
aggregation rule. Where runs differ in nothing but how powers are decided, rounds in which everybody
sends are the same in all of them, so they are learned once (:class:`SharedRounds`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fadelab.experiment import Experiment
from fadelab.local.plan import RunPlan
from fadelab_agent.agent import lazy_upload, memory_kind
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.compute import compute_energy_j, compute_time_s
from fadelab_agent.encoded_update import UpdateIdentity, encode_update
from fadelab_agent.policy import Observation, build_policy
from fadelab_agent.settling import settled
from fadelab_agent.wire_size import wire_bits
from fadelab_agent.workbench import DeviceWork, Workbench
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Encoding
from fadelab_proto.events import EventLog
from fadelab_proto.seeds import Stream, generator
from fadelab_server.assembly import Held, UpdateAssembly
from fadelab_server.config import ServerConfig
from fadelab_server.model_store import Version
from fadelab_server.new_task import new_task

F32 = NDArray[np.float32]
_NO_PACKETS = Encoding((), 0)


@dataclass(frozen=True, slots=True)
class Reported:
    """What one device tells of its update."""

    bits: int
    wire_bits: int
    compute_s: float
    compute_j: float


class _Device:
    """One device's side: train, code, remember."""

    def __init__(self, config: AgentConfig, work: DeviceWork, log: EventLog) -> None:
        self._config = config
        self._work = work
        self._policy = build_policy(config.policy)
        self._memory = memory_kind(config)(work.dimension)
        self._lazy = lazy_upload(config, work, log)
        self._number = 0
        self._waiting: F32 = np.zeros(0, dtype=np.float32)
        self._encoding = _NO_PACKETS

    def train(self, base: Version) -> Reported:
        """Train from a version and code the update."""
        config, self._number = self._config, self._number + 1
        trained = self._work.train(base.vector, self._number)
        self._waiting = self._memory.add(trained.delta)
        codec = self._policy.decide(self._observation()).codec
        dither = generator(config.seed, Stream.CODEC, config.device, 0, self._number)
        self._encoding = codec.encode(
            self._waiting, max_payload_bytes=config.max_payload_bytes, generator=dither
        )
        if self._lazy is not None:
            self._encoding = self._lazy.consider(
                self._waiting, self._encoding, model=base.vector, update_id=self._number
            )
        steps, size = trained.steps, trained.batch_size
        return Reported(
            self._encoding.nominal_bits,
            wire_bits(self._encoding),
            compute_time_s(config.compute, steps=steps, batch_size=size),
            compute_energy_j(config.compute, steps=steps, batch_size=size),
        )

    def _observation(self) -> Observation:
        """Return what a device sees whose link nobody knows."""
        return Observation(
            dimension=self._work.dimension,
            update_number=self._number,
            base_age_s=0.0,
            rate_up_bps=0.0,
            snr_db=0.0,
            predicted_contact_s=np.inf,
            squared_norm=float(np.dot(self._waiting, self._waiting)),
            layers=self._work.layers,
        )

    def send(self, base: Version, *, has_power: bool) -> UpdateAssembly | None:
        """Return the update as the server has it; None if nothing is sent and nothing said."""
        if not has_power and self._encoding.chunks:
            if self._lazy is None:
                return None
            self._encoding = _NO_PACKETS
        identity = UpdateIdentity(
            run_id=self._config.run_id,
            device=self._config.device,
            session=0,
            task_index=0,
            update_id=self._number,
            base_version=base.number,
            dimension=self._work.dimension,
            samples=self._work.samples,
        )
        update = encode_update(identity, self._encoding)
        update.header.fresh_reference = self._lazy is not None and self._lazy.fresh
        held = UpdateAssembly(
            update.header, base, device=identity.device, run_id=identity.run_id, now_s=0.0
        )
        for data in update.packets:
            packet = held.accept(memoryview(data))
            assert packet is not None
            held.hold(packet, Held(0, len(data), packet), 0.0)
        self._memory.settle(settled(update.chunks(), self._waiting, self._config.substitute))
        if self._lazy is not None:
            self._lazy.ended(update.header, pb.UPLOAD_STATUS_COMPLETE)
        return held


class Learning:
    """All devices and the server, round by round.

    Args:
        experiment: of synchronous rounds.
        bench: of its task, partition and seed.
        folder: for what a run writes besides: the model of version 0 and a log.
        log: is told of updates that are skipped.

    """

    def __init__(
        self, experiment: Experiment, bench: Workbench, folder: Path, log: EventLog
    ) -> None:
        plan = RunPlan(
            experiment=experiment,
            run_dir=folder,
            sockets_dir=folder,
            data_dir=experiment.first.task.data_dir,
            run_id=1,
        )
        plan.initial_path.parent.mkdir(parents=True, exist_ok=True)
        np.save(plan.initial_path, bench.initial, allow_pickle=False)
        config: ServerConfig = plan.server(
            dimension=bench.model.dimension, layout_hash=bench.layout_hash, layers=bench.layers
        )
        self._task = new_task(config, config.tasks[0], 0.0)
        self._everybody = self._task.roster
        self._validator = bench.validator()
        self._devices = [
            _Device(plan.agent(number), bench.device(number), log)
            for number in range(experiment.devices.count)
        ]

    def train(self) -> tuple[Reported, ...]:
        """Let every device train from the newest version; return what they report."""
        newest = self._task.store.newest
        return tuple(device.train(newest) for device in self._devices)

    def send(self, silenced: frozenset[int]) -> None:
        """Let everybody send but those without power, and make the next version."""
        task, base = self._task, self._task.store.newest
        if not task.rule.takes_silence:
            task.set_roster(self._everybody - silenced, 0.0)
        for number, device in enumerate(self._devices):
            held = device.send(base, has_power=number not in silenced)
            if held is not None:
                task.commit(held, task.combine(held, _nothing_journaled), 0.0)
        assert task.store.newest.number == base.number + 1

    def metric(self) -> float:
        """Return the newest version's metric on the test set."""
        _, metric = self._validator.evaluate(self._task.store.newest.vector)
        return metric


class SharedRounds:
    """Rounds in which everybody sends, learned once and looked at by many.

    Args:
        learning: at its beginning.

    """

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._reports = [learning.train()]
        self._metrics: list[float] = []

    def reports(self, version: int) -> tuple[Reported, ...]:
        """Return what devices report that trained from a version."""
        while len(self._reports) <= version:
            self._advance()
        return self._reports[version]

    def metric(self, version: int) -> float:
        """Return a version's metric, from version 1 on."""
        while len(self._metrics) < version:
            self._advance()
        return self._metrics[version - 1]

    def _advance(self) -> None:
        self._learning.send(frozenset())
        self._metrics.append(self._learning.metric())
        self._reports.append(self._learning.train())


def _nothing_journaled(position: int, length: int) -> bytes:
    raise AssertionError(f"{length} bytes at {position} were asked for; all are in memory")
