"""What the journal says: announced updates, their packets, and every decision in its order.

Decisions are JSON objects, announcements and packets are as they came over the wire. Whatever else
a decision depends on is in it (times, rosters) or follows from the records before it.
"""

import json
import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.packet import PacketError, parse_packet
from fadelab_server.journal.segments import JournalError

_ANNOUNCED = struct.Struct("<Hd")
_BASE = struct.Struct("<BId")


class Kind(IntEnum):
    """What a record is; the numbers are in files: never reuse one."""

    ANNOUNCED = 1
    PACKET = 2
    APPLIED = 3
    DROPPED = 4
    ROSTER = 5
    STARTED = 6
    BASE = 7
    ALLOTTED = 8
    ROUND_ENDED = 9
    GRANTED = 10


@dataclass(frozen=True, slots=True)
class Announced:
    """A device will send an update."""

    device: int
    now_s: float
    header: pb.UploadHeader

    def encode(self) -> bytes:
        """Return the record's body."""
        return _ANNOUNCED.pack(self.device, self.now_s) + self.header.SerializeToString()

    @staticmethod
    def decode(body: memoryview) -> "Announced":
        """Return what a body says."""
        device, now_s = _ANNOUNCED.unpack_from(body)
        header = pb.UploadHeader.FromString(bytes(body[_ANNOUNCED.size :]))
        return Announced(device, now_s, header)


@dataclass(frozen=True, slots=True)
class Base:
    """A version that an update was trained from and that no snapshot holds."""

    task: int
    version: int
    published_mono_s: float
    vector: NDArray[np.float32]

    def encode(self) -> bytes:
        """Return the record's body."""
        head = _BASE.pack(self.task, self.version, self.published_mono_s)
        return head + self.vector.astype("<f4").tobytes()

    @staticmethod
    def decode(body: memoryview) -> "Base":
        """Return what a body says."""
        task, version, published_mono_s = _BASE.unpack_from(body)
        vector = np.frombuffer(body[_BASE.size :], dtype="<f4").astype(np.float32)
        return Base(task, version, published_mono_s, vector)


@dataclass(frozen=True, slots=True)
class Applied:
    """An update was handed to the aggregation rule, with all packets that came before this."""

    task: int
    device: int
    update_id: int
    now_s: float
    arrived_s: float = math.nan
    """When its last packet came."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """An update was refused, or replaced by the device's next one."""

    task: int
    device: int
    update_id: int


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """Other devices are in the run."""

    task: int
    devices: tuple[int, ...]
    now_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """Emulated time began."""

    start_mono_s: float


@dataclass(frozen=True, slots=True)
class Allotted:
    """A round was decided: who sends, and with which chances."""

    task: int
    version: int
    devices: tuple[int, ...]
    sign: tuple[float, ...]
    """Predicted probability that a device's signs arrive, in the devices' order."""
    modulus: tuple[float, ...]
    """And that its moduli do, given the signs."""


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A round's time was over; what had not arrived counts as lost."""

    task: int
    now_s: float


@dataclass(frozen=True, slots=True)
class Granted:
    """A round's powers were decided, or decided anew, and put in force; lists go by ``devices``."""

    version: int
    now_s: float
    planned_s: float
    """Of the round, computing included."""
    planned_j: float
    compute_s: float
    compute_j: float
    devices: tuple[int, ...]
    """Who had reported."""
    update_ids: tuple[int, ...]
    reports: tuple[dict[str, float], ...]
    coefficient: tuple[float, ...]
    power_w: tuple[float, ...]
    rate_bps: tuple[float, ...]
    upload_s: tuple[float, ...]


Decision = Applied | Dropped | RosterChanged | Started | Allotted | RoundEnded | Granted
_Any = TypeVar("_Any", Applied, Dropped, RosterChanged, Started, Allotted, RoundEnded, Granted)


def encode_decision(decision: Decision) -> bytes:
    """Return a decision's body."""
    # dataclasses.asdict copies deeply, which takes longer than all the rest.
    fields = {name: getattr(decision, name) for name in decision.__slots__}
    return json.dumps(fields).encode()


def decode_decision(kind: type[_Any], body: memoryview) -> _Any:
    """Return the decision of this kind that a body holds.

    Raises:
        JournalError: if it holds none.

    """
    try:
        fields: dict[str, Any] = json.loads(bytes(body))
        return kind(**fields)
    except (ValueError, TypeError) as error:
        raise JournalError(f"the journal holds a {kind.__name__} that is none: {error}") from error


def intact(kind: int, body: memoryview) -> bool:
    """Return whether a body's own checksum is right; packets alone have one."""
    if kind != Kind.PACKET:
        return True
    try:
        parse_packet(body)
    except PacketError:
        return False
    return True
