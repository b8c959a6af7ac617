"""One task's life on a device that meets the server now and then: train between contacts, use each.

The loop of asynchronous federated learning over mobile networks (arXiv 2506.07328, as reconstructed in
docs/methods/mads.md). Local steps go on until a contact begins. In it the device decides how much to
send and at which power, sends, settles its memory by the server's acknowledgement, and downloads the
newest model. If the contact ends before the acknowledgement, the memory keeps everything; what the
server had of the update is told to it in the next contact.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import transmission_energy_j
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.contact_decision import ContactDecision, decision_event
from fadelab_agent.contact_history import ContactHistory, HistoryFile
from fadelab_agent.delivery import Delivery
from fadelab_agent.local_run import LocalRun
from fadelab_agent.obtaining import ModelSource
from fadelab_agent.policy import Plan
from fadelab_agent.policy.energy_queue import EnergyQueue
from fadelab_agent.spool import Spooled
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.uplink import ContactLostError, UploadOutcome
from fadelab_proto import federation_pb2 as pb

F32 = NDArray[np.float32]
_TAKEN = (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_DUPLICATE)
_T = TypeVar("_T")


@dataclass(slots=True)
class _Use:
    """What became of one contact; for the event log."""

    update_id: int | None = None
    power_w: float = 0.0
    airtime_s: float = 0.0
    status: str | None = None
    acknowledged: bool = False
    renewed: bool = False


class ContactLoop:
    """Contribute to one task, once in each contact, until the run is over.

    Args:
        config: how long to train and what contacts may cost.
        parts: what it works with.
        history_file: keeps what is known of past contacts in case that this process is killed.

    """

    def __init__(
        self,
        terms: DeviceTerms,
        config: ContactConfig,
        parts: TaskParts,
        history_file: HistoryFile,
    ) -> None:
        self._terms = terms
        self._config = config
        self._work = parts.work
        self._memory = parts.memory
        self._membership = parts.membership
        self._radio = parts.radio
        self._clock = parts.clock
        self._log = parts.log
        self._file = history_file
        self._decision = ContactDecision(terms, parts, fits_magnitudes=config.fits_magnitudes)
        self._source = ModelSource(terms, parts)
        self._delivery = Delivery(terms, parts)
        self._history: ContactHistory = history_file.read(config.initial_queue_j, self._cannot_keep)
        self._queue = EnergyQueue(config.allowance_j, self._history.queue_j)
        self._local = LocalRun(parts, terms.compute, chunks=self._history.chunks)
        self._update_number = 0
        self._pending: asyncio.Task[pb.UploadStatus.ValueType] | None = None
        """An update whose contact ended before the server's last word."""
        self._lost: asyncio.Task[None] | None = None
        """Done at the end of the contact that was used last."""
        self._full_power: asyncio.Task[str | None] | None = None

    async def run(self) -> None:
        """Train, and use contacts, for as long as the server wants it."""
        try:
            if not await self._begin():
                return
            while True:
                await self._train_until_due()
                await self._use_contact()
        finally:
            await _end(self._pending, self._lost, self._full_power)

    async def _begin(self) -> bool:
        """Finish what an earlier process had begun and get a first model; False if all is over."""
        self._update_number = self._membership.assignment(self._work.name).last_update
        left = await self._delivery.left()
        directive = await self._membership.work_after(self._work.name, -1)
        if directive is None:
            return False
        await self._source.time_zero(directive)
        if left is not None:
            self._update_number = left.update.header.update_id
            await self._delivery.resume(left)
        return await self._renew(lambda job: job)

    # -- between contacts --------------------------------------------------------------------------

    async def _train_until_due(self) -> None:
        """Take local steps until a contact is to be used; some have been taken then."""
        due = asyncio.create_task(self._next_contact())
        most, again = self._config.max_local_steps, self._config.again_after_steps
        try:
            while self._local.untaken == 0 or not due.done():
                if most is not None and self._local.steps >= most and self._local.untaken:
                    break
                await self._local.chunk(due)
                lasts = again is not None and self._local.untaken >= again
                if lasts and self._radio.view.is_open:
                    return
            await due
        finally:
            due.cancel()
            await asyncio.gather(due, return_exceptions=True)

    async def _next_contact(self) -> None:
        if self._lost is not None:
            await asyncio.shield(self._lost)
        await self._radio.contact()

    # -- in a contact ------------------------------------------------------------------------------

    async def _use_contact(self) -> None:
        if self._lost is None or self._lost.done():
            self._lost = asyncio.create_task(self._radio.loss_of_contact())
        use = _Use()
        try:
            await self._exchange(use)
        except ContactLostError:
            pass
        finally:
            self._account(use)

    async def _exchange(self, use: _Use) -> None:
        if self._pending is None or await self._end_pending(self._pending, use):
            waiting = self._memory.add(self._local.take(self._update_number + 1))
            plan = self._plan(waiting)
            if not plan.skip:
                await self._send(waiting, plan, use)
        await self._renew(self._within)
        use.renewed = True

    async def _end_pending(
        self, pending: "asyncio.Task[pb.UploadStatus.ValueType]", use: _Use
    ) -> bool:
        """See an update of an earlier contact to its end; return whether there is time for more."""
        if self._terms.gives_up:
            # All that is left is to tell the server, and to hear what it has of it.
            await self._within(pending)
            self._pending = None
            return True
        before_s = self._radio.open_s()
        use.power_w = self._terms.uplink_power_w
        try:
            status = await self._within(pending)
        finally:
            use.airtime_s = self._radio.open_s() - before_s
        self._pending = None
        use.status, use.acknowledged = pb.UploadStatus.Name(status), status in _TAKEN
        # One that took several contacts leaves the rest of the last one to the download.
        return False

    def _plan(self, waiting: F32) -> Plan:
        observation = self._decision.observe(
            waiting,
            history=self._history,
            queue=self._queue,
            update_number=self._update_number + 1,
            base_age_s=self._clock.now_s() - self._local.begun_s,
        )
        plan = self._decision.decide(observation)
        self._log.write(
            "contact_skipped" if plan.skip else "plan",
            **decision_event(
                self._work.name, observation, plan, base_version=self._local.base_version
            ),
        )
        return plan

    async def _send(self, waiting: F32, plan: Plan, use: _Use) -> None:
        begun_s = self._clock.now_s()
        self._update_number += 1
        use.update_id = self._update_number
        encoding = self._delivery.encode(plan.codec, waiting, self._update_number)
        ready = asyncio.ensure_future(
            asyncio.gather(
                self._delivery.prepare(
                    encoding,
                    update_id=self._update_number,
                    base_version=self._local.base_version,
                ),
                self._set_power(plan.power_w),
            )
        )
        try:
            prepared, use.power_w = await self._within(ready)
        finally:
            ready.cancel()
            await asyncio.gather(ready, return_exceptions=True)
        self._history.prepared(self._clock.now_s() - begun_s)
        try:
            await self._upload(prepared, use)
        finally:
            self._full_power = asyncio.create_task(
                self._radio.set_power(self._terms.uplink_power_w)
                if use.power_w < self._terms.uplink_power_w
                else _nothing()
            )

    async def _set_power(self, wanted_w: float | None) -> float:
        """Return the power in force, the wanted one if the modem does as it is asked."""
        returning = self._full_power is not None and not self._full_power.done()
        await _end(self._full_power)
        power_w = self._terms.uplink_power_w if wanted_w is None else wanted_w
        in_force_w = self._radio.view.power_w
        # A modem without a power reports none.
        if in_force_w == 0 or (in_force_w == power_w and not returning):
            return power_w
        refusal = await self._radio.set_power(power_w)
        if refusal is None:
            return power_w
        self._log.write("power_refused", power_w=power_w, reason=refusal)
        return self._radio.view.power_w

    async def _upload(self, prepared: Spooled, use: _Use) -> None:
        outcome = UploadOutcome()
        before_s = self._radio.open_s()
        rate_bps = self._radio.view.rate_up_bps
        self._pending = asyncio.create_task(
            self._delivery.deliver(prepared, outcome, power_w=use.power_w)
        )
        try:
            status = await self._within(self._pending)
        finally:
            use.airtime_s = self._radio.open_s() - before_s
        self._pending = None
        use.status = pb.UploadStatus.Name(status)
        use.acknowledged = status in _TAKEN
        if use.acknowledged and rate_bps > 0:
            self._history.acknowledged(use.airtime_s, prepared.coded_bits / rate_bps)

    async def _renew(self, within: Callable[[asyncio.Task[bool]], Awaitable[bool]]) -> bool:
        """Get the newest model and go on from it; False if the run is over."""
        job = asyncio.create_task(self._get_model())
        try:
            return await within(job)
        finally:
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)

    async def _get_model(self) -> bool:
        model = None
        while model is None:
            directive = await self._membership.work_after(self._work.name, -1)
            if directive is None:
                return False
            model = await self._source.fetch(directive)
        if self._local.base_version >= 0:
            versions = max(0, model.version - self._local.base_version)
            age_s = self._clock.now_s() - self._local.begun_s
            self._history.renewed(versions, age_s, model.payload_bytes)
        else:
            self._history.arrived(model.payload_bytes)
        if self._local.untaken:
            self._memory.add(self._local.take(self._update_number + 1))
        self._local.begin(model)
        return True

    async def _within(self, job: "asyncio.Future[_T]") -> _T:
        """Return what ``job`` returns, unless the contact ends first; it goes on all the same.

        Raises:
            ContactLostError: if it does.

        """
        assert self._lost is not None
        await asyncio.wait((job, self._lost), return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ContactLostError
        return job.result()

    def _account(self, use: _Use) -> None:
        """Book the contact's energy, and keep what is known by now."""
        energy_j = transmission_energy_j(use.power_w, use.airtime_s)
        self._queue.settle(energy_j)
        self._history.queue_j = self._queue.level_j
        self._history.chunks = self._local.chunks
        self._log.write(
            "contact_used",
            task=self._work.name,
            update_id=use.update_id,
            power_w=use.power_w,
            airtime_s=round(use.airtime_s, 6),
            energy_j=energy_j,
            allowance_j=self._queue.allowance_j,
            queue_j=self._queue.level_j,
            status=use.status,
            acknowledged=use.acknowledged,
            renewed=use.renewed,
        )
        if (problem := self._file.write(self._history)) is not None:
            self._cannot_keep(problem)

    def _cannot_keep(self, problem: str) -> None:
        self._log.write("history_failed", task=self._work.name, cause=problem)


async def _nothing() -> None:
    return None


async def _end(*tasks: "asyncio.Future[Any] | None") -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
