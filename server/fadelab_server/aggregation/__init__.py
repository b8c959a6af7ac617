"""Aggregation rules, one file each."""

from fadelab_server.aggregation.afl import Afl
from fadelab_server.aggregation.base import AggregationRule, Contribution, Roster
from fadelab_server.aggregation.dma_fl import DmaFl
from fadelab_server.aggregation.fedasync import FedAsync
from fadelab_server.aggregation.fedavg import FedAvg
from fadelab_server.aggregation.fedbuff import FedBuff
from fadelab_server.aggregation.lazy import Lazy
from fadelab_server.aggregation.sp_fl import SpFl
from fadelab_server.config import (
    AflConfig,
    AggregationConfig,
    DmaFlConfig,
    FedAsyncConfig,
    FedAvgConfig,
    FedBuffConfig,
    LazyConfig,
)
from fadelab_server.sp_fl_config import SpFlConfig

__all__ = [
    "Afl",
    "AggregationRule",
    "Contribution",
    "DmaFl",
    "FedAsync",
    "FedAvg",
    "FedBuff",
    "Lazy",
    "Roster",
    "SpFl",
    "build_rule",
]


def build_rule(  # noqa: PLR0911 -- one for each rule
    config: AggregationConfig, dimension: int, *, seed: int = 0
) -> AggregationRule:
    """Return a fresh rule for a model of ``dimension`` parameters, random by the run's ``seed``."""
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
        case SpFlConfig():
            return SpFl(config, dimension, seed)
        case DmaFlConfig():
            return DmaFl(config)
