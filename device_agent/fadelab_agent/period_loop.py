"""One task's life on a device that the server schedules: wait, download, compute, upload (DMA-FL).

The server answers when the device is to download, with clock, batch and steps, and again when it is to
upload (Chang et al., arXiv 2305.13503). Computing takes the time that follows from cycles and clock;
tasks of one device compute side by side, since their clocks together are one processor's. Real work is
done one task after the other, within that time or counted as late.
"""

import asyncio
from dataclasses import dataclass
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import transmission_energy_j
from fadelab_agent.compute_emulation import EmulatedComputing, emulated_computing
from fadelab_agent.config import ComputeConfig
from fadelab_agent.delivery import Delivery
from fadelab_agent.downlink import Model
from fadelab_agent.obtaining import ModelSource
from fadelab_agent.period_config import PeriodConfig
from fadelab_agent.period_work import PeriodOutcome, PeriodWork, Stretches
from fadelab_agent.policy import Observation
from fadelab_agent.scheduled_periods import ScheduledPeriods
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.trainer_loop import finite
from fadelab_agent.uplink import UploadOutcome
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import schedule_pb2 as schedule
from fadelab_proto.codecs import Codec
from fadelab_proto.local_period import LocalPlan

F32 = NDArray[np.float32]
_SHORTEST_S = 1e-6


@dataclass(slots=True)
class _Period:
    """What one local period has taken so far, in emulated seconds, joules and bits of payload."""

    version: int
    plan: LocalPlan
    idle_s: float = 0.0
    downlink_s: float = 0.0
    compute_s: float = 0.0
    compute_real_s: float = 0.0
    uplink_s: float = 0.0
    compute_j: float = 0.0
    uplink_j: float = 0.0
    downlink_j: float = 0.0
    downlink_bits: int = 0
    uplink_bits: int = 0


class PeriodLoop:
    """Do what the server schedules for one task, until the run is over.

    Args:
        terms: of the device.
        cycles_per_sample: a of this task.
        probe_samples: whose gradients are looked at in each period.
        parts: what it works with.
        work: trains and measures.
        periods: asks the server.

    """

    def __init__(
        self,
        terms: DeviceTerms,
        parts: TaskParts,
        work: PeriodWork,
        periods: ScheduledPeriods,
        *,
        cycles_per_sample: float,
        probe_samples: int,
    ) -> None:
        self._terms = terms
        self._work = work
        self._periods = periods
        self._probe_samples = probe_samples
        self._policy = parts.policy
        self._membership = parts.membership
        self._radio = parts.radio
        self._clock = parts.clock
        self._log = parts.log
        self._compute_lock = parts.compute_lock
        self._compute: ComputeConfig = terms.compute.model_copy(
            update={"cycles_per_sample": cycles_per_sample}
        )
        self._source = ModelSource(terms, parts)
        self._delivery = Delivery(terms, parts)
        self._update_number = 0
        self._idle_s = self._active_s = 0.0
        """Drift time up to the end of the last training."""
        self._computed_until_s = 0.0
        """When that was."""

    @classmethod
    def build(
        cls,
        terms: DeviceTerms,
        parts: TaskParts,
        config: PeriodConfig,
        channel: grpc.aio.Channel,
        *,
        number: int,
    ) -> Self:
        """Return the loop of an agent's task.

        Args:
            terms: of the device.
            parts: what it works with; its work must be one in periods.
            config: of the agent.
            channel: the data plane.
            number: the task's place in the agent's order.

        """
        work = parts.work
        assert isinstance(work, PeriodWork)
        periods = ScheduledPeriods(
            channel, parts.membership, task=work.name, clock=parts.clock, log=parts.log
        )
        return cls(
            terms,
            parts,
            work,
            periods,
            cycles_per_sample=config.cycles_per_sample[number],
            probe_samples=config.probe_samples,
        )

    async def run(self) -> None:
        """Go through local periods for as long as the server wants it."""
        name = self._work.name
        self._update_number = self._membership.assignment(name).last_update
        directive = await self._membership.work_after(name, -1)
        if directive is None:
            return
        await self._source.time_zero(directive)
        self._computed_until_s = self._clock.now_s()
        try:
            if (left := await self._delivery.left()) is not None:
                self._update_number = left.update.header.update_id
                await self._delivery.resume(left)
            await self._go_on()
        finally:
            self._stage("none")

    async def _go_on(self) -> None:
        before: _Period | None = None
        while True:
            self._update_number += 1
            self._stage("idle")
            asked_s = self._clock.now_s()
            answer = await self._periods.next(
                update_id=self._update_number,
                samples=self._samples_now(),
                upload_s=0.0 if before is None else before.uplink_s,
                upload_j=0.0 if before is None else before.uplink_j,
            )
            before = None
            if answer.status == schedule.PERIOD_STATUS_REST:
                self._log.write("resting", task=self._work.name, reason=answer.reason)
                return await self._rest()
            if answer.status != schedule.PERIOD_STATUS_GO:
                if self._membership.stopped.is_set():
                    return None
                continue
            plan = LocalPlan(answer.cpu_hz, answer.batch_size, answer.steps, answer.idle_s)
            period = _Period(answer.version, plan, idle_s=self._clock.now_s() - asked_s)
            if await self._through(period):
                before = period

    async def _rest(self) -> None:
        self._stage("none")
        await self._membership.stopped.wait()

    async def _through(self, period: _Period) -> bool:
        """Go through one period; return whether its update was sent."""
        model = await self._download(period)
        if model is None:
            return False
        outcome = await self._train(period, model)
        self._stage("idle")
        waited_since_s = self._clock.now_s()
        due = await self._periods.report(
            update_id=self._update_number,
            samples=outcome.samples,
            report=outcome.report,
            drift=outcome.drift,
            download_s=period.downlink_s,
            download_j=period.downlink_j,
            compute_j=period.compute_j,
        )
        period.idle_s += self._clock.now_s() - waited_since_s
        if due:
            await self._upload(period, model, outcome)
        self._log_period(period)
        return due

    async def _download(self, period: _Period) -> Model | None:
        self._stage("downlink")
        begun_s, open_s = self._clock.now_s(), self._radio.open_s()
        model = await self._source.fetch(
            pb.Directive(kind=pb.DIRECTIVE_KIND_TRAIN_ROUND, version=period.version)
        )
        period.downlink_s = self._clock.now_s() - begun_s
        period.downlink_j = transmission_energy_j(
            self._terms.downlink_power_w, self._radio.open_s() - open_s
        )
        if model is not None:
            period.downlink_bits = 8 * model.payload_bytes
        return model

    async def _train(self, period: _Period, model: Model) -> PeriodOutcome:
        self._stage("compute")
        begun_s = self._clock.now_s()
        samples = self._samples_now()
        emulated = emulated_computing(self._compute, period.plan, samples=samples)
        times = Stretches(
            self._idle_s,
            self._active_s,
            idle_s=max(begun_s - self._computed_until_s, _SHORTEST_S),
            compute_s=emulated.compute_s,
        )
        async with self._compute_lock:
            outcome = await asyncio.to_thread(
                self._work.train_period,
                model.vector,
                period.plan,
                times,
                update_number=self._update_number,
                probe_samples=self._probe_samples,
            )
        period.compute_real_s = self._clock.now_s() - begun_s
        period.compute_s, period.compute_j = emulated.compute_s, emulated.compute_j
        await self._clock.sleep_until(begun_s + emulated.compute_s)
        self._idle_s += times.idle_s
        self._active_s += times.compute_s
        self._computed_until_s = self._clock.now_s()
        self._log_training(period, outcome, emulated)
        return outcome

    def _samples_now(self) -> int:
        waited_s = max(0.0, self._clock.now_s() - self._computed_until_s)
        return self._work.samples_after(idle_s=self._idle_s + waited_s, active_s=self._active_s)

    async def _upload(self, period: _Period, model: Model, outcome: PeriodOutcome) -> None:
        self._stage("uplink")
        codec = self._decide(outcome.trained.delta)
        encoding = self._delivery.encode(codec, outcome.trained.delta, self._update_number)
        prepared = await self._delivery.prepare(
            encoding, update_id=self._update_number, base_version=model.version
        )
        # Nothing was on the air so far.
        begun_s, open_s = self._clock.now_s(), self._radio.open_s()
        try:
            await self._delivery.deliver(prepared, UploadOutcome())
        finally:
            period.uplink_s = self._clock.now_s() - begun_s
            period.uplink_j = transmission_energy_j(
                self._terms.uplink_power_w, self._radio.open_s() - open_s
            )
            period.uplink_bits = 8 * prepared.update.header.payload_bytes

    def _decide(self, delta: F32) -> Codec:
        view = self._radio.view
        codec = self._policy.decide(
            Observation(
                dimension=self._work.dimension,
                update_number=self._update_number,
                base_age_s=0.0,
                rate_up_bps=view.rate_up_bps,
                snr_db=view.snr_db,
                predicted_contact_s=view.predicted_contact_s,
                squared_norm=float(np.dot(delta, delta)),
                layers=self._work.layers,
            )
        ).codec
        self._log.write(
            "plan",
            task=self._work.name,
            update_id=self._update_number,
            codec=type(codec).__name__,
            estimated_bits=codec.estimate_bits(
                self._work.dimension, max_payload_bytes=self._terms.max_payload_bytes
            ),
            predicted_contact_s=finite(round(view.predicted_contact_s, 3)),
            rate_up_bps=round(view.rate_up_bps),
        )
        return codec

    # -- what the event log says -------------------------------------------------------------------

    def _stage(self, stage: str) -> None:
        self._log.write("stage", task=self._work.name, stage=stage)

    def _log_training(
        self, period: _Period, outcome: PeriodOutcome, emulated: EmulatedComputing
    ) -> None:
        self._log.write(
            "trained",
            task=self._work.name,
            update_id=self._update_number,
            base_version=period.version,
            steps=outcome.trained.steps,
            batch_size=outcome.trained.batch_size,
            samples=outcome.samples,
            loss=outcome.trained.loss,
            real_s=round(period.compute_real_s, 6),
            emulated_s=round(emulated.compute_s, 6),
            compute_j=emulated.compute_j,
        )

    def _log_period(self, period: _Period) -> None:
        self._log.write(
            "period_ended",
            task=self._work.name,
            version=period.version,
            steps=period.plan.steps,
            batch=period.plan.batch_size,
            cpu_hz=period.plan.cpu_hz,
            idle_s=round(period.idle_s, 6),
            downlink_s=round(period.downlink_s, 6),
            compute_s=round(period.compute_s, 6),
            compute_real_s=round(period.compute_real_s, 6),
            uplink_s=round(period.uplink_s, 6),
            compute_j=period.compute_j,
            uplink_j=period.uplink_j,
            downlink_bits=period.downlink_bits,
            uplink_bits=period.uplink_bits,
        )
