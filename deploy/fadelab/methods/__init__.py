"""The catalogue of methods: which codec, device policy and aggregation rule each one takes."""

from typing import Annotated

from pydantic import Field

from fadelab.methods.afl import AflMethod
from fadelab.methods.base import MethodPieces
from fadelab.methods.dma_fl import DmaFlMethod
from fadelab.methods.emq import EmqMethod
from fadelab.methods.fedasync import FedAsyncMethod
from fadelab.methods.fedavg import FedAvgMethod
from fadelab.methods.fedbuff import FedBuffMethod
from fadelab.methods.lazy import LazyMethod
from fadelab.methods.mads import MadsMethod
from fadelab.methods.sp_fl import SpFlMethod

__all__ = [
    "AflMethod",
    "DmaFlMethod",
    "EmqMethod",
    "FedAsyncMethod",
    "FedAvgMethod",
    "FedBuffMethod",
    "LazyMethod",
    "MadsMethod",
    "MethodConfig",
    "MethodPieces",
    "SpFlMethod",
]

MethodConfig = Annotated[
    FedAvgMethod
    | FedAsyncMethod
    | LazyMethod
    | AflMethod
    | FedBuffMethod
    | MadsMethod
    | SpFlMethod
    | EmqMethod
    | DmaFlMethod,
    Field(discriminator="name"),
]
