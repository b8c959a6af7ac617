"""The update that is under way, on disk: an agent that was killed goes on with exactly that one.

A spool is one file for each task (little-endian)::

    8     magic
    4     CRC-32C of everything after this field
    4     bytes of the description
    n     description, a JSON object (:class:`_Description`)
    4 m   the lengths of the m packets
    ...   the memory's state as float32, unless it is what the packets hold
    ...   the packets, one after the other

It is written beside the old one and renamed over it before the first packet of an update leaves the
device, so that whatever has left is known to the next process. The file of an update stays until the
next update's takes its place: after a restart the server is asked what became of the update, and the
memory is settled by that, wherever between two updates the device was killed.
"""

import contextlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.checksum import checksum
from fadelab_proto.config import StrictModel
from fadelab_proto.durable import replace_file
from fadelab_proto.packet import HEADER_BYTES, MAX_PACKETS

F32 = NDArray[np.float32]
_MAGIC = b"FADESPL1"
_NUMBER = struct.Struct("<I")
_HEAD_BYTES = len(_MAGIC) + 2 * _NUMBER.size
_MOST_DESCRIPTION_BYTES = 65536
_MOST_BYTES_OF_ENTRY = 8
"""Of an entry in packets: an index and a value."""


class SpoolError(RuntimeError):
    """A spool cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose updates a spool holds."""

    run_id: int
    device: int
    task: str
    dimension: int
    layout_hash: int
    memory: str
    """Name of the class that remembers what was not sent."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """An update that is under way, and what its device needs to go on after it."""

    update: EncodedUpdate
    state: F32 | None
    """Of the memory, before the update is settled; None if it has none."""
    nominal_bits: int
    coded_bits: int


class _Description(StrictModel):
    run_id: int
    device: int
    task: str
    dimension: int
    layout_hash: int
    memory: str
    nominal_bits: int = Field(ge=0)
    coded_bits: int = Field(ge=0)
    header: str = Field(description="The update's UploadHeader in hexadecimal digits.")
    state: bool = Field(description="Whether the memory has a state.")
    written: bool = Field(description="Whether it is written out; if not, it is the payloads.")


class Spool:
    """The file of one task's update.

    Args:
        path: of the file.
        owner: whose updates it holds; another one's are refused.
        sync: whether it shall survive a crash of the machine too, not of the agent alone.

    """

    def __init__(self, path: Path, owner: Owner, *, sync: bool = True) -> None:
        self.path = path
        self._owner = owner
        self._sync = sync

    def write(self, spooled: Spooled) -> int:
        """Replace what the file holds; return its length in bytes.

        Raises:
            SpoolError: if the file system refuses; the file is as it was.

        """
        state, packets = spooled.state, spooled.update.packets
        values = b"" if state is None else state.astype("<f4", copy=False).tobytes()
        # What a dense update of float32 values holds need not be written twice.
        written = values != b"".join(packet[HEADER_BYTES:] for packet in packets)
        owner = self._owner
        description = _Description(
            run_id=owner.run_id,
            device=owner.device,
            task=owner.task,
            dimension=owner.dimension,
            layout_hash=owner.layout_hash,
            memory=owner.memory,
            nominal_bits=spooled.nominal_bits,
            coded_bits=spooled.coded_bits,
            header=spooled.update.header.SerializeToString().hex(),
            state=state is not None,
            written=written,
        ).model_dump_json()
        pieces = [
            _NUMBER.pack(len(description)),
            description.encode(),
            np.array([len(packet) for packet in packets], dtype="<u4").tobytes(),
            values if written else b"",
            *packets,
        ]
        try:
            whole = [_MAGIC, _NUMBER.pack(checksum(pieces)), *pieces]
            replace_file(self.path, lambda file: file.writelines(whole), sync=self._sync)
        except OSError as error:
            raise SpoolError(f"cannot write {self.path}: {error.strerror}") from error
        return sum(len(piece) for piece in whole)

    def read(self) -> Spooled | None:
        """Return what the file holds; None if there is no file.

        Raises:
            SpoolError: if it is damaged, or is not this owner's.

        """
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                most = _most_bytes(self._owner.dimension)
                if size > most:
                    raise SpoolError(f"it has {size} bytes; {most} are the most that it can have")
                data = file.read(most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SpoolError(f"it cannot be read: {error.strerror}") from error
        try:
            return self._parse(memoryview(data))
        except (ValidationError, DecodeError, ValueError) as error:
            raise SpoolError(f"it holds what no update has: {error}") from error

    def set_aside(self) -> None:
        """Take the file out of the way, in the place of an earlier such one."""
        with contextlib.suppress(OSError):  # the next update replaces it all the same
            self.path.replace(_beside(self.path, "aside"))

    def _parse(self, data: memoryview) -> Spooled:
        if len(data) < _HEAD_BYTES or bytes(data[: len(_MAGIC)]) != _MAGIC:
            raise SpoolError("it is no spool of this version")
        (declared,) = _NUMBER.unpack_from(data, len(_MAGIC))
        if google_crc32c.value(bytes(data[len(_MAGIC) + _NUMBER.size :])) != declared:
            raise SpoolError("it is damaged: its checksum does not match")
        (length,) = _NUMBER.unpack_from(data, _HEAD_BYTES - _NUMBER.size)
        if length > _MOST_DESCRIPTION_BYTES:
            raise SpoolError(f"its description of {length} bytes is too long")
        rest = data[_HEAD_BYTES + length :]
        about = _Description.model_validate_json(bytes(data[_HEAD_BYTES : _HEAD_BYTES + length]))
        self._check_owner(about)
        header = pb.UploadHeader.FromString(bytes.fromhex(about.header))
        if header.packets > MAX_PACKETS or header.dimension != about.dimension:
            raise SpoolError("its update is none of this task")
        lengths = np.frombuffer(rest[: 4 * header.packets], dtype="<u4").astype(int)
        rest = rest[4 * header.packets :]
        values = rest[: 4 * about.dimension] if about.state and about.written else rest[:0]
        update = EncodedUpdate(header, _split(rest[len(values) :], lengths.tolist()))
        if checksum(update.packets) != header.content:
            raise SpoolError("its packets are not those of its update")
        return Spooled(update, _state(about, values, update), about.nominal_bits, about.coded_bits)

    def _check_owner(self, about: _Description) -> None:
        owner = self._owner
        for name in Owner.__slots__:
            if getattr(about, name) != getattr(owner, name):
                raise SpoolError(
                    f"its {name} is {getattr(about, name)}, this device's is {getattr(owner, name)}"
                )


def _most_bytes(dimension: int) -> int:
    per_packet = HEADER_BYTES + 2 * _NUMBER.size
    return (
        _HEAD_BYTES
        + _MOST_DESCRIPTION_BYTES
        + (4 + _MOST_BYTES_OF_ENTRY) * dimension
        + per_packet * MAX_PACKETS
    )


def _split(data: memoryview, lengths: Sequence[int]) -> tuple[bytes, ...]:
    if sum(lengths) != len(data):
        raise SpoolError(f"{len(data)} bytes are not packets of {sum(lengths)} bytes")
    packets, at = [], 0
    for length in lengths:
        packets.append(bytes(data[at : at + length]))
        at += length
    return tuple(packets)


def _state(about: _Description, values: memoryview, update: EncodedUpdate) -> F32 | None:
    if not about.state:
        return None
    data = values if about.written else b"".join(p[HEADER_BYTES:] for p in update.packets)
    state = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if len(state) != about.dimension:
        raise SpoolError(f"its memory has {len(state)} entries, the model {about.dimension}")
    return state


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")
