"""Python's collector of cyclic garbage, kept away from work that makes none or keeps everything."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Look for no cyclic garbage within: what there is waits until afterwards."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import within: what modules are made of stays as long as the process.

    The collector would look at all of it again and again, which takes a sixth of an import's time
    and as much of torch's. It never looks at what is alive at the end.
    """
    with paused():
        yield
        gc.freeze()
