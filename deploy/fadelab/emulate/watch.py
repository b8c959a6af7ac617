"""Hearing of containers that start again: their networks are new ones."""

import contextlib
import threading
from collections.abc import Callable, Sequence

from fadelab.emulate.engine import DockerEngine, Started, StartStream
from fadelab_emulation import linux


class ContainerWatch:
    """A thread that tells of every start of a container that somebody is interested in.

    Args:
        engine: whom to ask.
        home: descriptor of the network namespace that the engine is reached from.
        names: what the user calls the containers.
        hear: called in the thread with the user's name for it.

    """

    def __init__(
        self,
        engine: DockerEngine,
        home: int,
        names: Sequence[str],
        hear: Callable[[str, Started], None],
    ) -> None:
        self._names = names
        self._hear = hear
        self._stream: StartStream = engine.watch_starts()
        self._thread = threading.Thread(
            target=self._listen, args=(home,), name="containers", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._thread.join(timeout=1.0)

    def _listen(self, home: int) -> None:
        linux.setns(home, linux.CLONE_NEWNET)
        for started in self._stream:
            for name in self._names:
                if started.answers_to(name):
                    self._hear(name, started)
