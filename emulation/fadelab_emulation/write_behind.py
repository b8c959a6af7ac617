"""File writes in a thread of their own: a disk that is busy must not make a tick late."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class WriteBehind:
    """Carry actions out one after another, in order, while the caller goes on.

    Leaving the ``with`` block waits for the last action and raises the first error of any.
    """

    def __init__(self) -> None:
        self._actions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="write-behind")

    def submit(self, action: Callable[[], None]) -> None:
        """Have ``action`` carried out soon."""
        self._actions.put(action)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._actions.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        while (action := self._actions.get()) is not None:
            try:
                action()
            except Exception as error:  # noqa: BLE001 -- raised again where the block is left
                self._error = self._error or error
