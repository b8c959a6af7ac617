"""A broadcast without a queue: watchers learn that something changed, then look at the state."""

import asyncio


class Signal:
    """Count changes and wake everybody who has not seen the latest one.

    A slow watcher misses no state, only intermediate ones, and never makes anybody else wait.
    """

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Announce a change."""
        self.count += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed_since(self, seen: int) -> int:
        """Return the current count once it differs from ``seen``; at once if it does already."""
        while self.count == seen:
            await self._changed.wait()
        return self.count
