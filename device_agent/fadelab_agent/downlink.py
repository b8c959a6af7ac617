"""Fetching a model version, packet by packet, resuming after a break."""

from dataclasses import dataclass
from typing import NamedTuple

import google_crc32c
import grpc
import numpy as np
from numpy.typing import NDArray

from fadelab_agent.progress import (
    FRUITLESS_ATTEMPTS,
    RETRY_PAUSE_S,
    ProgressWatch,
    StalledError,
)
from fadelab_agent.radio import Radio
from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.codecs import CodecError
from fadelab_proto.events import EventLog
from fadelab_proto.packet import HEADER_BYTES, PacketError, parse_packet
from fadelab_proto.transfer_timer import TransferTimer
from fadelab_proto.wire import NEWEST_VERSION, SERVICE, FramingError, parse_model_part

_FETCH = f"/{SERVICE}/FetchModel"
# What one attempt without a first packet may cost in unit bytes before it counts as stalled.
_UNIT_BYTES = 16384

F32 = NDArray[np.float32]


class ModelDamagedError(RuntimeError):
    """What arrived is not the model that the server announced."""


class Unfinished(NamedTuple):
    """What has arrived of a model."""

    version: int
    packets: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """A downloaded version."""

    version: int
    vector: F32
    packets: int
    payload_bytes: int
    timer: TransferTimer


@dataclass(slots=True)
class _Partial:
    info: pb.ModelInfo
    vector: F32
    timer: TransferTimer
    packets: int = 0
    payload_bytes: int = 0


class Downlink:
    """Download models over one channel."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        radio: Radio,
        clock: Clock,
        log: EventLog,
        stall_s: float,
    ) -> None:
        self._call: grpc.aio.UnaryStreamMultiCallable[pb.FetchModelRequest, bytes] = (
            channel.unary_stream(
                _FETCH,
                request_serializer=pb.FetchModelRequest.SerializeToString,
                response_deserializer=None,
            )
        )
        self._radio = radio
        self._clock = clock
        self._log = log
        self._stall_s = stall_s
        self._holder = _Holder(None)

    @property
    def unfinished(self) -> Unfinished | None:
        """What the last fetch had received when it ended without a model."""
        partial = self._holder.partial
        if partial is None or partial.packets == 0:
            return None
        return Unfinished(partial.info.version, partial.packets, partial.payload_bytes)

    async def fetch(
        self, *, session: int, task_index: int, dimension: int, version: int = NEWEST_VERSION
    ) -> Model:
        """Return ``version``; after a break only the packets that are missing are sent again.

        Raises:
            StalledError: if several attempts in a row moved nothing although the link was open.
            ModelDamagedError: if the model's size or checksum is not what was announced.
            AioRpcError: NOT_FOUND if the version is not held, UNAUTHENTICATED without a session.

        """
        partial: _Partial | None = None
        self._holder = _Holder(None)
        fruitless = 0
        while True:
            await self._radio.contact()
            had = 0 if partial is None else partial.packets
            request = pb.FetchModelRequest(
                session=session,
                task_index=task_index,
                version=version if partial is None else partial.info.version,
                skip_packets=had,
            )
            watch = ProgressWatch(
                self._radio, unit_bytes=_UNIT_BYTES, minimum_s=self._stall_s, uplink=False
            )
            holder = self._holder = _Holder(partial)
            try:
                model = await watch.guard(self._receive(request, dimension, holder, watch))
            except StalledError as error:
                cause = str(error)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND and partial is not None:
                    holder.partial = None  # evicted meanwhile: begin again with what was asked for
                elif error.code() in (
                    grpc.StatusCode.NOT_FOUND,
                    grpc.StatusCode.UNAUTHENTICATED,
                    grpc.StatusCode.INVALID_ARGUMENT,
                ):
                    raise
                cause = f"{error.code().name}: {error.details()}"
            else:
                holder.partial = None
                return model
            partial = holder.partial
            have = 0 if partial is None else partial.packets
            fruitless = 0 if have > had else fruitless + 1
            self._log.write("download_interrupted", cause=cause, packets=have)
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise StalledError(
                    f"{fruitless} attempts in a row brought no packet of the model beyond {have}; "
                    f"last cause: {cause}"
                )
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)

    async def _receive(
        self,
        request: pb.FetchModelRequest,
        dimension: int,
        holder: "_Holder",
        watch: ProgressWatch,
    ) -> Model:
        call = self._call(request, wait_for_ready=True)
        try:
            async for data in call:
                part = _parse(data)
                if isinstance(part, pb.ModelInfo):
                    holder.begin(part, dimension)
                else:
                    holder.add(part, self._clock.now_s())
                watch.moved()
        finally:
            call.cancel()
        return holder.finish()


class _Holder:
    """The packets of one model that have arrived, across attempts."""

    def __init__(self, partial: _Partial | None) -> None:
        self.partial = partial

    def begin(self, info: pb.ModelInfo, dimension: int) -> None:
        if info.dimension != dimension:
            raise ModelDamagedError(
                f"the server's model has {info.dimension} parameters, ours {dimension}"
            )
        if self.partial is None:
            vector = np.empty(dimension, dtype=np.float32)
            self.partial = _Partial(info, vector, TransferTimer(info.packets))
        elif self.partial.info != info:
            raise ModelDamagedError("the server resumed another model than it had begun")

    def add(self, data: memoryview, now_s: float) -> None:
        partial = self.partial
        if partial is None:
            raise ModelDamagedError("a packet came before the model's description")
        try:
            packet = parse_packet(data)
            segment = codecs.decode(
                packet.codec, packet.payload, first=packet.first, count=packet.count
            )
        except (PacketError, CodecError) as error:
            raise ModelDamagedError(str(error)) from error
        if packet.sequence != partial.packets or packet.base_version != partial.info.version:
            raise ModelDamagedError(
                f"packet {packet.sequence} of version {packet.base_version} came where packet "
                f"{partial.packets} of version {partial.info.version} was due"
            )
        if packet.first + packet.count > partial.info.dimension:
            raise ModelDamagedError("a packet reaches beyond the model")
        segment.copy_to(partial.vector)
        partial.timer.arrived(HEADER_BYTES + len(packet.payload), now_s)
        partial.packets += 1
        partial.payload_bytes += len(packet.payload)

    def finish(self) -> Model:
        partial = self.partial
        if partial is None or partial.packets != partial.info.packets:
            raise ModelDamagedError("the server ended the model early")
        if google_crc32c.value(partial.vector.astype("<f4").tobytes()) != partial.info.checksum:
            raise ModelDamagedError("the model's checksum does not match")
        return Model(
            version=partial.info.version,
            vector=partial.vector,
            packets=partial.packets,
            payload_bytes=partial.payload_bytes,
            timer=partial.timer,
        )


def _parse(data: bytes) -> pb.ModelInfo | memoryview:
    try:
        return parse_model_part(data)
    except FramingError as error:
        raise ModelDamagedError(str(error)) from error
