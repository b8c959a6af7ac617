"""Every method of the catalogue says what server and devices do."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from fadelab.methods import MethodConfig, MethodPieces
from fadelab_agent.policy import DenseConfig, FixedFractionConfig
from fadelab_server.config import (
    FedAsyncConfig,
    FedAvgConfig,
    HingeStaleness,
    PolynomialStaleness,
)


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"name": "fedavg"}, MethodPieces(FedAvgConfig(quorum=None), DenseConfig(), True)),
        (
            {"name": "fedavg", "quorum": 3, "upload": {"kind": "topk", "fraction": 0.1}},
            MethodPieces(FedAvgConfig(quorum=3), FixedFractionConfig(fraction=0.1), True),
        ),
        (
            {"name": "fedasync"},
            MethodPieces(
                FedAsyncConfig(alpha=0.6, staleness=PolynomialStaleness(exponent=0.5)),
                DenseConfig(),
                True,
            ),
        ),
        (
            {
                "name": "fedasync",
                "alpha": 0.9,
                "staleness": {"kind": "hinge", "slope": 2, "threshold": 1},
                "max_staleness": 7,
                "error_memory": False,
            },
            MethodPieces(
                FedAsyncConfig(
                    alpha=0.9, staleness=HingeStaleness(slope=2, threshold=1), max_staleness=7
                ),
                DenseConfig(),
                False,
            ),
        ),
    ],
)
def test_pieces_carry_every_setting(settings: dict[str, Any], pieces: MethodPieces) -> None:
    method: MethodConfig = TypeAdapter(MethodConfig).validate_python(settings)
    assert method.pieces() == pieces
