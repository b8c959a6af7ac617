"""SP-FL (Yue et al., arXiv 2603.10763): the mean of what arrived of signs and moduli.

An update counts ``s o v`` where signs s and moduli v arrived, ``s o vbar`` where only the signs did,
and nothing without them (:mod:`fadelab_server.aggregation.sp_fl_compensation` has vbar). With
``scaling: ipw`` it is divided by the probability q with which its signs were to arrive, so that the
mean over all devices is unbiased up to compensation; ``clipped`` bounds that factor; ``received``
takes the mean over those that arrived. The abstract names the mechanism; the formulas are
reconstructed (docs/methods/sp_fl.md).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.runs import Runs
from fadelab_proto.seeds import Stream, generator
from fadelab_proto.substitutes import ModulusOf
from fadelab_server.aggregation.base import F32, Arrays, Contribution, Roster
from fadelab_server.aggregation.sp_fl_compensation import Compensation, KappaEstimate
from fadelab_server.sp_fl_config import SpFlConfig

_SIGN, _MODULUS = pb.PACKET_CLASS_SIGN, pb.PACKET_CLASS_MODULUS
Classes = frozenset[int]


@dataclass(frozen=True, slots=True)
class Chances:
    """What was predicted for one device's packets when a round was decided."""

    sign: float
    """Probability that its signs arrive."""
    modulus: float
    """Probability that its moduli arrive, given the signs."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """Who sends in a round, and with which chances."""

    version: int
    """That the round starts from."""
    chances: Mapping[int, Chances]
    """By device."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What arrived of one device's update: parts of its coordinates, 0 to 1."""

    sign: float
    modulus: float


class SpFl:
    """Collect what arrives in a round; average when it is over.

    Args:
        config: the rule's settings.
        dimension: number of the model's coordinates.
        seed: the experiment's; losses that are drawn at the receiver hang on it.

    """

    synchronous = True
    incremental = False
    takes_silence = False

    def __init__(self, config: SpFlConfig, dimension: int, seed: int) -> None:
        self.config = config
        self.compensation = Compensation(config.compensation, dimension)
        self.kappa = KappaEstimate(dimension)
        self.allotment: Allotment | None = None
        self.arrivals: dict[int, Arrival] = {}
        """Of the round, by device."""
        self._dimension = dimension
        self._seed = seed
        self._sum: F32 = np.zeros(dimension, dtype=np.float32)
        self._weight: F32 = np.zeros(dimension, dtype=np.float32)

    # -- the round ---------------------------------------------------------------------------------

    def allot(self, allotment: Allotment) -> None:
        """Open a round: these devices send."""
        self.allotment = allotment

    def refuse(self, *, device: int, base_version: int, newest: int) -> str | None:
        """Refuse updates to past rounds, of devices that are to be silent, and second ones."""
        if base_version != newest:
            return f"the round of version {base_version} is over; the newest version is {newest}"
        if self.allotment is None or self.allotment.version != newest:
            return f"the round of version {newest} is not decided yet: report first"
        if device not in self.allotment.chances:
            return f"device {device} is to be silent in the round of version {newest}"
        if device in self.arrivals:
            return f"device {device} has already contributed to the round of version {newest}"
        return None

    def usable(self, device: int, whole: Classes, base_version: int) -> Classes:
        """Return which classes of an update's packets count.

        Args:
            device: whose update it is.
            whole: the classes of which every packet arrived.
            base_version: of the update.

        """
        config = self.config
        if config.loss == "datagram":
            return frozenset((_SIGN, _MODULUS))
        if config.loss == "bernoulli":
            whole &= self._drawn(device, base_version)
        if config.packets == "joint":
            return whole if {_SIGN, _MODULUS} <= whole else frozenset()
        return whole if _SIGN in whole else frozenset()

    def _drawn(self, device: int, version: int) -> Classes:
        assert self.allotment is not None
        chances = self.allotment.chances[device]
        draws = generator(self._seed, Stream.RECEPTION, version, device).random(2)
        sign = draws[0] < chances.sign
        modulus = sign and draws[1] < chances.modulus
        return frozenset(c for c, ok in ((_SIGN, sign), (_MODULUS, modulus)) if ok)

    def modulus_of(self, device: int) -> ModulusOf | None:
        """Return what stands in for a device's missing moduli; None if nothing does yet."""
        moduli = self.compensation.moduli(device)
        if moduli is None:
            return None
        if isinstance(moduli, float):
            return partial(_constant, moduli)
        return lambda first, last: moduli[first:last]

    def add(self, contribution: Contribution, *, newest: F32, roster: Roster) -> F32 | None:
        """Add what arrived; average if nobody is left to be waited for."""
        update = np.zeros(self._dimension, dtype=np.float32)
        contribution.add_to(update)
        spoken = _outside(contribution.missing, self._dimension)
        known = spoken * _outside(contribution.substituted, self._dimension)
        device = contribution.device
        arrival = self._arrival(contribution, spoken, known)
        self.arrivals[device] = arrival
        if arrival.modulus > 0:
            self._learn(device, update, known)
        scale = np.float32(self._scale(device))
        self._sum += scale * update
        self._weight += spoken
        return self.roster_changed(newest=newest, roster=roster)

    def _arrival(self, contribution: Contribution, spoken: F32, known: F32) -> Arrival:
        if self.config.packets == "signs":
            return Arrival(float(spoken.mean()), 0.0)
        # Signs that nothing stands in for do not count, but they did arrive.
        lone = contribution.unused_signs / self._dimension
        return Arrival(float(spoken.mean()) + lone, float(known.mean()))

    def _learn(self, device: int, update: F32, known: F32) -> None:
        stands_in = self.compensation.moduli(device)
        if stands_in is not None and known.all():
            self.kappa.add(np.sign(update) * np.float32(stands_in) - update)
        self.compensation.arrived(device, np.abs(update), known)

    def _scale(self, device: int) -> float:
        config, allotment = self.config, self.allotment
        if config.scaling == "received" or allotment is None:
            return 1.0
        chances = allotment.chances[device]
        success = chances.sign * (chances.modulus if config.packets == "joint" else 1.0)
        least = config.least_scale if config.scaling == "clipped" else 1e-12
        return 1 / max(success, least)

    def roster_changed(self, *, newest: F32, roster: Roster) -> F32 | None:
        """End the round when everybody who was to send and is still there has contributed."""
        if self.allotment is None or not self.arrivals:
            return None
        if not set(self.allotment.chances) & roster <= set(self.arrivals):
            return None
        return self.end_round(newest=newest)

    def end_round(self, *, newest: F32) -> F32:
        """Return the next model from what arrived; who is missing counts as lost."""
        devices = 1 if self.allotment is None else max(1, len(self.allotment.chances))
        lost = [d for d in self._allotted() if d not in self.arrivals]
        for device in lost:
            self.arrivals[device] = Arrival(0.0, 0.0)
        step = self._step(devices)
        self.kappa.round_over(devices)
        self.compensation.round_over(step)
        self._sum = np.zeros_like(self._sum)
        self._weight = np.zeros_like(self._weight)
        self.last_arrivals = self.arrivals
        self.arrivals = {}
        self.allotment = None
        result: F32 = newest + np.float32(self.config.server_rate) * step
        return result

    def _allotted(self) -> Collection[int]:
        return () if self.allotment is None else self.allotment.chances

    def _step(self, devices: int) -> F32:
        config, before = self.config, self.compensation.last_step
        if config.vote == "majority":
            modulus = self.compensation.moduli(0)
            assert isinstance(modulus, float)
            return np.sign(self._sum) * np.float32(modulus)
        total, weight = self._sum, self._weight
        if config.lost == "last_global" and before is not None:
            silent = devices - weight
            total, weight = total + silent * before, weight + silent
        if config.scaling == "received":
            return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
        return total / np.float32(devices)

    last_arrivals: Mapping[int, Arrival] = {}
    """What arrived in the round that ended last."""

    # -- what survives a crash ---------------------------------------------------------------------

    def pending(self) -> Arrays:
        """Return the round so far and everything learned."""
        chances = {} if self.allotment is None else self.allotment.chances
        version = -1 if self.allotment is None else self.allotment.version
        return {
            "sum": self._sum.copy(),
            "weight": self._weight.copy(),
            "version": np.array(version),
            "chances": np.array([(d, c.sign, c.modulus) for d, c in chances.items()]),
            "arrivals": np.array([(d, a.sign, a.modulus) for d, a in self.arrivals.items()]),
            **self.compensation.pending(),
            **self.kappa.pending(),
        }

    def restore(self, pending: Arrays) -> None:
        """Continue the round that :meth:`pending` described."""
        self._sum = pending["sum"].astype(np.float32)
        self._weight = pending["weight"].astype(np.float32)
        rows = pending["chances"].reshape(-1, 3).tolist()
        version = int(pending["version"])
        chances = {int(device): Chances(sign, modulus) for device, sign, modulus in rows}
        self.allotment = None if version < 0 else Allotment(version, chances)
        rows = pending["arrivals"].reshape(-1, 3).tolist()
        self.arrivals = {int(device): Arrival(sign, modulus) for device, sign, modulus in rows}
        self.compensation.restore(pending)
        self.kappa.restore(pending)


def _outside(runs: Runs, dimension: int) -> F32:
    """Return 1 for every coordinate that no run covers, 0 for the others."""
    result = np.ones(dimension, dtype=np.float32)
    for first, last in runs:
        result[first:last] = 0
    return result


def _constant(modulus: float, first: int, last: int) -> F32:
    return np.full(last - first, modulus, dtype=np.float32)
