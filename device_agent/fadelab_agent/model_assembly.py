"""A model that is arriving: from its description and packets to a checked vector."""

from typing import Literal, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from fadelab_proto import codecs
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.codecs import CodecError
from fadelab_proto.packet import HEADER_BYTES, MAX_PACKETS, Packet, PacketError, parse_packet
from fadelab_proto.transfer_timer import TransferTimer

F32 = NDArray[np.float32]
Kind = Literal["full", "delta", "quantised"]


class ModelDamagedError(RuntimeError):
    """What arrived is not the model that the server announced."""


class WrongBaseError(ModelDamagedError):
    """The changes arrived undamaged, but what they were applied to is not what the server meant."""


class OtherwiseError(Exception):
    """The server sends the same model otherwise than before: what has arrived is of no use."""


class HeldModel(NamedTuple):
    """A version that the device holds."""

    version: int
    vector: F32


class ModelAssembly:
    """The packets of one model that have arrived, across attempts.

    What a packet says is bounded by the model's dimension before anything of it is decoded, so a
    server that goes wrong cannot make a device allocate more than the model and one packet.

    Args:
        dimension: parameters of the model.
        held: a version that changes may build upon; not modified.

    """

    def __init__(self, dimension: int, held: HeldModel | None) -> None:
        self.packets = 0
        self.timer = TransferTimer(0)
        self._dimension = dimension
        self._held = held
        self._info: pb.ModelInfo | None = None
        self._vector = np.empty(0, dtype=np.float32)

    @property
    def version(self) -> int | None:
        """The version that is arriving; None before the server has named it."""
        return None if self._info is None else self._info.version

    @property
    def base_version(self) -> int | None:
        """The version that the packets build upon, if any."""
        info = self._info
        return info.base_version if info is not None and info.HasField("base_version") else None

    @property
    def kind(self) -> Kind:
        """How the model comes."""
        if self.base_version is None or self._info is None:
            return "full"
        return "quantised" if self._info.adds else "delta"

    def request(self, *, session: int, task_index: int, wanted: int) -> pb.FetchModelRequest:
        """Return what to ask the server for: all, or what is missing of what it has begun."""
        request = pb.FetchModelRequest(session=session, task_index=task_index, version=wanted)
        held = None if self._held is None else self._held.version
        if self._info is not None:
            request.version, request.skip_packets = self._info.version, self.packets
            held = self.base_version
        if held is not None:
            request.held_version = held
        return request

    def begin(self, info: pb.ModelInfo) -> None:
        """Take a description; after a break it must be the same.

        Raises:
            ModelDamagedError: if it is not of a model of ours, or of another one than before.
            OtherwiseError: if the same model comes in other packets than before.

        """
        if self._info is None:
            self._check(info)
            self._info = info
            self.timer = TransferTimer(info.packets)
            if info.HasField("base_version") and self._held is not None:
                self._vector = self._held.vector.copy()
            else:
                self._vector = np.empty(self._dimension, dtype=np.float32)
        elif (self._info.version, self._info.checksum) != (info.version, info.checksum):
            raise ModelDamagedError("the server resumed another model than it had begun")
        elif self._info != info:
            raise OtherwiseError("the server can no longer go on as it had begun")

    def _check(self, info: pb.ModelInfo) -> None:
        held = None if self._held is None else self._held.version
        wrong = None
        if info.dimension != self._dimension:
            wrong = f"the server's model has {info.dimension} parameters, ours {self._dimension}"
        elif info.packets > MAX_PACKETS:
            wrong = f"a model in {info.packets} packets is more than {MAX_PACKETS}"
        elif info.HasField("base_version") and info.base_version != held:
            wrong = (
                f"the server sends what changed since version {info.base_version}, we hold {held}"
            )
        elif info.adds and not info.HasField("base_version"):
            wrong = "the server sends steps without saying from which version"
        if wrong is not None:
            raise ModelDamagedError(wrong)

    def add(self, data: memoryview, now_s: float) -> int:
        """Take the next packet; return its payload bytes.

        Raises:
            ModelDamagedError: if it is damaged, or not the next packet of this model.

        """
        info = self._info
        if info is None:
            raise ModelDamagedError("a packet came before the model's description")
        try:
            packet = parse_packet(data)
            self._belongs(packet, info)
            segment = codecs.decode(
                packet.codec, packet.payload, first=packet.first, count=packet.count
            )
        except (PacketError, CodecError) as error:
            raise ModelDamagedError(str(error)) from error
        if segment.part is not codecs.Part.VALUES:
            raise ModelDamagedError(f"a packet of codec {packet.codec} holds no entries of a model")
        if info.adds:
            segment.add_to(self._vector)
        else:
            segment.copy_to(self._vector)
        self.timer.arrived(HEADER_BYTES + len(packet.payload), now_s)
        self.packets += 1
        return len(packet.payload)

    def _belongs(self, packet: Packet, info: pb.ModelInfo) -> None:
        if packet.packet_class != pb.PACKET_CLASS_MODEL:
            raise ModelDamagedError(f"a packet of class {packet.packet_class} came with a model")
        came = packet.sequence, packet.packets, packet.base_version
        if came != (self.packets, info.packets, info.version):
            raise ModelDamagedError(
                f"packet {packet.sequence} of {packet.packets} of version {packet.base_version} "
                f"came where packet {self.packets} of {info.packets} of version {info.version} "
                "was due"
            )
        if packet.first + packet.count > self._dimension:
            raise ModelDamagedError("a packet reaches beyond the model")

    def finish(self) -> HeldModel:
        """Return the model.

        Raises:
            ModelDamagedError: if packets are missing, or it is not what was announced.
            WrongBaseError: if that may be because of the version that the changes build upon.

        """
        info = self._info
        if info is None or self.packets != info.packets:
            raise ModelDamagedError("the server ended the model early")
        if google_crc32c.value(self._vector.astype("<f4").tobytes()) != info.checksum:
            if self.base_version is None:
                raise ModelDamagedError("the model's checksum does not match")
            raise WrongBaseError(
                f"the checksum does not match: version {self.base_version} is not what the server "
                "holds under this number"
            )
        self._vector.flags.writeable = False
        return HeldModel(info.version, self._vector)
