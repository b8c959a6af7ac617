"""SP-FL's rounds: collect reports, decide, divide the radio, open the uploads, end them in time."""

import asyncio
import contextlib
import math
from dataclasses import dataclass, field

import numpy as np

from fadelab_proto import rounds_pb2 as pb
from fadelab_server.aggregation.sp_fl import SpFl
from fadelab_server.allocator.sp_fl_link import Fading, PacketLinks, Shares
from fadelab_server.allocator.sp_fl_round import RoundDecision, UpdateFigures, decide_round
from fadelab_server.allocator.uplink import F64
from fadelab_server.cell import Cell, CellError, Channels, FixedLoads
from fadelab_server.checkpoint import CheckpointError
from fadelab_server.federation import Federation
from fadelab_server.journal.records import Allotted
from fadelab_server.sp_fl_config import SpFlConfig

_SCALE_BITS = 64
"""Of the smallest and the largest modulus."""
_SURE = Channels(np.zeros(0), 1.0, 1.0)


@dataclass(slots=True)
class _Round:
    version: int
    figures: dict[int, UpdateFigures] = field(default_factory=dict)
    all_in: asyncio.Event = field(default_factory=asyncio.Event)
    opened: "asyncio.Future[_Opened]" = field(default_factory=asyncio.Future)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A round in which uploads may come."""

    devices: frozenset[int]
    begin_s: float
    end_s: float
    """Infinite without a deadline."""


class RoundDesk:
    """Conducts the rounds of one task.

    Args:
        federation: the run.
        task_index: of the task, whose rule is SP-FL's.
        cell: the radio's resources; None if nothing is lost and nothing divided.

    """

    def __init__(self, federation: Federation, task_index: int, cell: Cell | None) -> None:
        rule = federation.tasks[task_index].rule
        assert isinstance(rule, SpFl)
        self.rule = rule
        self._federation = federation
        self._index = task_index
        self._task = federation.tasks[task_index]
        self._cell = cell
        self._round: _Round | None = None

    @property
    def _config(self) -> SpFlConfig:
        return self.rule.config

    async def report(
        self, device: int, version: int, figures: pb.ModulusStatistics
    ) -> pb.RoundPlan:
        """Take a device's figures; return what it is to do when the round is decided."""
        numbers = (figures.energy, figures.overlap, figures.quantiser_variance)
        if not all(math.isfinite(number) for number in numbers) or min(numbers[0], numbers[2]) < 0:
            return _plan(pb.ROUND_STATUS_REFUSED, "the figures are not those of an update")
        if version != self._task.store.newest.number:
            newest = self._task.store.newest.number
            return _plan(
                pb.ROUND_STATUS_OVER,
                f"the round of version {version} is over; the newest version is {newest}",
            )
        present = self._present(version)
        present.figures[device] = UpdateFigures(
            *numbers, compensation_energy=self._compensation_energy(device)
        )
        if self._task.roster <= set(present.figures):
            present.all_in.set()
        opened = await asyncio.shield(present.opened)
        if device not in opened.devices:
            return _plan(pb.ROUND_STATUS_SILENT, "the round's resources go to other devices")
        plan = _plan(pb.ROUND_STATUS_SEND, "")
        plan.begin_mono_s = opened.begin_s
        plan.end_mono_s = opened.end_s if math.isfinite(opened.end_s) else 0.0
        if self._config.loss == "datagram":
            rates = [bits / self._config.deadline_s for bits in self._wire_bits()]
            plan.sign_rate_bps, plan.modulus_rate_bps = rates
        return plan

    def _present(self, version: int) -> _Round:
        if self._round is None or self._round.version != version:
            self._round = _Round(version)
            self._federation.attend(self._conduct(self._round))
        return self._round

    def _compensation_energy(self, device: int) -> float:
        moduli = self.rule.compensation.moduli(device)
        if moduli is None:
            return 0.0
        if isinstance(moduli, float):
            return self._task.spec.dimension * moduli**2
        return float(np.dot(moduli, moduli))

    # -- a round -----------------------------------------------------------------------------------

    async def _conduct(self, present: _Round) -> None:
        try:
            await self._hear(present)
            if self.rule.allotment is None:
                decision = await self._decide(present)
                await self._open(present, decision)
            else:  # decided by the server that this one continues
                decision = None
            opened = self._opened()
            present.opened.set_result(opened)
            try:
                await self._over(present.version, opened.end_s)
            finally:
                # The version that ends the run ends this, too: its round is told of all the same.
                if decision is not None and self._task.store.newest.number > present.version:
                    self._log(present.version, decision, opened)
        except (CellError, CheckpointError) as error:
            self._federation.stop(str(error))

    async def _hear(self, present: _Round) -> None:
        clock = self._federation.clock
        until_s = clock.now_s() + self._config.report_wait_s
        late = asyncio.create_task(clock.sleep_until(until_s))
        everybody = asyncio.create_task(present.all_in.wait())
        await _first_of(late, everybody)

    async def _decide(self, present: _Round) -> RoundDecision:
        channels = _SURE if self._cell is None else await self._cell.channels()
        # Whoever reports while this is decided, is too late for it.
        figures = dict(present.figures)
        if self._cell is None:
            return _sure(figures)
        config = self._config
        estimate = self.rule.kappa.value
        kappa = config.kappa or estimate or 1 / math.sqrt(len(figures))
        links = self._links(channels, sorted(figures))
        # A few tens of milliseconds of computing, in which devices are answered.
        return await asyncio.to_thread(decide_round, config, links, figures, kappa=kappa)

    def _links(self, channels: Channels, devices: list[int]) -> PacketLinks:
        config = self._config
        sign_bits, modulus_bits = self._timed_bits()
        return PacketLinks(
            noise_per_hz=channels.noise_per_hz[devices],
            bandwidth_hz=channels.bandwidth_hz,
            deadline_s=config.deadline_s,
            sign_bits=sign_bits / channels.efficiency,
            modulus_bits=modulus_bits / channels.efficiency,
            access=config.access,
            fading=self._fading,
        )

    @property
    def _fading(self) -> Fading:
        if self._config.loss == "datagram":
            return "independent"  # each datagram is lost for itself
        return "common" if self._config.packets == "joint" else self._config.fading

    def _wire_bits(self) -> tuple[float, float]:
        config, dimension = self._config, self._task.spec.dimension
        moduli = config.modulus_bits * dimension + _SCALE_BITS
        return config.wire_factor * dimension, config.wire_factor * moduli

    def _timed_bits(self) -> tuple[float, float]:
        """Return the bits of both classes that have to pass at the classes' rates in time."""
        sign_bits, modulus_bits = self._wire_bits()
        if self._config.loss != "deadline":
            return sign_bits, modulus_bits
        ahead_bits = 8 * self._config.ahead_bytes
        return max(1.0, sign_bits - ahead_bits), max(1.0, modulus_bits - ahead_bits)

    async def _open(self, present: _Round, decision: RoundDecision) -> None:
        config = self._config
        if self._cell is not None and config.has_deadline:
            loads = FixedLoads(*self._wire_bits(), config.deadline_s)
            await self._cell.allocate(
                decision.devices,
                decision.shares,
                access=config.access,
                fading=self._fading,
                loads=loads if config.loss == "datagram" else None,
            )
        await self._federation.allot(
            Allotted(
                self._index,
                present.version,
                decision.devices,
                tuple(decision.sign_success.tolist()),
                tuple(decision.modulus_success.tolist()),
            )
        )

    def _opened(self) -> _Opened:
        allotment, config = self.rule.allotment, self._config
        devices = frozenset(() if allotment is None else allotment.chances)
        begin_s = self._federation.clock.now_s()
        start_s = self._federation.start_mono_s
        if config.slot_s is not None and start_s is not None:
            slots = math.ceil((begin_s - start_s) / config.slot_s)
            begin_s = start_s + slots * config.slot_s
        end_s = begin_s + config.deadline_s if config.has_deadline else math.inf
        return _Opened(devices, begin_s, end_s)

    async def _over(self, version: int, end_s: float) -> None:
        """Return when the round has ended, by its deadline or because nobody is waited for."""
        ended = asyncio.create_task(self._published_after(version))
        if math.isfinite(end_s):
            clock = self._federation.clock
            await _first_of(asyncio.create_task(clock.sleep_until(end_s)), ended)
            await self._federation.end_round(self._index, version)
        else:
            await ended

    async def _published_after(self, version: int) -> None:
        seen = -1
        while self._task.store.newest.number <= version:
            seen = await self._federation.changed.changed_since(seen)

    def _log(self, version: int, decision: RoundDecision, opened: _Opened) -> None:
        arrivals = self.rule.last_arrivals
        seen = [arrivals[device] for device in decision.devices]
        kappa = self.rule.kappa.value
        sign_bits, modulus_bits = self._timed_bits()
        self._federation.log.write(
            "sp_fl_round",
            task=self._task.spec.name,
            version=version,
            loss=self._config.loss,
            begin_mono_s=opened.begin_s,
            end_mono_s=opened.end_s if math.isfinite(opened.end_s) else None,
            sign_bits=sign_bits,
            modulus_bits=modulus_bits,
            devices=list(decision.devices),
            power=_rounded(decision.shares.power),
            band=_rounded(decision.shares.band),
            sign=_rounded(decision.shares.sign),
            predicted_sign=_rounded(decision.sign_success),
            predicted_modulus=_rounded(decision.modulus_success),
            arrived_sign=[round(own.sign, 6) for own in seen],
            arrived_modulus=[round(own.modulus, 6) for own in seen],
            kappa=kappa,
            objective=decision.objective,
        )


def _plan(status: pb.RoundStatus.ValueType, reason: str) -> pb.RoundPlan:
    return pb.RoundPlan(status=status, reason=reason)


def _rounded(values: F64) -> list[float]:
    return [round(float(value), 6) for value in values]


def _sure(figures: dict[int, UpdateFigures]) -> RoundDecision:
    """Return the decision of a round in which everything arrives and nothing is divided."""
    devices = tuple(sorted(figures))
    ones = np.ones(len(devices))
    return RoundDecision(devices, Shares(ones / 2, ones / len(devices), ones / 2), ones, ones, 0.0)


async def _first_of(*tasks: "asyncio.Task[bool] | asyncio.Task[None]") -> None:
    """Return when one of these is done; the others are ended."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
