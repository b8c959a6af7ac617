"""The catalogue of methods: which codec, device policy and aggregation rule each one takes."""

from typing import Annotated

from pydantic import Field

from fadelab.methods.base import MethodPieces
from fadelab.methods.fedasync import FedAsyncMethod
from fadelab.methods.fedavg import FedAvgMethod
from fadelab.methods.lazy import LazyMethod

__all__ = ["FedAsyncMethod", "FedAvgMethod", "LazyMethod", "MethodConfig", "MethodPieces"]

MethodConfig = Annotated[FedAvgMethod | FedAsyncMethod | LazyMethod, Field(discriminator="name")]
