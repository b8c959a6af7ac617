"""One task's life on a device: fetch, train, decide, encode, send, remember the rest."""

import asyncio
import math

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import compute_energy_j, compute_time_s
from fadelab_agent.delivery import Delivery
from fadelab_agent.downlink import Model
from fadelab_agent.lazy_upload import LazyUpload
from fadelab_agent.obtaining import ModelSource
from fadelab_agent.policy import Observation
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.update_reports import Allotted, UpdateReports
from fadelab_agent.uplink import UploadOutcome
from fadelab_agent.wire_size import wire_bits
from fadelab_agent.work import Trained
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Codec, Encoding

F32 = NDArray[np.float32]


class TrainerLoop:
    """Contribute to one task until the run is over.

    Args:
        parts: what it works with.
        lazy: decides which updates are sent, where the memory is one of innovations.
        reports: tells the server of updates before they are uploaded, where it allocates.

    """

    def __init__(
        self,
        terms: DeviceTerms,
        parts: TaskParts,
        *,
        lazy: LazyUpload | None = None,
        reports: UpdateReports | None = None,
    ) -> None:
        self._terms = terms
        self._work = parts.work
        self._policy = parts.policy
        self._memory = parts.memory
        self._membership = parts.membership
        self._radio = parts.radio
        self._clock = parts.clock
        self._log = parts.log
        self._compute_lock = parts.compute_lock
        self._lazy = lazy
        self._reports = reports
        self._source = ModelSource(terms, parts)
        self._delivery = Delivery(terms, parts, lazy=lazy)
        self._update_number = 0

    async def run(self) -> None:
        """Train and upload for as long as the server wants it."""
        self._update_number = self._membership.assignment(self._work.name).last_update
        trained_version = await self._resume()
        while True:
            directive = await self._membership.work_after(self._work.name, trained_version)
            if directive is None:
                return
            await self._source.time_zero(directive)
            model = await self._source.fetch(directive)
            if model is None:
                continue
            trained_version = model.version
            fetched_s = self._clock.now_s()
            self._update_number += 1
            trained = await self._train(model)
            status = await self._send(self._memory.add(trained.delta), model, trained, fetched_s)
            if status == pb.UPLOAD_STATUS_REFUSED_BASE_VERSION:
                # A server that was restarted may have lost its last version, and publish it anew.
                trained_version = -1

    async def _resume(self) -> int:
        """Finish what an earlier process of this device had begun; return its base version.

        Returns -1 if there is no such update, or it is of no use any more.
        """
        left = await self._delivery.left()
        if left is None:
            return -1
        directive = await self._membership.work_after(self._work.name, -1)
        if directive is None:
            return -1
        await self._source.time_zero(directive)
        header = left.update.header
        self._update_number = header.update_id
        status = await self._delivery.resume(left)
        return -1 if status == pb.UPLOAD_STATUS_REFUSED_BASE_VERSION else header.base_version

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
        self, waiting: F32, model: Model, trained: Trained, fetched_s: float
    ) -> pb.UploadStatus.ValueType:
        await self._radio.contact()
        codec = self._decide(waiting, fetched_s)
        encoding = self._delivery.encode(codec, waiting, self._update_number)
        if self._lazy is not None:
            encoding = self._lazy.consider(
                waiting, encoding, model=model.vector, update_id=self._update_number
            )
        allotted = None
        if self._reports is not None:
            allotted = await self._report(self._reports, encoding, model, trained)
            if allotted is None:
                return pb.UPLOAD_STATUS_REFUSED_RULE
            if not allotted.power_w and encoding.chunks:
                if self._lazy is None:
                    return pb.UPLOAD_STATUS_DISCARDED
                encoding = Encoding((), 0)
        prepared = await self._delivery.prepare(
            encoding, update_id=self._update_number, base_version=model.version
        )
        power_w = None if allotted is None else allotted.power_w
        return await self._delivery.deliver(prepared, UploadOutcome(), power_w=power_w)

    async def _report(
        self, reports: UpdateReports, encoding: Encoding, model: Model, trained: Trained
    ) -> Allotted | None:
        """Return what the server gives this update, or None if its round is over."""
        compute, steps, size = self._terms.compute, trained.steps, trained.batch_size
        return await reports.allotted(
            update_id=self._update_number,
            base_version=model.version,
            numbers={
                "bits": encoding.nominal_bits,
                "wire_bits": wire_bits(encoding),
                "entries": self._work.dimension,
                "compute_s": compute_time_s(compute, steps=steps, batch_size=size),
                "compute_j": compute_energy_j(compute, steps=steps, batch_size=size),
            },
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
            predicted_contact_s=finite(round(view.predicted_contact_s, 3)),
            rate_up_bps=round(view.rate_up_bps),
        )
        return plan.codec


def finite(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None
