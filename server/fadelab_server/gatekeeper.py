"""Who may come in: TLS credentials, devices' certificates and join tokens."""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import grpc
from pydantic import Field, StringConstraints, ValidationError

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.config import StrictModel
from fadelab_proto.join_proof import NONCE_BYTES, proves
from fadelab_proto.tls import TrustError, check_authority, check_pair, device_name, read_file
from fadelab_server.config import ServerConfig, ServerTrust
from fadelab_server.sessions import JoinRefusedError

# Challenges held at least: enough for any burst of joins, and little memory for whoever asks on
# and on. A device whose challenge was pushed out is told so and asks again.
_LEAST_CHALLENGES = 1024
# What TLS found out about the peer (gRPC's auth context): names of its certificate.
_NAME_KEYS = ("x509_common_name", "x509_subject_alternative_name")

AuthContext = Mapping[str, Iterable[bytes]]


class TokenHashes(StrictModel):
    """The file of join tokens as the server keeps it."""

    sha256: dict[
        Annotated[int, Field(ge=0, le=65535)],
        Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")],
    ] = Field(description="SHA-256 of each device's token, hexadecimal, by the device's number.")


class Gatekeeper:
    """Check certificates and tokens of devices that join.

    Raises:
        TrustError: if the file of tokens cannot be used.

    """

    def __init__(self, config: ServerConfig) -> None:
        self._certificates = config.trust is not None and config.trust.client_ca is not None
        self._keys = None if config.tokens is None else _read_tokens(config.tokens, config.devices)
        self._most = max(_LEAST_CHALLENGES, 4 * config.devices)
        self._waiting: OrderedDict[bytes, int] = OrderedDict()

    def challenge(self, device: int) -> bytes:
        """Return a nonce that one join of ``device`` may answer; empty if no token is asked for."""
        if self._keys is None:
            return b""
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._waiting[nonce] = device
        if len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
        return nonce

    def admit(self, request: pb.JoinRequest, peer: AuthContext) -> None:
        """Check what a device that wants to join can prove.

        Args:
            request: what it says of itself.
            peer: what TLS knows of its certificate; empty without TLS.

        Raises:
            JoinRefusedError: if it is not enough.

        """
        if self._certificates:
            _check_names(request.device, peer)
        if self._keys is not None:
            self._check_token(request, self._keys)

    def _check_token(self, request: pb.JoinRequest, keys: Mapping[int, bytes]) -> None:
        if not request.proof:
            raise JoinRefusedError(
                pb.JOIN_STATUS_WRONG_TOKEN, "this server asks for a join token; the agent has none"
            )
        # Whatever the proof is worth: each challenge may be answered once.
        if self._waiting.pop(request.nonce, None) != request.device:
            raise JoinRefusedError(
                pb.JOIN_STATUS_STALE_CHALLENGE,
                f"this challenge is not one that device {request.device} may answer: "
                "a join works once, and only with a challenge of this server",
            )
        key = keys.get(request.device)
        if key is None:
            raise JoinRefusedError(
                pb.JOIN_STATUS_WRONG_TOKEN, f"the server keeps no token of device {request.device}"
            )
        if not proves(key, request):
            raise JoinRefusedError(
                pb.JOIN_STATUS_WRONG_TOKEN,
                f"the agent's join token is not that of device {request.device}",
            )


def server_credentials(trust: ServerTrust) -> grpc.ServerCredentials:
    """Return gRPC's credentials for the data plane.

    Raises:
        TrustError: if a file is missing, or key and certificate do not belong together.

    """
    check_pair(trust.certificate, trust.key)
    authority = None
    if trust.client_ca is not None:
        check_authority(trust.client_ca)
        authority = read_file(trust.client_ca, "authority's certificate")
    pair = (read_file(trust.key, "key"), read_file(trust.certificate, "certificate"))
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )


def _check_names(device: int, peer: AuthContext) -> None:
    names = {name.decode(errors="replace") for key in _NAME_KEYS for name in peer.get(key, ())}
    if device_name(device) not in names:
        raise JoinRefusedError(
            pb.JOIN_STATUS_WRONG_CERTIFICATE,
            f"the client certificate was made for {', '.join(sorted(names)) or 'nobody'}, "
            f"not for {device_name(device)}",
        )


def _read_tokens(path: Path, devices: int) -> dict[int, bytes]:
    try:
        found = TokenHashes.model_validate_json(read_file(path, "file of join tokens")).sha256
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise TrustError(f"{path} is not a file of join tokens: {where}: {first['msg']}") from None
    missing = [device for device in range(devices) if device not in found]
    if missing:
        raise TrustError(f"{path} has no join token of device {missing[0]}")
    return {device: bytes.fromhex(digest) for device, digest in found.items()}
