"""An update on its way: packets made, kept for a restart, uploaded, and settled with the memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fadelab_agent.compute import transmission_energy_j
from fadelab_agent.datagram_uplink import as_event
from fadelab_agent.encoded_update import UpdateIdentity, encode_update
from fadelab_agent.lazy_upload import LazyUpload
from fadelab_agent.settling import settled
from fadelab_agent.spool import Spooled
from fadelab_agent.terms import DeviceTerms, TaskParts
from fadelab_agent.uplink import SessionLostError, UploadOutcome
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import Chunk, Codec, Encoding
from fadelab_proto.seeds import Stream, generator

F32 = NDArray[np.float32]
RETRY_PAUSE_S = 0.5


class Delivery:
    """Brings one task's updates to the server, one after the other.

    Args:
        parts: what it works with.
        lazy: decides which updates are sent, where the memory is one of innovations.

    """

    def __init__(
        self, terms: DeviceTerms, parts: TaskParts, *, lazy: LazyUpload | None = None
    ) -> None:
        self._terms = terms
        self._work = parts.work
        self._memory = parts.memory
        self._keepsake = parts.keepsake
        self._membership = parts.membership
        self._radio = parts.radio
        self._uplink = parts.uplink
        self._clock = parts.clock
        self._log = parts.log
        self._lazy = lazy

    async def left(self) -> Spooled | None:
        """Return the update that an earlier process of this device had begun, if any."""
        return await self._keepsake.left(self._membership.assignment(self._work.name))

    async def resume(self, left: Spooled) -> pb.UploadStatus.ValueType:
        """Finish such an update; the memory goes on from what it was then.

        The server says what it has of the update, whether it took it meanwhile or not.
        """
        header = left.update.header
        header.session = self._membership.assignment(self._work.name).session
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
        return await self.deliver(left, UploadOutcome(resumes=True))

    def encode(self, codec: Codec, waiting: F32, update_id: int) -> Encoding:
        """Return what waits as chunks, rounded by the update's own random numbers."""
        terms = self._terms
        task = self._membership.assignment(self._work.name).task_index
        dither = generator(terms.seed, Stream.CODEC, terms.device, task, update_id)
        return codec.encode(waiting, max_payload_bytes=terms.max_payload_bytes, generator=dither)

    async def prepare(self, encoding: Encoding, *, update_id: int, base_version: int) -> Spooled:
        """Return an update's packets when they are kept."""
        assignment = self._membership.assignment(self._work.name)
        identity = UpdateIdentity(
            run_id=self._terms.run_id,
            device=self._terms.device,
            session=assignment.session,
            task_index=assignment.task_index,
            update_id=update_id,
            base_version=base_version,
            dimension=self._work.dimension,
            samples=self._work.samples,
        )
        update = encode_update(identity, encoding)
        update.header.fresh_reference = self._lazy is not None and self._lazy.fresh
        prepared = Spooled(update, self._memory.state(), encoding.nominal_bits, encoding.coded_bits)
        await self._keepsake.keep(prepared)
        return prepared

    async def deliver(
        self, prepared: Spooled, outcome: UploadOutcome, *, power_w: float | None = None
    ) -> pb.UploadStatus.ValueType:
        """Upload an update that is kept, and settle the memory by the server's last word.

        Args:
            prepared: the update.
            outcome: filled in as the upload goes on.
            power_w: what it is sent with; the maximum when left out.

        """
        update = prepared.update
        before_open_s = self._radio.open_s()
        try:
            await self._upload(prepared, outcome)
        finally:
            # An upload that the end of the run cuts off has cost its energy all the same.
            open_s = self._radio.open_s() - before_open_s
            self._log_upload(prepared, outcome, open_s, power_w)
        if outcome.status in (pb.UPLOAD_STATUS_COMPLETE, pb.UPLOAD_STATUS_DUPLICATE):
            self._settle(prepared, update.chunks())
        elif outcome.status == pb.UPLOAD_STATUS_CLOSED:
            self._settle(prepared, update.chunks(outcome.acknowledged))
        if self._lazy is not None:
            self._lazy.ended(update.header, outcome.status)
        return outcome.status

    async def _upload(self, prepared: Spooled, outcome: UploadOutcome) -> None:
        update = prepared.update
        while True:
            try:
                await self._uplink.upload(update, outcome, gives_up=self._terms.gives_up)
            except SessionLostError:
                # The membership notices the same loss and joins again; take its new session.
                await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)
                update.header.session = self._membership.assignment(self._work.name).session
            else:
                return

    def _settle(self, prepared: Spooled, counted: Sequence[Chunk]) -> None:
        # What waits, where there is an error memory; without, nobody asks what was settled.
        waiting = prepared.state
        if waiting is None:
            waiting = np.zeros(self._work.dimension, dtype=np.float32)
        self._memory.settle(settled(counted, waiting, self._terms.substitute))

    def _log_upload(
        self, prepared: Spooled, outcome: UploadOutcome, open_s: float, power_w: float | None
    ) -> None:
        power_w = self._terms.uplink_power_w if power_w is None else power_w
        self._log.write(
            "upload_ended",
            task=self._work.name,
            update_id=prepared.update.header.update_id,
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
            uplink_j=transmission_energy_j(power_w, open_s),
        )
