"""EMQ's bits from update to update, and the bits that an update takes on the link."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fadelab_agent.policy import EmqPolicyConfig, Observation, build_policy
from fadelab_agent.wire_size import full_precision_wire_bits, wire_bits
from fadelab_proto.codecs import DenseF32, Encoding
from fadelab_proto.codecs.emq_fitted import EmqWithinBits, EmqWithinError


def seen(update_number: int) -> Observation:
    return Observation(
        dimension=1000,
        update_number=update_number,
        base_age_s=0.0,
        rate_up_bps=1e6,
        snr_db=10.0,
        predicted_contact_s=60.0,
        squared_norm=1.0,
    )


def test_the_error_falls_from_update_to_update_to_its_least() -> None:
    policy = build_policy(EmqPolicyConfig(nmse=0.1, nmse_decay=0.1, least_nmse=1e-3))
    errors = []
    for number in (1, 2, 3, 4):
        codec = policy.decide(seen(number)).codec
        assert isinstance(codec, EmqWithinError)
        errors.append(codec.nmse)
    assert errors == pytest.approx([0.1, 0.01, 0.001, 0.001])


def test_a_budget_is_the_same_for_every_update() -> None:
    policy = build_policy(EmqPolicyConfig(bits_per_entry=6.5, adaptive=False))
    assert policy.decide(seen(1)).codec == policy.decide(seen(9)).codec == EmqWithinBits(6.5, False)


@pytest.mark.parametrize("given", [{}, {"nmse": 0.1, "bits_per_entry": 4}])
def test_either_an_error_or_a_budget_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="either nmse or bits_per_entry"):
        EmqPolicyConfig.model_validate(given)


def test_an_update_takes_its_bytes_its_headers_and_its_frames() -> None:
    vector = np.ones(100_000, dtype=np.float32)
    encoding = DenseF32().encode(
        vector, max_payload_bytes=16384, generator=np.random.default_rng(0)
    )
    # 400 kB in 25 packets of 40 bytes of header, at least 277 segments with 66 bytes of headers.
    least = 8 * (400_000 + 25 * 40 + 277 * 66)
    assert least < wire_bits(encoding) < 1.005 * least
    assert wire_bits(Encoding((), 0)) == 0


@pytest.mark.parametrize("max_payload_bytes", [512, 4099, 16384])
def test_full_precision_is_what_a_dense_update_takes(max_payload_bytes: int) -> None:
    encoding = DenseF32().encode(
        np.ones(7001, dtype=np.float32),
        max_payload_bytes=max_payload_bytes,
        generator=np.random.default_rng(0),
    )
    full = full_precision_wire_bits(7001, max_payload_bytes=max_payload_bytes)
    assert full == wire_bits(encoding)
