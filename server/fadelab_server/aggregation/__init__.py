"""Aggregation rules, one file each."""

from fadelab_server.aggregation.afl import Afl
from fadelab_server.aggregation.base import AggregationRule, Contribution, Roster
from fadelab_server.aggregation.fedasync import FedAsync
from fadelab_server.aggregation.fedavg import FedAvg
from fadelab_server.aggregation.fedbuff import FedBuff
from fadelab_server.aggregation.lazy import Lazy
from fadelab_server.config import (
    AflConfig,
    AggregationConfig,
    FedAsyncConfig,
    FedAvgConfig,
    FedBuffConfig,
    LazyConfig,
)

__all__ = [
    "Afl",
    "AggregationRule",
    "Contribution",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "Lazy",
    "Roster",
    "build_rule",
]


def build_rule(config: AggregationConfig, dimension: int) -> AggregationRule:
    """Return a fresh rule for a model of ``dimension`` parameters."""
    match config:
        case FedAvgConfig():
            return FedAvg(config, dimension)
        case FedAsyncConfig():
            return FedAsync(config)
        case LazyConfig():
            return Lazy(config, dimension)
        case AflConfig():
            return Afl(config)
        case FedBuffConfig():
            return FedBuff(config, dimension)
