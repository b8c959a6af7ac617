"""Aggregation rules, one file each."""

from fadelab_server.aggregation.base import AggregationRule, Contribution, Roster
from fadelab_server.aggregation.fedasync import FedAsync
from fadelab_server.aggregation.fedavg import FedAvg
from fadelab_server.config import AggregationConfig, FedAsyncConfig, FedAvgConfig

__all__ = ["AggregationRule", "Contribution", "FedAsync", "FedAvg", "Roster", "build_rule"]


def build_rule(config: AggregationConfig, dimension: int) -> AggregationRule:
    """Return a fresh rule for a model of ``dimension`` parameters."""
    match config:
        case FedAvgConfig():
            return FedAvg(config, dimension)
        case FedAsyncConfig():
            return FedAsync(config)
