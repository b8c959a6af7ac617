"""The certificates, keys and join tokens of one deployment, made in one go.

An authority of the deployment's own signs everything: nobody outside it needs to be trusted, and it
is thrown away with the deployment. Keys are on the curve P-256 (FIPS 186-5), certificates are X.509
version 3 (RFC 5280).
"""

import datetime as dt
import hashlib
import ipaddress
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fadelab_proto.join_proof import new_token
from fadelab_proto.tls import device_name

# Clocks of boards without a battery are behind until NTP has set them.
_BACKDATED = dt.timedelta(days=1)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_SECRET = 0o600
_PUBLIC = 0o644


class CertificatesError(Exception):
    """The files cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class _Validity:
    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True, slots=True)
class _Signed:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class _Authority:
    """Signs certificates that live as long as its own."""

    def __init__(self, validity: _Validity) -> None:
        self._validity = validity
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name("Fadelab deployment")
        builder = self._builder(name, name, key.public_key())
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        self.own = _Signed(builder.sign(key, hashes.SHA256()), key)

    def sign(self, name: str, usage: x509.ObjectIdentifier, names: Sequence[str]) -> _Signed:
        """Return a new key and its certificate for ``names``, which may be IP addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = self.own
        builder = self._builder(_common_name(name), authority.certificate.subject, key.public_key())
        public = authority.key.public_key()
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.SubjectAlternativeName([_general_name(each) for each in names]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return _Signed(builder.sign(authority.key, hashes.SHA256()), key)

    def _builder(
        self, name: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._validity.start)
            .not_valid_after(self._validity.end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )


def make_certificates(
    folder: Path,
    *,
    servers: Sequence[str],
    devices: int,
    days: int,
    now: dt.datetime | None = None,
) -> list[Path]:
    """Write an authority, a server's, an operator's and all devices' certificates, and join tokens.

    Args:
        folder: where they go; made if need be.
        servers: names and IP addresses by which devices reach the server.
        devices: number of devices.
        days: how long everything is valid.
        now: the present moment, by default this machine's.

    Returns:
        The files, in the order of their writing.

    Raises:
        CertificatesError: if one of the files exists, cannot be written, or a name is none.

    """
    now = now or dt.datetime.now(dt.UTC)
    authority = _Authority(_Validity(now - _BACKDATED, now + dt.timedelta(days=days)))
    client = ExtendedKeyUsageOID.CLIENT_AUTH
    signed = {"ca": authority.own}
    signed["server"] = authority.sign("server", ExtendedKeyUsageOID.SERVER_AUTH, servers)
    for name in ("operator", *map(device_name, range(devices))):
        signed[name] = authority.sign(name, client, [name])
    tokens = [new_token() for _ in range(devices)]

    contents: dict[str, tuple[bytes, int]] = {}
    for name, pair in signed.items():
        contents[f"{name}.pem"] = (
            pair.certificate.public_bytes(serialization.Encoding.PEM),
            _PUBLIC,
        )
        contents[f"{name}.key"] = (_pem(pair.key), _SECRET)
    for device, token in enumerate(tokens):
        contents[f"{device_name(device)}.token"] = (f"{token}\n".encode(), _SECRET)
    hashed = {
        str(device): hashlib.sha256(token.encode()).hexdigest()
        for device, token in enumerate(tokens)
    }
    contents["tokens.json"] = (f"{json.dumps({'sha256': hashed}, indent=1)}\n".encode(), _SECRET)
    return _write(folder, contents)


def _write(folder: Path, contents: dict[str, tuple[bytes, int]]) -> list[Path]:
    paths = [folder / name for name in contents]
    existing = [path for path in paths if path.exists()]
    if existing:
        raise CertificatesError(
            f"{existing[0]} exists: name another folder, or remove the old certificates"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, (data, mode) in zip(paths, contents.values(), strict=True):
            # Made with its mode: a key must not be readable by others even for a moment.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        raise CertificatesError(f"cannot write to {folder}: {error.strerror}") from None
    return paths


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _common_name(name: str) -> x509.Name:
    # At most 64 characters (RFC 5280, appendix A.1).
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    if _HOST.fullmatch(name) is None:
        raise CertificatesError(f"'{name}' is neither an IP address nor a host name")
    return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
