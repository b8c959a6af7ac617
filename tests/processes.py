"""Child processes that nothing of earlier tests follows into.

A fork of the tests' process has a copy of every gRPC object that earlier tests have left, and none
of the threads that serve them. A child that frees such an object, or uses gRPC itself, may crash or
wait for ever.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable

from fadelab_emulation import linux

CLEAN = multiprocessing.get_context("forkserver")
"""Forks processes from one that has loaded what takes long, and has never done anything else.

What they run is passed by its name: functions of modules, not functions within functions. They see
no monkeypatch of the test.
"""
CLEAN.set_forkserver_preload(["pytest", "fadelab.emulate.process", "fadelab_server.app"])


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a fork of this process, which ends with this one; return its number.

    It must not use gRPC if this process ever did.

    All that exists now is exempt from garbage collection in the child, which ends without unwinding
    what is below ``body``: nothing that it has not made itself is ever freed there.
    """
    sys.stdout.flush()
    gc.disable()  # until the child has its exemption: Python's own hooks run before that
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads of other tests
        pid = os.fork()
    if pid == 0:
        gc.freeze()
    gc.enable()
    if pid == 0:
        status = 1
        try:
            linux.signal_on_parent_death(signal.SIGKILL)
            body()
            status = 0
        except Exception:  # noqa: BLE001 -- the process ends here, whatever it is
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid
