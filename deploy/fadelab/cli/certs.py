"""``fadelab certs``: what server and devices need to trust each other, made by one command."""

from pathlib import Path
from typing import Annotated

import typer

from fadelab.exit_codes import ExitCode, FadelabError


def certs(
    out: Annotated[Path, typer.Option(help="Folder for the files; made if need be.")],
    server: Annotated[
        list[str],
        typer.Option(help="Host name or IP address by which devices reach the server; repeatable."),
    ],
    devices: Annotated[int, typer.Option(min=1, max=65535, help="Number of devices.")],
    days: Annotated[int, typer.Option(min=1, max=3650, help="Days until all expire.")] = 30,
) -> None:
    """Make certificates, keys and join tokens for one server and its devices.

    Example: fadelab certs --out trust --server fadelab.lab --server 192.0.2.1 --devices 6
    """
    # Only here is it needed, and it takes a while to import.
    from fadelab.certificates import CertificatesError, make_certificates  # noqa: PLC0415

    try:
        paths = make_certificates(out, servers=server, devices=devices, days=days)
    except CertificatesError as error:
        raise FadelabError(ExitCode.USAGE, str(error)) from None
    print(f"{len(paths)} files in {out}, valid for {days} days.")
    print("server:   ca.pem server.pem server.key tokens.json")
    print("device K: ca.pem device-K.pem device-K.key device-K.token")
    print("operator: ca.pem operator.pem operator.key")
    print("ca.key signs further certificates: keep it away from server and devices, or delete it.")
