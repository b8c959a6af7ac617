"""``fadelab health``: whether a server or an emulator serves."""

from pathlib import Path
from typing import Annotated

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fadelab.exit_codes import ExitCode, FadelabError

_PATIENCE_S = 3.0


def health(
    socket: Annotated[Path, typer.Argument(help="Unix socket of a server or an emulator.")],
) -> None:
    """Ask a server or an emulator whether it serves; what a container's health check runs.

    Example: fadelab health /run/fadelab/sockets/operator
    """
    with grpc.insecure_channel(f"unix:{socket.absolute()}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            reply = stub.Check(  # type: ignore[attr-defined]
                health_pb2.HealthCheckRequest(), timeout=_PATIENCE_S
            )
        except grpc.RpcError as error:
            raise FadelabError(
                ExitCode.COMPONENT_FAILED, f"nobody serves at {socket}: {error.code().name}"
            ) from None
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise FadelabError(ExitCode.COMPONENT_FAILED, f"{socket}: {status}")
    typer.echo(status)
