"""A server in a process of its own, as the benchmarks of uploads need it, and what it costs."""

import os
from pathlib import Path

import numpy as np

from fadelab_proto import federation_pb2 as pb
from fadelab_proto.wire import PROTOCOL_VERSION
from fadelab_server.app import serve
from fadelab_server.config import ServerConfig

RUN_ID = 1
TASK = "bench"


def server_config(
    folder: Path, *, dimension: int, devices: int, max_payload_bytes: int, rounds: bool = True
) -> ServerConfig:
    """Return the settings of a server that averages one vector of zeros over as many updates.

    In rounds of all devices, or whoever they come from (FedBuff).
    """
    initial = folder / "initial.npy"
    np.save(initial, np.zeros(dimension, dtype=np.float32))
    task = {"name": TASK, "dimension": dimension, "layout_hash": 1, "initial": initial}
    return ServerConfig.model_validate(
        {
            "run_id": RUN_ID,
            "listen": "127.0.0.1:0",
            "operator_socket": folder / "operator",
            "events_dir": folder / "events",
            "checkpoint_dir": folder / "checkpoint",
            "devices": devices,
            "tasks": [task],
            "aggregation": {"kind": "fedavg"} if rounds else {"kind": "fedbuff", "buffer": devices},
            "stop": {"duration_s": 1e6},
            "max_payload_bytes": max_payload_bytes,
            "history_bytes": 0,
        }
    )


def serve_and_tell(config: ServerConfig, tell: int) -> None:
    """Serve until SIGTERM; write the port and a newline to a descriptor."""
    serve(config, listening=lambda port: os.write(tell, f"{port}\n".encode()))


def join_request(device: int, *, dimension: int, samples: int) -> pb.JoinRequest:
    """Return how a device joins that server."""
    offer = pb.TaskOffer(name=TASK, dimension=dimension, layout_hash=1, samples=samples)
    return pb.JoinRequest(
        protocol_version=PROTOCOL_VERSION,
        run_id=RUN_ID,
        device=device,
        incarnation=device,
        tasks=[offer],
    )


def cpu_s(process: int) -> float:
    """Return the processor seconds that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def status(process: int) -> dict[str, str]:
    """Return what /proc says of a process, by name (proc_pid_status(5))."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def peak_mib(process: int) -> float:
    """Return the most memory that a process has held at a time."""
    return int(status(process)["VmHWM"].split()[0]) / 1024
