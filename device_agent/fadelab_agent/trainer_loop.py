"""One task's life on a device: fetch, train, decide, encode, send, remember the rest."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import compute_energy_j, compute_time_s, transmission_energy_j
from fadelab_agent.config import ComputeConfig
from fadelab_agent.datagram_uplink import as_event
from fadelab_agent.downlink import Downlink, Model
from fadelab_agent.encoded_update import EncodedUpdate, UpdateIdentity, encode_update
from fadelab_agent.error_memory import Memory
from fadelab_agent.keepsake import Keepsake
from fadelab_agent.lazy_upload import LazyUpload
from fadelab_agent.membership import Assignment, Membership
from fadelab_agent.policy import Observation, Policy
from fadelab_agent.radio import Radio
from fadelab_agent.settling import settled
from fadelab_agent.spool import Spooled
from fadelab_agent.uplink import SessionLostError, Uplink, UploadOutcome
from fadelab_agent.work import TaskWork, Trained
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.codecs import Chunk, Codec, Encoding
from fadelab_proto.events import EventLog
from fadelab_proto.seeds import Stream, generator
from fadelab_proto.substitutes import SubstituteConfig
from fadelab_proto.wire import NEWEST_VERSION

F32 = NDArray[np.float32]
_RETRY_PAUSE_S = 0.5
_LONGEST_LEAD_S = 2.0


@dataclass(frozen=True, slots=True)
class DeviceTerms:
    """What holds for every update of a device."""

    run_id: int
    seed: int
    device: int
    max_payload_bytes: int
    uplink_power_w: float
    downlink_power_w: float
    compute: ComputeConfig
    gives_up: bool = False
    """Whether an update ends with the contact window that it was sent in."""
    substitute: SubstituteConfig | None = None
    """What the server puts in the place of moduli that did not arrive."""


class TrainerLoop:
    """Contribute to one task until the run is over.

    Args:
        work: trains and knows the model's layout.
        policy: decides how each update is sent.
        memory: what was not sent yet.
        keepsake: keeps the update that is under way for the case that this process is killed.
        compute_lock: held while training, so that tasks of one device share its processor.
        lazy: decides which updates are sent, where the memory is one of innovations.

    """

    def __init__(
        self,
        terms: DeviceTerms,
        *,
        work: TaskWork,
        policy: Policy,
        memory: Memory,
        keepsake: Keepsake,
        membership: Membership,
        radio: Radio,
        uplink: Uplink,
        downlink: Downlink,
        clock: Clock,
        log: EventLog,
        compute_lock: asyncio.Lock,
        lazy: LazyUpload | None = None,
    ) -> None:
        self._terms = terms
        self._work = work
        self._policy = policy
        self._memory = memory
        self._keepsake = keepsake
        self._membership = membership
        self._radio = radio
        self._uplink = uplink
        self._downlink = downlink
        self._clock = clock
        self._log = log
        self._compute_lock = compute_lock
        self._lazy = lazy
        self._update_number = 0

    async def run(self) -> None:
        """Train and upload for as long as the server wants it."""
        self._update_number = self._membership.assignment(self._work.name).last_update
        trained_version = await self._resume()
        while True:
            directive = await self._membership.work_after(self._work.name, trained_version)
            if directive is None:
                return
            await self._time_zero(directive)
            model = await self._fetch(directive)
            if model is None:
                continue
            trained_version = model.version
            fetched_s = self._clock.now_s()
            self._update_number += 1
            trained = await self._train(model)
            status = await self._send(self._memory.add(trained.delta), model, fetched_s)
            if status == pb.UPLOAD_STATUS_REFUSED_BASE_VERSION:
                # A server that was restarted may have lost its last version, and publish it anew.
                trained_version = -1

    async def _resume(self) -> int:
        """Finish what an earlier process of this device had begun; return its base version.

        The server says what it has of the update, whether it took it meanwhile or not. Returns -1
        if there is no such update, or it is of no use any more.
        """
        left = await self._keepsake.left(self._assignment())
        if left is None:
            return -1
        directive = await self._membership.work_after(self._work.name, -1)
        if directive is None:
            return -1
        await self._time_zero(directive)
        header = left.update.header
        header.session = self._assignment().session
        self._update_number = header.update_id
        self._memory.restore(left.state)
        if self._lazy is not None:
            self._lazy.fresh = header.fresh_reference
        self._log.write(
            "update_resumed",
            task=self._work.name,
            update_id=header.update_id,
            base_version=header.base_version,
            packets=header.packets,
        )
        status = await self._deliver(left, UploadOutcome(resumes=True))
        return -1 if status == pb.UPLOAD_STATUS_REFUSED_BASE_VERSION else header.base_version

    async def _time_zero(self, directive: pb.Directive) -> None:
        """Wait for emulated time to begin: until then links have no programmed rate yet.

        The start lies moments ahead on the server's clock; a device on another machine, whose
        clock counts from elsewhere, does not wait for it.
        """
        now_s = self._clock.now_s()
        if now_s < directive.start_mono_s < now_s + _LONGEST_LEAD_S:
            await self._clock.sleep_until(directive.start_mono_s)

    async def _fetch(self, directive: pb.Directive) -> Model | None:
        wanted = (
            directive.version if directive.kind == pb.DIRECTIVE_KIND_TRAIN_ROUND else NEWEST_VERSION
        )
        terms = self._assignment()
        before_open_s = self._radio.open_s()
        try:
            model = await self._downlink.fetch(
                session=terms.session,
                task_index=terms.task_index,
                dimension=self._work.dimension,
                version=wanted,
            )
        except grpc.aio.AioRpcError as error:
            # The round's version is gone or the session is: look at the directives again.
            self._log.write("download_failed", cause=f"{error.code().name}: {error.details()}")
            await self._pause()
            return None
        finally:
            if (left := self._downlink.unfinished) is not None:
                self._log.write("model_partial", task=self._work.name, **left._asdict())
        open_s = self._radio.open_s() - before_open_s
        self._log.write(
            "model_received",
            task=self._work.name,
            version=model.version,
            kind=model.kind,
            base_version=model.base_version,
            full_bytes=model.vector.nbytes,
            packets=model.packets,
            payload_bytes=model.payload_bytes,
            mark_mono_s=model.timer.mark_s,
            last_mono_s=model.timer.last_s,
            bytes_after_mark=model.timer.bytes_after_mark,
            open_s=round(open_s, 6),
            downlink_j=transmission_energy_j(self._terms.downlink_power_w, open_s),
        )
        return model

    async def _train(self, model: Model) -> Trained:
        async with self._compute_lock:
            begun_s = self._clock.now_s()
            trained = await asyncio.to_thread(self._work.train, model.vector, self._update_number)
            real_s = self._clock.now_s() - begun_s
            steps, batch_size = trained.steps, trained.batch_size
            compute = self._terms.compute
            emulated_s = compute_time_s(compute, steps=steps, batch_size=batch_size)
            await self._clock.sleep_until(begun_s + emulated_s)
        self._log.write(
            "trained",
            task=self._work.name,
            update_id=self._update_number,
            base_version=model.version,
            steps=steps,
            batch_size=batch_size,
            loss=trained.loss,
            real_s=round(real_s, 6),
            emulated_s=round(emulated_s, 6),
            compute_j=compute_energy_j(compute, steps=steps, batch_size=batch_size),
        )
        return trained

    async def _send(
        self, waiting: F32, model: Model, fetched_s: float
    ) -> pb.UploadStatus.ValueType:
        await self._radio.contact()
        codec = self._decide(waiting, fetched_s)
        encoding = codec.encode(
            waiting,
            max_payload_bytes=self._terms.max_payload_bytes,
            generator=self._dither(),
        )
        if self._lazy is not None:
            encoding = self._lazy.consider(
                waiting, encoding, model=model.vector, update_id=self._update_number
            )
        update = self._packets(encoding, model.version)
        update.header.fresh_reference = self._lazy is not None and self._lazy.fresh
        prepared = Spooled(update, self._memory.state(), encoding.nominal_bits, encoding.coded_bits)
        await self._keepsake.keep(prepared)
        return await self._deliver(prepared, UploadOutcome())

    async def _deliver(
        self, prepared: Spooled, outcome: UploadOutcome
    ) -> pb.UploadStatus.ValueType:
        """Upload an update that is kept, and settle the memory by the server's last word."""
        update = prepared.update
        before_open_s = self._radio.open_s()
        try:
            await self._upload(update, outcome)
        finally:
            # An upload that the end of the run cuts off has cost its energy all the same.
            self._log_upload(prepared, outcome, self._radio.open_s() - before_open_s)
        if outcome.status in (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_DUPLICATE):
            self._settle(prepared, update.chunks())
        elif outcome.status == pb.UPLOAD_STATUS_CLOSED:
            self._settle(prepared, update.chunks(outcome.acknowledged))
        if self._lazy is not None:
            self._lazy.ended(update.header, outcome.status)
        return outcome.status

    def _settle(self, prepared: Spooled, counted: Sequence[Chunk]) -> None:
        # What waits, where there is an error memory; without, nobody asks what was settled.
        waiting = prepared.state
        if waiting is None:
            waiting = np.zeros(self._work.dimension, dtype=np.float32)
        self._memory.settle(settled(counted, waiting, self._terms.substitute))

    def _log_upload(self, prepared: Spooled, outcome: UploadOutcome, open_s: float) -> None:
        self._log.write(
            "upload_ended",
            task=self._work.name,
            update_id=self._update_number,
            status=pb.UploadStatus.Name(outcome.status),
            reason=outcome.reason,
            staleness=outcome.staleness,
            nominal_bits=prepared.nominal_bits,
            coded_bits=prepared.coded_bits,
            packets=len(prepared.update.packets),
            packets_sent=outcome.packets_sent,
            **as_event(outcome.datagrams),
            packets_acknowledged=len(outcome.acknowledged),
            attempts=outcome.attempts,
            open_s=round(open_s, 6),
            uplink_j=transmission_energy_j(self._terms.uplink_power_w, open_s),
        )

    def _decide(self, waiting: F32, fetched_s: float) -> Codec:
        view = self._radio.view
        observation = Observation(
            dimension=self._work.dimension,
            update_number=self._update_number,
            base_age_s=self._clock.now_s() - fetched_s,
            rate_up_bps=view.rate_up_bps,
            snr_db=view.snr_db,
            predicted_contact_s=view.predicted_contact_s,
            squared_norm=float(np.dot(waiting, waiting)),
            layers=self._work.layers,
        )
        plan = self._policy.decide(observation)
        self._log.write(
            "plan",
            task=self._work.name,
            update_id=self._update_number,
            codec=type(plan.codec).__name__,
            estimated_bits=plan.codec.estimate_bits(
                self._work.dimension, max_payload_bytes=self._terms.max_payload_bytes
            ),
            predicted_contact_s=_finite(view.predicted_contact_s),
            rate_up_bps=round(view.rate_up_bps),
        )
        return plan.codec

    def _dither(self) -> np.random.Generator:
        terms = self._terms
        task = self._assignment().task_index
        return generator(terms.seed, Stream.CODEC, terms.device, task, self._update_number)

    def _packets(self, encoding: Encoding, base_version: int) -> EncodedUpdate:
        terms = self._assignment()
        identity = UpdateIdentity(
            run_id=self._terms.run_id,
            device=self._terms.device,
            session=terms.session,
            task_index=terms.task_index,
            update_id=self._update_number,
            base_version=base_version,
            dimension=self._work.dimension,
            samples=self._work.samples,
        )
        return encode_update(identity, encoding)

    async def _upload(self, update: EncodedUpdate, outcome: UploadOutcome) -> None:
        while True:
            try:
                await self._uplink.upload(update, outcome, gives_up=self._terms.gives_up)
            except SessionLostError:
                # The membership notices the same loss and joins again; take its new session.
                await self._pause()
                update.header.session = self._assignment().session
            else:
                return

    def _assignment(self) -> Assignment:
        return self._membership.assignment(self._work.name)

    async def _pause(self) -> None:
        await self._clock.sleep_until(self._clock.now_s() + _RETRY_PAUSE_S)


def _finite(seconds: float) -> float | None:
    """Return None for a contact without end, which JSON cannot say."""
    return round(seconds, 3) if math.isfinite(seconds) else None
