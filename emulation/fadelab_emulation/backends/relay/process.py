"""Starting and ending the relay process."""

import os
import subprocess
import sys
from collections.abc import Sequence

from pydantic import TypeAdapter

from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.relay.engine import Descriptors
from fadelab_emulation.backends.relay.shared_state import SharedState

ORDER = TypeAdapter(tuple[LinkPlan, Descriptors])
"""What the process is told on its standard input."""


class RelayError(RuntimeError):
    """The relay process has ended while it was needed."""


class RelayProcess:
    """A fresh interpreter that holds the TUN interfaces and nothing else of this process.

    It is executed, not forked: whatever threads, sockets and memory this process has stay here.
    It ends with this process, however that ends; the interfaces vanish with it.

    Args:
        plan: the links.
        device_tuns: descriptors of the devices' interfaces; this process gives them up.
        hub_tuns: descriptors of the server's ends; likewise.
        shared: where wishes are written and counts are read.

    Raises:
        RelayError: it did not start.

    """

    def __init__(
        self,
        plan: LinkPlan,
        device_tuns: Sequence[int],
        hub_tuns: Sequence[int],
        shared: SharedState,
    ) -> None:
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._resumed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        parent = os.pidfd_open(os.getpid())
        given = Descriptors(
            tuple(device_tuns),
            tuple(hub_tuns),
            memory=shared.descriptor,
            bell=self._bell,
            resumed=self._resumed,
            over=self._over,
            parent=parent,
        )
        self._process = subprocess.Popen(
            # -P: what lies in the working directory is no module of ours.
            [sys.executable, "-P", "-m", "fadelab_emulation.backends.relay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=given.all(),
            # Ctrl-C at the terminal is the emulator's to deal with.
            start_new_session=True,
        )
        for descriptor in (*device_tuns, *hub_tuns, parent):
            os.close(descriptor)
        self.scheduling = self._await_readiness(ORDER.dump_json((plan, given)))
        """``real-time`` or ``fair``, as granted."""

    def ring(self) -> None:
        """Say that wishes have changed."""
        os.eventfd_write(self._bell, 1)

    def check(self) -> None:
        """Raise RelayError if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise RelayError(f"the relay process has ended with code {code}; no packet passes")

    def resumed_fileno(self) -> int:
        """Return a descriptor that is readable when an uplink has resumed."""
        return self._resumed

    def clear_resumed(self) -> None:
        """Make that descriptor unreadable until the next time."""
        try:
            os.eventfd_read(self._resumed)
        except BlockingIOError:
            return

    def close(self) -> None:
        """End the process and with it the interfaces."""
        os.eventfd_write(self._over, 1)
        self._process.wait()
        for descriptor in (self._bell, self._resumed, self._over):
            os.close(descriptor)

    def _await_readiness(self, order: bytes) -> str:
        to_relay, from_relay = self._process.stdin, self._process.stdout
        assert to_relay is not None
        assert from_relay is not None
        with from_relay:
            with to_relay:
                to_relay.write(order)
            word = from_relay.readline().decode().strip()
        if not word:
            code = self._process.wait()
            raise RelayError(f"the relay process did not start (code {code})")
        return word
