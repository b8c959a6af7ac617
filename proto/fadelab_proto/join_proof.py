"""Join tokens: how a device proves that it knows its secret, and a server that it is the right one.

The server draws a nonce, the device answers with an HMAC over it and over who is joining, and the
server takes each nonce once. The token itself never crosses the wire, and an answer that somebody
recorded is worth nothing, because its nonce has been taken.
"""

import hashlib
import hmac
import secrets
import struct

from fadelab_proto import federation_pb2 as pb

NONCE_BYTES = 32
_TOKEN_BYTES = 32
_DOMAIN = b"fadelab join 1"
_WHO = struct.Struct("<IIQQ")


def new_token() -> str:
    """Return a fresh token: 256 random bits in 43 characters that need no quoting."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def token_key(token: str) -> bytes:
    """Return the SHA-256 of a token, 32 bytes: what the server keeps and proofs are keyed with."""
    return hashlib.sha256(token.encode()).digest()


def join_proof(key: bytes, request: pb.JoinRequest) -> bytes:
    """Return the proof that belongs into ``request``, 32 bytes (HMAC-SHA-256, RFC 2104).

    It covers the nonce, the run, the device, the agent process and the key by which the device is
    known again, so that none of them can be exchanged on the way.
    """
    who = _WHO.pack(request.run_id, request.device, request.incarnation, request.device_key)
    return hmac.digest(key, _DOMAIN + who + request.nonce, "sha256")


def proves(key: bytes, request: pb.JoinRequest) -> bool:
    """Whether the sender of ``request`` knew the token that ``key`` belongs to."""
    return hmac.compare_digest(join_proof(key, request), request.proof)
