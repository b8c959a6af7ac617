"""Every method of the catalogue says what server and devices do."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fadelab.methods import MethodConfig, MethodPieces
from fadelab_agent.lazy_config import AquilaRuleConfig, LaqRuleConfig
from fadelab_agent.policy import DenseConfig, FixedFractionConfig
from fadelab_proto.substitutes import ConstantModulus, LastStep, MeanModulus
from fadelab_server.config import (
    FedAsyncConfig,
    FedAvgConfig,
    HingeStaleness,
    LazyConfig,
    PolynomialStaleness,
)

SPLIT = {"kind": "codec", "codec": {"kind": "sign_modulus", "bits": 4}}
SIGNS = {"kind": "codec", "codec": {"kind": "sign_only"}}
CONSTANT = {"kind": "constant", "modulus": 1e-3}


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


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"name": "fedavg"}, "zero"),
        ({"name": "fedavg", "error_memory": False}, "reweigh"),
        ({"name": "fedavg", "missing": "reweigh"}, "reweigh"),
        ({"name": "fedavg", "error_memory": False, "missing": "zero"}, "zero"),
        ({"name": "fedasync"}, "reweigh"),
        ({"name": "fedasync", "missing": "zero"}, "zero"),
    ],
)
def test_what_missing_entries_count_as(settings: dict[str, Any], missing: str) -> None:
    aggregation = validated(settings).pieces().aggregation
    assert isinstance(aggregation, FedAvgConfig | FedAsyncConfig)
    assert aggregation.missing == missing


@pytest.mark.parametrize(
    ("settings", "substitute"),
    [
        ({"upload": SPLIT}, None),
        ({"upload": SPLIT, "cut_updates": "keep"}, None),
        ({"upload": SPLIT, "cut_updates": "substitute"}, MeanModulus()),
        (
            {
                "upload": SPLIT,
                "cut_updates": "substitute",
                "substitute": {"kind": "last_step"},
            },
            LastStep(),
        ),
        ({"upload": SIGNS, "substitute": CONSTANT}, ConstantModulus(modulus=1e-3)),
        (
            {"upload": SIGNS, "cut_updates": "substitute", "substitute": CONSTANT},
            ConstantModulus(modulus=1e-3),
        ),
    ],
)
@pytest.mark.parametrize("name", ["fedavg", "fedasync"])
def test_what_stands_in_for_missing_moduli(
    name: str, settings: dict[str, Any], substitute: Any
) -> None:
    assert validated({"name": name, **settings}).pieces().substitute == substitute


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "fedavg", "cut_updates": "substitute"}, "must be sign_modulus or sign_only"),
        ({"name": "fedavg", "upload": SIGNS}, "sign_only sends no moduli"),
        (
            {"name": "fedavg", "upload": SIGNS, "substitute": {"kind": "last_step"}},
            "sign_only sends no moduli",
        ),
        ({"name": "fedavg", "upload": SPLIT, "substitute": CONSTANT}, "has no effect without"),
        (
            {
                "name": "lazy",
                "upload": SPLIT,
                "cut_updates": "substitute",
                "substitute": {"kind": "last_step"},
            },
            "which a device cannot know",
        ),
        ({"name": "fedavg", "innovation": {"kind": "laq"}}, "innovation"),
        ({"name": "fedasync", "innovation": {"kind": "laq"}}, "innovation"),
        ({"name": "lazy", "error_memory": True}, "error_memory"),
        ({"name": "lazy", "innovation": {"kind": "sometimes"}}, "'laq'"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        validated(settings)


def test_lazy_rounds() -> None:
    pieces = validated({"name": "lazy"}).pieces()
    assert pieces.aggregation == LazyConfig()
    assert pieces.innovation == LaqRuleConfig()
    settings = {"name": "lazy", "quorum": 2, "innovation": {"kind": "aquila", "beta": 0.2}}
    pieces = validated(settings).pieces()
    assert pieces.aggregation == LazyConfig(quorum=2)
    assert pieces.innovation == AquilaRuleConfig(kind="aquila", beta=0.2)


def validated(settings: dict[str, Any]) -> MethodConfig:
    method: MethodConfig = TypeAdapter(MethodConfig).validate_python(settings)
    return method
