"""Having a queueing discipline look at its queue again without sending anything.

A token bucket that was changed sleeps on until its old timer rings. Any packet handed to it makes
the kernel run the queue, even one that is dropped on arrival (``__dev_xmit_skb`` in
net/core/dev.c): a nudge is a datagram of a priority that the shaper has no room for. Nothing
crosses the link, so no counter of it moves.
"""

import contextlib
import socket

_SO_PRIORITY = 12
_DISCARD_PORT = 9


class Nudger:
    """Nudge the interfaces that lead to given addresses.

    Args:
        shaper: handle of the HTB whose direct queue holds nothing; datagrams of this priority go
            there. Setting it takes CAP_NET_ADMIN in the namespace that the object is made in.

    """

    def __init__(self, shaper: int) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_PRIORITY, shaper)

    def nudge(self, address: str) -> None:
        """Run the queue of the interface that leads to ``address``."""
        # The kernel may or may not tell that the datagram was dropped; it always is.
        with contextlib.suppress(OSError):
            self._socket.sendto(b"", (address, _DISCARD_PORT))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
