"""Fetching a model version, packet by packet, resuming after a break."""

from dataclasses import dataclass
from typing import NamedTuple

import grpc

from fadelab_agent.model_assembly import (
    F32,
    HeldModel,
    Kind,
    ModelAssembly,
    ModelDamagedError,
    OtherwiseError,
    WrongBaseError,
)
from fadelab_agent.progress import (
    FRUITLESS_ATTEMPTS,
    RETRY_PAUSE_S,
    ProgressWatch,
    StalledError,
)
from fadelab_agent.radio import Radio
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_proto.transfer_timer import TransferTimer
from fadelab_proto.wire import NEWEST_VERSION, SERVICE, FramingError, parse_model_part

__all__ = ["Downlink", "Model", "ModelDamagedError", "Unfinished"]

_FETCH = f"/{SERVICE}/FetchModel"
# What one attempt without a first packet may cost in unit bytes before it counts as stalled.
_UNIT_BYTES = 16384
_NO_USE_TO_REPEAT = frozenset(
    (
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
    )
)


class Unfinished(NamedTuple):
    """What a fetch has received of a model."""

    version: int
    packets: int
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Model:
    """A downloaded version."""

    version: int
    vector: F32
    """Not to be modified."""
    packets: int
    """Received by the fetch that ended with the model, those that turned out useless included."""
    payload_bytes: int
    timer: TransferTimer
    kind: Kind = "full"
    base_version: int | None = None
    """The version that was held before and needed only changes."""


class Downlink:
    """Download models of one task over one channel.

    Args:
        channel: the data plane, or the operator's socket.
        radio: tells contact and rate.
        clock: the process's.
        log: gets ``download_interrupted``.
        stall_s: seconds in contact without progress that are always tolerated.
        keeps_model: whether to hold the last model, so that only changes need to be fetched.

    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        radio: Radio,
        clock: Clock,
        log: EventLog,
        stall_s: float,
        keeps_model: bool = False,
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
        self._keeps_model = keeps_model
        self._held: HeldModel | None = None
        self._begun: ModelAssembly | None = None
        self._received = Unfinished(0, 0, 0)

    @property
    def unfinished(self) -> Unfinished | None:
        """What the last fetch had received when it ended without a model."""
        return self._received if self._received.packets else None

    async def fetch(
        self, *, session: int, task_index: int, dimension: int, version: int = NEWEST_VERSION
    ) -> Model:
        """Return ``version``; what has arrived is not sent again after a break.

        That holds for a break within this fetch, and for one that ended with a lost session: the
        next fetch goes on with the version that was begun if it is the one wanted, or the newest is.

        Raises:
            StalledError: if several attempts in a row moved nothing although the link was open.
            ModelDamagedError: if the model's size or checksum is not what was announced.
            AioRpcError: NOT_FOUND if the version is not held, UNAUTHENTICATED without a session.

        """
        self._received = Unfinished(0, 0, 0)
        if self._begun is not None and version not in (NEWEST_VERSION, self._begun.version):
            self._begun = None
        fruitless = 0
        while True:
            await self._radio.contact()
            assembly = self._begun or ModelAssembly(dimension, self._held)
            had = self._received.packets
            request = assembly.request(session=session, task_index=task_index, wanted=version)
            watch = ProgressWatch(
                self._radio, unit_bytes=_UNIT_BYTES, minimum_s=self._stall_s, uplink=False
            )
            try:
                held = await watch.guard(self._receive(request, assembly, watch))
            except StalledError as error:
                cause = str(error)
            except OtherwiseError as error:
                cause, self._begun = str(error), None
            except WrongBaseError as error:
                cause, self._begun, self._held = str(error), None, None
            except ModelDamagedError:
                self._begun = None
                raise
            except grpc.aio.AioRpcError as error:
                self._judge(error)
                cause = f"{error.code().name}: {error.details()}"
            else:
                return self._finished(held, assembly)
            have = 0 if self._begun is None else self._begun.packets
            fruitless = 0 if self._received.packets > had else fruitless + 1
            self._log.write("download_interrupted", cause=cause, packets=have)
            if fruitless >= FRUITLESS_ATTEMPTS:
                raise StalledError(
                    f"{fruitless} attempts in a row brought no packet of the model beyond {have}; "
                    f"last cause: {cause}"
                )
            await self._clock.sleep_until(self._clock.now_s() + RETRY_PAUSE_S)

    def _judge(self, error: grpc.aio.AioRpcError) -> None:
        """Raise an error that another attempt would meet again."""
        if error.code() == grpc.StatusCode.NOT_FOUND and self._begun is not None:
            self._begun = None  # evicted meanwhile: begin again with what was asked for
        elif error.code() in _NO_USE_TO_REPEAT:
            raise error

    async def _receive(
        self, request: pb.FetchModelRequest, assembly: ModelAssembly, watch: ProgressWatch
    ) -> HeldModel:
        call = self._call(request, wait_for_ready=True)
        try:
            async for data in call:
                part = _parse(data)
                if isinstance(part, pb.ModelInfo):
                    assembly.begin(part)
                    self._begun = assembly
                else:
                    size = assembly.add(part, self._clock.now_s())
                    _, packets, payload_bytes = self._received
                    self._received = Unfinished(
                        assembly.version or 0, packets + 1, payload_bytes + size
                    )
                watch.moved()
        finally:
            call.cancel()
        return assembly.finish()

    def _finished(self, model: HeldModel, assembly: ModelAssembly) -> Model:
        _, packets, payload_bytes = self._received
        self._received = Unfinished(0, 0, 0)
        self._begun = None
        if self._keeps_model:
            self._held = model
        return Model(
            version=model.version,
            vector=model.vector,
            packets=packets,
            payload_bytes=payload_bytes,
            timer=assembly.timer,
            kind=assembly.kind,
            base_version=assembly.base_version,
        )


def _parse(data: bytes) -> pb.ModelInfo | memoryview:
    try:
        return parse_model_part(data)
    except FramingError as error:
        raise ModelDamagedError(str(error)) from error
