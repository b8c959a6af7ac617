"""How the kernel divides the processor among a server's threads."""

import contextlib
import os


def prefer_throughput() -> None:
    """Have threads that this one starts finish what they are about before others get their turn.

    gRPC's threads wake one another several times for each message, and each time the kernel may
    let the woken one interrupt the one that is about to decode it. In the batch class (sched(7),
    SCHED_BATCH) it does not. Whoever was given another class keeps it; a sandbox may refuse.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
