"""Forked processes of a run: each with a message socket, each watched for an early end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab_agent.datagram_uplink import DatagramTooLongError
from fadelab_agent.membership import RefusedError
from fadelab_agent.nl80211 import WirelessError
from fadelab_agent.progress import StalledError
from fadelab_agent.state_dir import StateDirError
from fadelab_agent.trust import HandshakeError
from fadelab_emulation.linux import set_process_name
from fadelab_emulation.sandbox import ForeignNamespaceError, SandboxError
from fadelab_proto.codecs import AccelerationError
from fadelab_proto.tls import TrustError
from fadelab_server.checkpoint import CheckpointError

PROCESS_PREFIX = "fadelab:"
"""What the names of a run's processes begin with, for ps and for `fadelab doctor`."""

_MAX_MESSAGE_BYTES = 65536
_SYMPTOM_S = 1.0
_T = TypeVar("_T")
Message = dict[str, object]

# What a child's known errors mean to the user. Errors of the learning part and of the server process
# are found by name, so that others need not import torch or gRPC's health service for it.
_CODES: dict[type[BaseException], ExitCode] = {
    CheckpointError: ExitCode.CHECKPOINT,
    RefusedError: ExitCode.REFUSED,
    HandshakeError: ExitCode.UNTRUSTED,
    TrustError: ExitCode.USAGE,
    StalledError: ExitCode.COMPONENT_FAILED,
    DatagramTooLongError: ExitCode.USAGE,
    StateDirError: ExitCode.USAGE,
    WirelessError: ExitCode.ENVIRONMENT,
    SandboxError: ExitCode.ENVIRONMENT,
    ForeignNamespaceError: ExitCode.ENVIRONMENT,
    AccelerationError: ExitCode.ENVIRONMENT,
}
_CODES_BY_NAME = {
    "ListenError": ExitCode.ADDRESS_IN_USE,
    "DataSetError": ExitCode.DATA_MISSING,
    "PartitionError": ExitCode.USAGE,
    "TrainingDiverged": ExitCode.COMPONENT_FAILED,
    "NetlinkError": ExitCode.ENVIRONMENT,
}


class Channel:
    """Messages between two processes: JSON objects, and descriptors when needed."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.failure: Message | None = None
        """The last message that told of one, whoever has received it."""

    @staticmethod
    def pair() -> "tuple[Channel, Channel]":
        """Return two connected ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return Channel(ours), Channel(theirs)

    def send(self, **message: object) -> None:
        """Send one message; a peer that is gone does not matter."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(json.dumps(message).encode())

    def receive(self) -> Message | None:
        """Wait for a message; None when the other end is closed."""
        return self._received(self.socket.recv(_MAX_MESSAGE_BYTES))

    async def receive_async(self) -> Message | None:
        """Wait in the event loop for a message; None when the other end is closed."""
        self.socket.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        loop = asyncio.get_running_loop()
        return self._received(await loop.sock_recv(self.socket, _MAX_MESSAGE_BYTES))

    def drain(self) -> list[Message]:
        """Return the messages that have arrived, without waiting."""
        messages: list[Message] = []
        self.socket.setblocking(False)  # noqa: FBT003 (the standard library's signature)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while (message := self.receive()) is not None:
                messages.append(message)
        return messages

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def _received(self, data: bytes) -> Message | None:
        if not data:
            return None
        message = json.loads(data)
        assert isinstance(message, dict)
        if "failed" in message:
            self.failure = message
        return message


@dataclass(slots=True)
class Child:
    """A forked process."""

    name: str
    pid: int
    descriptor: int
    """A pidfd: readable when the process has ended."""
    channel: Channel
    exit_code: int | None = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)


def fork_child(name: str, body: Callable[[Channel], None]) -> Child:
    """Fork a process that runs ``body`` with its end of a channel and then exits.

    A known error becomes a message ``{"failed": sentence}`` and its exit code, any other a
    traceback on standard error and code 1.
    """
    ours, theirs = Channel.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        run_child(name, theirs, body)
    theirs.close()
    return Child(name, pid, os.pidfd_open(pid), ours)


def run_child(name: str, channel: Channel, body: Callable[[Channel], None]) -> NoReturn:
    """Run ``body`` as the whole life of this process."""
    code = ExitCode.INTERNAL
    try:
        set_process_name(PROCESS_PREFIX + name)
        body(channel)
        code = ExitCode.VALID
    except BaseException as error:  # noqa: BLE001 -- the process ends here, whatever it is
        known = exit_code_of(error)
        if known is None:
            traceback.print_exc()
            channel.send(
                failed=f"{name}: {type(error).__name__}: {error}", name=name, code=int(code)
            )
        else:
            code = known
            channel.send(failed=f"{name}: {error}", name=name, code=int(code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: this process must not run its parent's clean-up.
        os._exit(code)


def exit_code_of(error: BaseException) -> ExitCode | None:
    """Return the exit code of an error that users can act on; None for a defect."""
    if isinstance(error, FadelabError):
        return error.code
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
        if kind.__name__ in _CODES_BY_NAME:
            return _CODES_BY_NAME[kind.__name__]
    return None


class Family:
    """The children of one process, in its event loop: whoever waits also hears of deaths."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self._ended: dict[str, asyncio.Future[None]] = {}

    def adopt(self, child: Child) -> None:
        """Begin to watch a child."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.children.append(child)
        self._ended[child.name] = future

        def reap() -> None:
            loop.remove_reader(child.descriptor)
            _, status = os.waitpid(child.pid, 0)
            child.exit_code = os.waitstatus_to_exitcode(status)
            os.close(child.descriptor)
            future.set_result(None)

        loop.add_reader(child.descriptor, reap)

    async def ended(self, child: Child) -> int:
        """Wait for a child's end; return its exit code, negative for a signal."""
        # Shielded: giving up this wait must not cancel the future that the reaper fulfils.
        await asyncio.shield(self._ended[child.name])
        assert child.exit_code is not None
        return child.exit_code

    async def unless_one_dies(self, work: Awaitable[_T], *, may_end: tuple[str, ...] = ()) -> _T:
        """Return the result of ``work``.

        Args:
            work: what is waited for.
            may_end: children whose regular end is no reason to stop waiting.

        Raises:
            FadelabError: with the child's own words, if one ends before ``work`` is done.

        """
        task = asyncio.ensure_future(work)
        watched: set[asyncio.Future[_T] | asyncio.Future[None]] = {task, *self._ended.values()}
        try:
            while not task.done():
                watched = {future for future in watched if future is task or not future.done()}
                self._mourn(may_end)
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if task.exception() is not None:
                # A death may show first as its consequence, such as a broken connection.
                waiting = [future for future in self._ended.values() if not future.done()]
                if waiting:
                    await asyncio.wait(
                        waiting, timeout=_SYMPTOM_S, return_when=asyncio.FIRST_COMPLETED
                    )
            self._mourn(may_end)
            return task.result()
        finally:
            task.cancel()

    async def end(self, child: Child, *, grace_s: float) -> None:
        """Ask a child to end; insist after ``grace_s``."""
        future = self._ended[child.name]
        if future.done():
            return
        child.signal(signal.SIGTERM)
        done, _ = await asyncio.wait((future,), timeout=grace_s)
        if not done:
            child.signal(signal.SIGKILL)
            await future

    def _mourn(self, may_end: tuple[str, ...]) -> None:
        """Raise the last words of a child that should not have ended."""
        for child in self.children:
            if child.exit_code is not None and (child.exit_code != 0 or child.name not in may_end):
                raise self._obituary(child)

    def _obituary(self, dead: Child) -> FadelabError:
        dead.channel.drain()
        if (failure := dead.channel.failure) is not None:
            return FadelabError(ExitCode(int(str(failure["code"]))), str(failure["failed"]))
        how = how_it_ended(dead.exit_code)
        return FadelabError(ExitCode.COMPONENT_FAILED, f"{dead.name} ended unexpectedly with {how}")


def how_it_ended(exit_code: int | None) -> str:
    """Return an exit code, or a signal's name for a negative one, in words."""
    assert exit_code is not None
    return f"exit code {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
