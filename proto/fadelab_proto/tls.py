"""What both ends of a TLS connection share: reading certificates, and saying what is wrong with them.

gRPC ends a failed handshake without a reason that the peer could read, so each end finds the reason
for itself with the standard library.
"""

import ssl
from pathlib import Path

ALPN = ["h2"]
"""What gRPC speaks inside TLS (RFC 7301, RFC 9113)."""


class TrustError(Exception):
    """The two ends do not trust each other, or a certificate cannot be used; the message says why."""


def device_name(device: int) -> str:
    """Return the name that the client certificate of a device carries."""
    return f"device-{device}"


def read_file(path: Path, what: str) -> bytes:
    """Return a file's bytes.

    Raises:
        TrustError: if it cannot be read.

    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(f"cannot read the {what} {path}: {error.strerror}") from None


def check_pair(certificate: Path, key: Path) -> None:
    """Check that a certificate and a private key, both PEM, belong together.

    Raises:
        TrustError: if they do not, or cannot be read.

    """
    read_file(certificate, "certificate")
    read_file(key, "key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, ValueError) as error:
        raise TrustError(
            f"{certificate} and {key} are not a certificate and its key: {reason_of(error)}"
        ) from None


def check_authority(path: Path) -> None:
    """Check that a PEM file holds certificates of authorities.

    Raises:
        TrustError: if it does not, or cannot be read.

    """
    read_file(path, "authority's certificate")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(path)
    except (ssl.SSLError, ValueError) as error:
        raise TrustError(f"{path} holds no certificate: {reason_of(error)}") from None
    if not context.get_ca_certs():
        raise TrustError(f"{path} holds no certificate of an authority")


def certificate_problem(certificate: Path, key: Path, authority: Path) -> str | None:
    """Return why a peer that trusts ``authority`` refuses a client's certificate; None if it does not.

    Both ends of a handshake are played in memory: the certificate is checked by the same rules, and
    at the same time, as a server would check it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)  # any will do: the client looks at nothing
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(authority)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    client.load_cert_chain(certificate, key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True))
    done = [False, False]
    try:
        while not all(done):
            for at, end in enumerate(ends):
                if not done[at]:
                    done[at] = _step(end)
    except ssl.SSLError as error:
        return reason_of(error)
    return None


def reason_of(error: Exception) -> str:
    """Return what an error of the ``ssl`` module says, in its shortest form."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if isinstance(reason, str) else str(error)


def _step(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
