"""The emulator's side of :mod:`fadelab.stack.attend`: who asks for a link, and whether it gets one."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import ValidationError

from fadelab.exit_codes import FadelabError
from fadelab.stack.attend import LONGEST_MESSAGE, Answer, Claim
from fadelab_emulation.attach.places import MissingCapabilityError, RefusedPlaceError

_BACKLOG = 128
_WAITING_S = 10.0
"""For a claim, once somebody has connected."""


class Registrar:
    """Agents of this node that have a link, for as long as their connections stand.

    Args:
        path: of the socket to be made; what a killed process left there is removed.
        run_id: of the run whose agents are served.
        devices: how many there are on all nodes.
        clock_offset_s: is told to agents.
        give: makes a device's link in the network behind a descriptor, which it takes over;
            returns when the link is there.

    """

    def __init__(
        self,
        path: Path,
        *,
        run_id: int,
        devices: int,
        clock_offset_s: float,
        give: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._run_id = run_id
        self._devices = devices
        self._clock_offset_s = clock_offset_s
        self._give = give
        self._held: set[int] = set()
        self._serving: set[asyncio.Task[None]] = set()
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(0)
        self._socket.bind(str(path))
        self._socket.listen(_BACKLOG)

    async def serve(self) -> None:
        """Answer agents until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                connection, _ = await loop.sock_accept(self._socket)
                task = asyncio.create_task(self._attend(connection))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)
        finally:
            self._socket.close()
            for task in self._serving:
                task.cancel()

    async def _attend(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(_readable(connection), _WAITING_S)
            message, descriptors, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 1)
            device, answer = await self._judge(message, descriptors)
            try:
                connection.send(answer.model_dump_json().encode())
                if not answer.refused:
                    await _readable(connection)
            finally:
                if not answer.refused:
                    self._held.discard(device)

    async def _judge(self, message: bytes, descriptors: list[int]) -> tuple[int, Answer]:
        """Return the device and what it is told; if it is not refused, it is held."""
        try:
            claim = Claim.model_validate_json(message)
        except ValidationError:
            claim, problem = Claim(device=0, run_id=0), "its message is none of ours"
        else:
            problem = self._problem(claim, descriptors)
        if problem:
            for descriptor in descriptors:
                os.close(descriptor)
            return claim.device, Answer(refused=problem)
        self._held.add(claim.device)
        try:
            await self._give(claim.device, descriptors[0])
        except (FadelabError, RefusedPlaceError, MissingCapabilityError, OSError) as error:
            self._held.discard(claim.device)
            return claim.device, Answer(refused=str(error))
        return claim.device, Answer(clock_offset_s=self._clock_offset_s)

    def _problem(self, claim: Claim, descriptors: list[int]) -> str:
        if claim.run_id != self._run_id:
            return "it belongs to another run"
        if claim.device >= self._devices:
            return f"there is no device {claim.device}: the run has {self._devices}"
        if claim.device in self._held:
            return f"device {claim.device} has its link already, in a container that still runs"
        if len(descriptors) != 1:
            return "it sent no network namespace"
        return ""


async def _readable(connection: socket.socket) -> None:
    """Return when there is something to read, or the other end is gone."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection)
