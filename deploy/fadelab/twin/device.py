"""One device of the twin: the contact loop in virtual time, over a link that obeys formulas.

It goes through what :class:`fadelab_agent.contact_loop.ContactLoop` goes through, with the same policy,
observation, history and energy queue. What takes time there takes here what a formula says: training
what the emulated processor needs, transfers what the timeline's rate and delay allow, a power the
ticks until it is in force. Packing, journal and aggregation take none.
"""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from fadelab.twin.framing import message_bytes
from fadelab.twin.given import Given
from fadelab.twin.server import TwinServer
from fadelab.twin.timeline import TwinLink
from fadelab_agent.compute import compute_time_s, transmission_energy_j
from fadelab_agent.config import TrainingConfig
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.contact_decision import observe_contact
from fadelab_agent.contact_history import ContactHistory
from fadelab_agent.policy import Plan, Policy
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.terms import DeviceTerms

_POWER_TICKS = 2
"""A power that is asked for in one tick is taken into the next one's computation, for the one after."""

_Steps = Generator[float, None, bool]
"""Moments at which the server is met, and then whether the contact has lasted."""


@dataclass(frozen=True, slots=True)
class TwinTerms:
    """What holds for a device and its one task."""

    device: DeviceTerms
    contact: ContactConfig
    training: TrainingConfig
    dimension: int
    layers: tuple[int, ...]
    takes_part: bool
    """Whether the server takes what it has of an update that a contact's end cut."""
    powers_matter: bool
    """Whether the link follows the transmit power."""


@dataclass(slots=True)
class TwinContact:
    """What became of one contact."""

    cut_by_end: bool
    """Whether the run ended before the contact did."""
    k_keep: int | None = None
    sent: bool = False
    skipped: bool = False
    acknowledged: bool = False
    staleness: int | None = None
    """Of an update that the server took in this contact, in versions."""
    upload_s: float | None = None
    """From the first byte to the acknowledgement."""
    power_w: float = 0.0
    airtime_s: float = 0.0
    energy_j: float = 0.0


@dataclass(slots=True)
class _Pending:
    """An update whose contact ended before the server's last word."""

    base_version: int
    bytes_left: float
    begun: bool = False
    """Whether anything of it has arrived."""
    arrived: bool = False
    """Whether all of it has."""
    was_taken: bool = False


class TwinPower:
    """The transmit power of one device: what is in force when."""

    def __init__(self, link: TwinLink, max_power_w: float) -> None:
        self._link = link
        self._in_force = [(0, max_power_w)]

    def at(self, t_s: float) -> float:
        """Return the power in force at a moment."""
        tick = self._link.tick_at(t_s)
        return next(power_w for first, power_w in reversed(self._in_force) if first <= tick)

    def ask(self, power_w: float, t_s: float) -> float:
        """Ask for a power; return when it is in force."""
        asked, (first, latest_w) = self._link.tick_at(t_s), self._in_force[-1]
        if latest_w == power_w:
            return max(t_s, first * self._link.tick_s)
        self._in_force.append((asked + _POWER_TICKS, power_w))
        return (asked + _POWER_TICKS) * self._link.tick_s


class TwinDevice:
    """One device.

    Args:
        terms: what holds for it.
        policy: decides.
        history: what it knows of contacts; goes on being filled in.
        link: what carries its messages.
        server: counts versions.
        given: what is taken from the run.

    """

    def __init__(
        self,
        terms: TwinTerms,
        policy: Policy,
        history: ContactHistory,
        *,
        link: TwinLink,
        server: TwinServer,
        given: Given,
    ) -> None:
        self._terms = terms
        self._policy = policy
        self._history = history
        self._link = link
        self._server = server
        self._given = given
        self._queue = EnergyQueue(terms.contact.allowance_j, history.queue_j)
        self._power = TwinPower(link, terms.device.uplink_power_w)
        samples = given.samples or terms.training.batch_size
        self._steps_at_once = terms.training.steps_for(samples)
        self._chunk_s = compute_time_s(
            terms.device.compute,
            steps=self._steps_at_once,
            batch_size=terms.training.batch_for(samples),
        )
        self._now_s = 0.0
        self._lost_s = 0.0
        """The end of the contact that was used last."""
        self._base_version = -1
        self._base_s = 0.0
        self._steps = self._untaken = 0
        self._updates = 0
        self._pending: _Pending | None = None
        self._begun: tuple[int, float] | None = None
        """Version and missing share of a model that a contact's end cut."""
        self.contacts: list[TwinContact] = []

    def life(self) -> Iterator[float]:
        """Live; yields each moment at which it meets the server, before it does."""
        while self._base_version < 0:
            self._now_s = self._link.next_open_s(self._now_s)
            if math.isinf(self._now_s):
                return
            yield from self._renew(self._link.window_end_s(self._now_s))
        while self._train():
            yield from self._use_contact()

    # -- between contacts ----------------------------------------------------------------------

    def _train(self) -> bool:
        """Take local steps until a contact is to be used; False if there is none any more."""
        due_s = self._link.next_open_s(max(self._now_s, self._lost_s))
        if self._untaken == 0:
            self._chunks(1)
        config = self._terms.contact
        most, again = config.max_local_steps, config.again_after_steps
        fit = math.inf if most is None else self._chunks_to(most - self._steps)
        if math.isfinite(due_s):
            fit = min(fit, max(0, math.floor((due_s - self._now_s) / self._chunk_s)))
        if again is not None and self._lasts(until := self._chunks_to(again - self._untaken), fit):
            self._chunks(until)
            return True
        if math.isinf(due_s):
            return False
        self._chunks(int(fit))
        self._now_s = max(self._now_s, due_s)
        return True

    def _lasts(self, chunks: int, fit: float) -> bool:
        """Whether the contact has not ended after so many more chunks, and they fit before the next."""
        return chunks <= fit and self._link.is_open(self._now_s + chunks * self._chunk_s)

    def _chunks_to(self, steps: int) -> int:
        return max(0, math.ceil(steps / self._steps_at_once))

    def _chunks(self, count: int) -> None:
        self._now_s += count * self._chunk_s
        self._steps += count * self._steps_at_once
        self._untaken += count * self._steps_at_once

    # -- in a contact --------------------------------------------------------------------------

    def _use_contact(self) -> Iterator[float]:
        if self._lost_s <= self._now_s:
            self._lost_s = self._link.window_end_s(self._now_s)
        use = TwinContact(cut_by_end=self._lost_s >= self._link.end_s)
        lasts = yield from self._exchange(use)
        if not lasts:
            self._now_s = self._lost_s
        use.energy_j = transmission_energy_j(use.power_w, use.airtime_s)
        self._queue.settle(use.energy_j)
        self.contacts.append(use)

    def _exchange(self, use: TwinContact) -> _Steps:
        """Use a contact; returns whether it lasted long enough for all."""
        if self._pending is None or self._terms.device.gives_up:
            if self._pending is not None and not (yield from self._tell(self._pending)):
                return False
            plan = self._plan()
            use.skipped, use.k_keep = plan.skip, None if plan.skip else plan.k_keep
            if not plan.skip and not (yield from self._send(plan, use)):
                return False
        else:
            # The rest of an update of an earlier contact leaves the rest of this one to the download.
            pending, self._pending = self._pending, None
            full_w = self._terms.device.uplink_power_w
            if not (yield from self._upload(pending, full_w, use)):
                return False
        return (yield from self._renew(self._lost_s))

    def _tell(self, pending: _Pending) -> _Steps:
        """Tell the server that nothing more comes of an update, and hear what it has of it."""
        before_s = self._now_s
        self._now_s += self._link.delay_s(before_s, uplink=True)
        yield self._now_s
        self._now_s += self._link.delay_s(before_s, uplink=False)
        if self._now_s > self._lost_s:
            return False
        if self._terms.takes_part and pending.begun and not pending.arrived:
            self._server.take(pending.base_version)
        self._pending = None
        return True

    def _plan(self) -> Plan:
        power_w = self._power.at(self._now_s)
        observation = observe_contact(
            self._given.waiting(self._now_s),
            self._link.view(self._now_s, power_w),
            self._now_s,
            terms=self._terms.device,
            dimension=self._terms.dimension,
            layers=self._terms.layers,
            history=self._history,
            queue=self._queue,
            update_number=self._updates + 1,
            base_age_s=self._now_s - self._base_s,
        )
        self._untaken = 0
        return self._policy.decide(observation)

    def _send(self, plan: Plan, use: TwinContact) -> _Steps:
        self._updates += 1
        use.sent = True
        full_w = self._terms.device.uplink_power_w
        power_w = full_w if plan.power_w is None else plan.power_w
        ready_s = self._now_s
        if self._terms.powers_matter:
            ready_s = self._power.ask(power_w, self._now_s)
        else:
            power_w = full_w
        if ready_s >= self._lost_s:
            return False
        self._history.prepared(ready_s - self._now_s)
        self._now_s = ready_s
        coded_bits = plan.codec.estimate_bits(
            self._terms.dimension, max_payload_bytes=self._terms.device.max_payload_bytes
        )
        packets = math.ceil(coded_bits / 8 / self._terms.device.max_payload_bytes)
        size = message_bytes(coded_bits / 8, packets)
        rate_bps = self._link.view(self._now_s, power_w).rate_up_bps
        lasts = yield from self._upload(_Pending(self._base_version, size), power_w, use)
        if power_w < full_w:
            self._power.ask(full_w, self._now_s if lasts else self._lost_s)
        if use.acknowledged and rate_bps > 0:
            self._history.acknowledged(use.airtime_s, coded_bits / rate_bps)
        return lasts

    def _upload(self, update: _Pending, power_w: float, use: TwinContact) -> _Steps:
        """Send an update, or what is left of it; returns whether the server's word came in time."""
        begun_s, use.power_w, use.airtime_s = self._now_s, power_w, self._lost_s - self._now_s
        self._pending = update
        arrival_s = self._arrival_s(update, power_w)
        if math.isinf(arrival_s):
            return False
        yield arrival_s
        if not update.arrived:
            use.staleness = self._server.take(update.base_version)
            update.arrived, update.was_taken = True, use.staleness is not None
        heard_s = arrival_s + self._link.delay_s(arrival_s, uplink=False)
        if heard_s > self._lost_s:
            return False
        self._pending, self._now_s = None, heard_s
        use.acknowledged = update.was_taken
        use.airtime_s = heard_s - begun_s
        use.upload_s = use.airtime_s if use.acknowledged else None
        return True

    def _arrival_s(self, update: _Pending, power_w: float) -> float:
        """Return when an update's last byte arrives; infinite if not in this contact."""
        if update.arrived:
            return self._now_s + self._link.delay_s(self._now_s, uplink=True)
        carried = self._link.upload(update.bytes_left, self._now_s, self._lost_s, power_w)
        update.bytes_left = max(1.0, update.bytes_left * (1 - carried.share))
        update.begun = update.begun or carried.share > 0
        return carried.end_s

    def _renew(self, until_s: float) -> _Steps:
        """Get the newest model, or the rest of one that was begun, and go on from it."""
        asked_s = self._now_s + self._link.delay_s(self._now_s, uplink=True)
        yield asked_s
        model = self._given.download(asked_s)
        size = message_bytes(model.payload_bytes, model.packets)
        version, missing = self._begun or (self._server.version, 1.0)
        carried = self._link.download(max(1.0, missing * size), asked_s, until_s)
        if math.isinf(carried.end_s):
            self._begun = version, missing * (1 - carried.share)
            self._now_s = until_s
            return False
        self._begun, self._now_s = None, carried.end_s
        if self._base_version >= 0:
            versions = max(0, version - self._base_version)
            age_s = self._now_s - self._base_s
            self._history.renewed(versions, age_s, model.payload_bytes)
        else:
            self._history.arrived(model.payload_bytes)
        self._base_version, self._base_s = version, self._now_s
        self._steps = self._untaken = 0
        return True
