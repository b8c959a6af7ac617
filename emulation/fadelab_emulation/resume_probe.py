"""When does traffic flow again after a contact window reopened? Asked of the kernel's timestamps."""

import ctypes
import math
import socket
import struct
import time
from collections.abc import Collection

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_ANCILLARY_BYTES = 128
_SNAP_BYTES = 34
"""Ethernet and IPv4 header: what arrived does not matter, only when and where."""

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SKF_AD_IFINDEX = 0xFFFFF008
_INSTRUCTION = struct.Struct("=HBBI")
_FILTER_PROGRAM = struct.Struct("@HP")
_TIMESPEC = struct.Struct("@ll")
_MAX_WATCHED = 2000
"""A classic filter holds 4096 instructions, two for each interface."""


class ResumeProbe:
    """Reports the first IPv4 frame that arrives on each watched interface of this namespace.

    One packet socket serves all interfaces. Its filter lets through only watched ones, so that it
    costs next to nothing otherwise; and a socket for IPv4 alone never sees outgoing frames.
    """

    def __init__(self) -> None:
        self._watched: dict[int, float] = {}
        """Monotonic second from which each interface is watched."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._install_filter()

    def watch(self, indexes: Collection[int]) -> None:
        """Wait for the next IPv4 frame on each of these interfaces, besides those watched before.

        Beyond 2000 watched interfaces further ones are left out.
        """
        room = _MAX_WATCHED - len(self._watched)
        self._watched.update(dict.fromkeys(list(indexes)[:room], time.monotonic()))
        self._install_filter()

    def forget(self, indexes: Collection[int]) -> None:
        """Give up waiting on these interfaces."""
        left = {index: since for index, since in self._watched.items() if index not in indexes}
        if len(left) < len(self._watched):
            self._watched = left
            self._install_filter()

    def fileno(self) -> int:
        """Return the descriptor; readable when :meth:`arrivals` has something to say."""
        return self._socket.fileno()

    def arrivals(self) -> list[tuple[int, float]]:
        """Return (interface index, monotonic second) of the first frames seen; never waits."""
        # The kernel stamps frames with wall time; its distance to the monotonic clock is read now.
        offset_s = time.time() - time.monotonic()
        found: dict[int, float] = {}
        while True:
            try:
                _, ancillary, _, address = self._socket.recvmsg(_SNAP_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                break
            index = socket.if_nametoindex(address[0])
            arrived_s = _wall_time_s(ancillary) - offset_s
            # Frames let through by an earlier filter may still have been in the buffer.
            if index not in found and arrived_s >= self._watched.get(index, math.inf):
                found[index] = arrived_s
        self.forget(found)
        return list(found.items())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _install_filter(self) -> None:
        program = bytearray(_INSTRUCTION.pack(_LOAD, 0, 0, _SKF_AD_IFINDEX))
        for index in sorted(self._watched):
            program += _INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, 1, index)
            program += _INSTRUCTION.pack(_RETURN, 0, 0, _SNAP_BYTES)
        program += _INSTRUCTION.pack(_RETURN, 0, 0, 0)
        code = ctypes.create_string_buffer(bytes(program), len(program))
        argument = _FILTER_PROGRAM.pack(len(program) // _INSTRUCTION.size, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)


def _wall_time_s(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Return the kernel's time stamp of a frame; minus infinity if it has none."""
    for _, kind, data in ancillary:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return float(seconds + nanoseconds * 1e-9)
    return -math.inf
