"""Aggregation rules, one file each."""

from fadelab_server.aggregation.base import AggregationRule, Contribution, Roster
from fadelab_server.aggregation.fedasync import FedAsync
from fadelab_server.aggregation.fedavg import FedAvg
from fadelab_server.aggregation.lazy import Lazy
from fadelab_server.config import AggregationConfig, FedAsyncConfig, FedAvgConfig, LazyConfig

__all__ = ["AggregationRule", "Contribution", "FedAsync", "FedAvg", "Lazy", "Roster", "build_rule"]


def build_rule(config: AggregationConfig, dimension: int) -> AggregationRule:
    """Return a fresh rule for a model of ``dimension`` parameters."""
    match config:
        case FedAvgConfig():
            return FedAvg(config, dimension)
        case FedAsyncConfig():
            return FedAsync(config)
        case LazyConfig():
            return Lazy(config, dimension)
