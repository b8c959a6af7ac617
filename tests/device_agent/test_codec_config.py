"""Codecs as an experiment file names them."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fadelab_agent.policy import FixedCodecConfig, Observation, build_policy
from fadelab_agent.policy.codec_config import CodecConfig
from fadelab_proto import codecs

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
    rebuilt = np.zeros_like(vector)
    for chunk in encoding.chunks:
        segment = codecs.decode(chunk.codec, chunk.payload, first=chunk.first, count=chunk.count)
        segment.add_to(rebuilt)
    error = float(np.sum((rebuilt - vector) ** 2) / np.sum(vector**2))
    assert error <= most
    assert encoding.nominal_bits > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"kind": "zip"}, "dense_f32"),
        ({"kind": "uniform"}, "bits"),
        ({"kind": "uniform", "bits": 17}, "less than or equal to 16"),
        ({"kind": "emq", "exponent_bits": 7, "mantissa_bits": 14}, "16"),
        ({"kind": "topk", "fraction": 0.1, "values": {"kind": "aquila"}}, "dense_f32"),
        ({"kind": "topk", "fraction": 0.0}, "greater than 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ADAPTER.validate_python(config)
