"""Codecs as an experiment file names them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fadelab_agent.policy import FixedCodecConfig, Observation, build_policy
from fadelab_proto import codecs
from fadelab_proto.codecs.config import CodecConfig
from fadelab_proto.joining import JoinedUpdate, stand_in
from fadelab_proto.substitutes import ConstantModulus

ADAPTER: TypeAdapter[Any] = TypeAdapter(CodecConfig)
KNOWN: list[tuple[dict[str, Any], float]] = [
    ({"kind": "dense_f32"}, 0.0),
    ({"kind": "dense_f16"}, 1e-6),
    ({"kind": "uniform", "bits": 8, "block": 512}, 1e-3),
    ({"kind": "uniform", "bits": 8, "order": "planes"}, 1e-3),
    ({"kind": "qsgd", "bits": 12}, 1e-3),
    ({"kind": "laq", "bits": 8}, 1e-3),
    ({"kind": "aquila"}, 1.5),
    ({"kind": "emq"}, 1e-4),
    ({"kind": "emq", "exponent_bits": 4, "mantissa_bits": 3, "adaptive": False}, 2e-3),
    ({"kind": "mixed_resolution", "threshold": 0.2, "bits": 6}, 0.1),
    ({"kind": "top_q", "fraction": 0.5, "bits": 8}, 0.2),
    ({"kind": "topk", "fraction": 0.5, "values": {"kind": "uniform", "bits": 8}}, 0.2),
    ({"kind": "topk", "fraction": 0.5, "indices": "paper"}, 0.2),
    ({"kind": "lossless", "inner": {"kind": "uniform", "bits": 8}}, 1e-3),
    ({"kind": "sign_modulus", "bits": 8, "block": 512}, 1e-3),
    ({"kind": "sign_only"}, 0.5),
]
OBSERVATION = Observation(
    dimension=5000,
    update_number=1,
    base_age_s=0.0,
    rate_up_bps=1e6,
    snr_db=10.0,
    predicted_contact_s=1.0,
    squared_norm=1.0,
)


@pytest.mark.parametrize(("config", "most"), KNOWN)
def test_each_brings_a_vector_over(config: dict[str, Any], most: float) -> None:
    draw = np.random.default_rng(3)
    vector = draw.standard_normal(OBSERVATION.dimension, dtype=np.float32)
    policy = build_policy(FixedCodecConfig(codec=ADAPTER.validate_python(config)))
    encoding = policy.decide(OBSERVATION).codec.encode(
        vector, max_payload_bytes=1400, generator=draw
    )
    rebuilt = joined(encoding)
    error = float(np.sum((rebuilt - vector) ** 2) / np.sum(vector**2))
    assert error <= most
    assert encoding.nominal_bits > 0


LAYERS = (4000, 900, 100)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "uniform", "bits": 6},
        {"kind": "uniform", "bits": 6, "order": "planes"},
        {"kind": "qsgd", "bits": 10},
        {"kind": "laq", "bits": 6},
        {"kind": "sign_modulus", "bits": 6},
        {"kind": "lossless", "inner": {"kind": "laq", "bits": 6}},
    ],
)
def test_layers_of_different_size_do_not_spoil_one_another(config: dict[str, Any]) -> None:
    draw = np.random.default_rng(3)
    scale = np.repeat(np.array([1e-4, 1e-2, 10], np.float32), LAYERS)
    vector = draw.standard_normal(len(scale), dtype=np.float32) * scale
    errors = []
    for block in (None, "per_layer"):
        inner = config.get("inner", config)
        inner = {**inner, "block": block}
        chosen = {**config, "inner": inner} if "inner" in config else inner
        policy = build_policy(FixedCodecConfig(codec=ADAPTER.validate_python(chosen)))
        plan = policy.decide(replace(OBSERVATION, layers=LAYERS))
        rebuilt = joined(plan.codec.encode(vector, max_payload_bytes=900, generator=draw))
        parts = [np.split(own, np.cumsum(LAYERS)[:-1]) for own in (rebuilt - vector, vector)]
        errors.append([float(np.sum(e**2) / np.sum(v**2)) for e, v in zip(*parts, strict=True)])
    common, by_layer = errors
    assert max(by_layer) < 0.03
    assert common[0] > 0.9


def test_scales_per_layer_need_the_layers() -> None:
    codec = ADAPTER.validate_python({"kind": "uniform", "bits": 4, "block": "per_layer"})
    with pytest.raises(codecs.CodecError, match="need the sizes of the layers"):
        codec.build(5000)


def joined(encoding: codecs.Encoding) -> NDArray[np.float32]:
    rebuilt = np.zeros(OBSERVATION.dimension, dtype=np.float32)
    substitute = stand_in(ConstantModulus(modulus=0.8), None)
    for segment in JoinedUpdate(lambda: encoding.chunks, len(rebuilt), substitute):
        segment.add_to(rebuilt)
    return rebuilt


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "zip"}, "dense_f32"),
        ({"kind": "uniform"}, "bits"),
        ({"kind": "uniform", "bits": 17}, "less than or equal to 16"),
        ({"kind": "emq", "exponent_bits": 7, "mantissa_bits": 14}, "16"),
        ({"kind": "topk", "fraction": 0.1, "values": {"kind": "aquila"}}, "dense_f32"),
        ({"kind": "topk", "fraction": 0.0}, "greater than 0"),
        ({"kind": "uniform", "bits": 4, "block": 0}, "greater than or equal to 1"),
        ({"kind": "uniform", "bits": 4, "block": "layer"}, "per_layer"),
        (
            {
                "kind": "topk",
                "fraction": 0.1,
                "values": {"kind": "laq", "bits": 4, "block": "per_layer"},
            },
            "of all layers together",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(config)
