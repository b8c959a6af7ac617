"""The server of the twin: it counts versions."""

from fadelab_server.config import AflConfig, AggregationConfig, FedBuffConfig


class TwinServer:
    """Takes updates as the run's aggregation rule does.

    Args:
        aggregation: the rule.

    """

    def __init__(self, aggregation: AggregationConfig) -> None:
        self._needed = aggregation.buffer if isinstance(aggregation, FedBuffConfig) else 1
        self._most = (
            aggregation.max_staleness
            if isinstance(aggregation, AflConfig | FedBuffConfig)
            else None
        )
        self._waiting = 0
        self.version = 0

    def take(self, base_version: int) -> int | None:
        """Take an update made from a version; return its staleness, None if it is too old."""
        staleness = self.version - base_version
        if self._most is not None and staleness > self._most:
            return None
        self._waiting += 1
        if self._waiting == self._needed:
            self._waiting = 0
            self.version += 1
        return staleness
