"""Proofs of join tokens: what they cover, and that they are what docs/trust.md says."""

import hashlib
import hmac
import struct
from typing import Any

import pytest

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.join_proof import join_proof, new_token, proves, token_key

TOKEN = "a token"
KEY = token_key(TOKEN)


def request(**changes: Any) -> pb.JoinRequest:
    fields: dict[str, Any] = {
        "run_id": 1,
        "device": 2,
        "incarnation": 2**63 + 3,
        "device_key": 4,
        "nonce": bytes(range(32)),
    }
    return pb.JoinRequest(**fields | changes)


def test_a_proof_is_an_hmac_over_who_joins_and_the_challenge() -> None:
    said = b"fadelab join 1" + struct.pack("<IIQQ", 1, 2, 2**63 + 3, 4) + bytes(range(32))
    key = hashlib.sha256(b"a token").digest()
    assert join_proof(KEY, request()) == hmac.new(key, said, hashlib.sha256).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": 2},
        {"device": 1},
        {"incarnation": 3},
        {"device_key": 5},
        {"nonce": bytes(32)},
        {"nonce": b""},
    ],
)
def test_nothing_that_it_covers_can_be_exchanged(change: dict[str, Any]) -> None:
    proof = join_proof(KEY, request())
    assert proves(KEY, request(proof=proof))
    assert not proves(KEY, request(proof=proof, **change))


@pytest.mark.parametrize("proof", [b"", bytes(32), b"x" * 1000])
def test_whatever_else_is_sent_proves_nothing(proof: bytes) -> None:
    assert not proves(KEY, request(proof=proof))
    assert not proves(token_key("another token"), request(proof=join_proof(KEY, request())))


def test_tokens_are_long_and_need_no_quoting() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert len(token) == 43
        assert token.replace("-", "").replace("_", "").isalnum()
