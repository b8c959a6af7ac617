"""What the tests of trust share: the files of a deployment, good ones and bad ones."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fadelab.certificates import make_certificates


def deployment(folder: Path, *, servers: Sequence[str] = ("127.0.0.1",)) -> Path:
    """Make the files of two devices; each call has an authority of its own."""
    make_certificates(folder, servers=servers, devices=2, days=5)
    return folder


def server_trust(files: Path, *, mutual: bool = True, tokens: bool = True) -> dict[str, Any]:
    trust: dict[str, Any] = {"certificate": files / "server.pem", "key": files / "server.key"}
    if mutual:
        trust["client_ca"] = files / "ca.pem"
    return {"trust": trust} | ({"tokens": files / "tokens.json"} if tokens else {})


def agent_trust(files: Path, name: str | None = "device-0") -> dict[str, Any]:
    """Return the section `trust` of an agent's file, without a certificate if ``name`` is None."""
    own = {"certificate": files / f"{name}.pem", "key": files / f"{name}.key"}
    return {"ca": files / "ca.pem"} | ({} if name is None else own)


def token(files: Path, device: int = 0) -> str:
    return (files / f"device-{device}.token").read_text().strip()


def expire(files: Path, name: str) -> None:
    """Give a certificate a validity that is over; its authority's goes on."""
    old = x509.load_pem_x509_certificate((files / f"{name}.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((files / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((files / "ca.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    public = old.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc - dt.timedelta(days=20))
        .not_valid_after(old.not_valid_before_utc - dt.timedelta(days=10))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    signed = builder.sign(key, hashes.SHA256())
    (files / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
