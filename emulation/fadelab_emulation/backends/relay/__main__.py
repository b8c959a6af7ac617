"""The relay process; started by :class:`fadelab_emulation.backends.relay.process.RelayProcess`."""

import gc
import os
import sys

from fadelab_emulation import linux
from fadelab_emulation.backends.relay.engine import Engine
from fadelab_emulation.backends.relay.process import ORDER

_PRIORITY = 2
"""Above the emulator: a packet is more urgent than the next tick's computation."""


def _take_precedence() -> str:
    """Ask for real-time scheduling and say what was granted (sched(7))."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_PRIORITY))
    except PermissionError:
        return "fair"
    return "real-time"


def main() -> None:
    """Take the order from standard input, say on standard output that all is ready, and relay."""
    plan, given = ORDER.validate_json(sys.stdin.buffer.read())
    linux.set_process_name("fadelab-relay")
    engine = Engine(plan, given)
    # No reference cycles are made from here on; looking for some would make packets late.
    gc.collect()
    gc.freeze()
    gc.disable()
    os.write(sys.stdout.fileno(), _take_precedence().encode() + b"\n")
    try:
        engine.run()
    finally:
        engine.close()


if __name__ == "__main__":
    main()
