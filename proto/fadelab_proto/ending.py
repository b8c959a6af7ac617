"""The signals by which a process is asked to end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def asked_to_end(tell: Callable[[], object]) -> Iterator[None]:
    """Have the running event loop call ``tell`` at SIGTERM and SIGINT; afterwards they change nothing.

    To be used by the last thing that a loop does: a loop closes its end of the wake-up pipe before it
    gives up its handlers, and a signal in between, such as one to a process that is leaving already,
    would be printed as an exception of nobody's.
    """
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, tell)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
