"""A run whose server is killed again and again, at moments drawn from a seed, and started anew.

Everything is forked from this process, as the launcher does it: the server, which listens on one
port throughout, and the agents, which live through all of it, unless they are to be killed too.
"""

import asyncio
import json
import os
import random
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.processes import fork
from tests.server.cell_free_drops import published_drop
from tests.server.radio_plane import Plane
from tests.system.forking import exit_code, kill

from fadelab_agent.agent import run_agent
from fadelab_agent.agent_config import AgentConfig
from fadelab_agent.config import IidPartition, MlpModel, TaskConfig, TrainingConfig
from fadelab_agent.workbench import Workbench
from fadelab_agent.workbench_config import WorkbenchConfig
from fadelab_proto import federation_pb2 as pb
from fadelab_proto import federation_pb2_grpc as pb_grpc
from fadelab_proto.radio_pb2_grpc import add_CoordinationServicer_to_server
from fadelab_proto.wire import channel_options, server_options
from fadelab_server import state_keeper
from fadelab_server.app import serve
from fadelab_server.config import ServerConfig
from fadelab_server.journal import Log
from fadelab_server.journal.segments import segment_path, segment_starts

DEVICES = 4
RUN_ID = 0xFADE
PAYLOAD_BYTES = 2048
_LIFE_S = (0.0, 2.0)
"""How long a server lives: some are killed before they have come back whole."""
_QUIET_S = 3.0
"""No server is killed in the last seconds of a run: it must come to its end."""
_RULES: dict[str, dict[str, Any]] = {
    "fedasync": {"aggregation": {"kind": "fedasync", "alpha": 0.5}},
    "fedavg": {"aggregation": {"kind": "fedavg"}},
    "sp_fl": {"aggregation": {"kind": "sp_fl", "loss": "error_free", "modulus_bits": 8}},
    "full power": {
        "aggregation": {"kind": "fedavg"},
        "allocation": {"kind": "cell_free", "power_control": {"kind": "full"}},
    },
}
"""With full power a round that is decided twice is planned alike."""
_IN_ROUNDS = "sp_fl"
"""Its devices report before they send, and wait for what the server decides."""


def keep_the_whole_journal(archive: Path) -> None:
    """Let every server put aside what it releases; have many snapshots and segments."""
    state_keeper._SNAPSHOT_BYTES = 2_000_000
    state_keeper._SNAPSHOT_EVERY = 1
    state_keeper._SEGMENT_BYTES = 700_000
    archive.mkdir()
    release = Log.release

    def link_and_release(self: Log, before: int) -> None:
        for start in segment_starts(self._directory):
            kept = segment_path(archive, start)
            # One that still grows keeps growing under both names.
            if not kept.exists():
                kept.hardlink_to(segment_path(self._directory, start))
        release(self, before)

    Log.release = link_and_release  # type: ignore[method-assign]


class Run:
    """One run, from its first server to its end."""

    def __init__(self, folder: Path, rule: str, duration_s: float) -> None:
        self.folder = folder
        work = WorkbenchConfig(
            task=TaskConfig(model=MlpModel(hidden=600)),
            partition=IidPartition(),
            training=TrainingConfig(local_steps=5, batch_size=16, learning_rate=0.3),
            devices=DEVICES,
            seed=3,
        )
        self.bench = Workbench(work)
        self.bench.warm_up()
        np.save(folder / "initial.npy", self.bench.initial, allow_pickle=False)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = ServerConfig.model_validate(
            {
                "run_id": RUN_ID,
                "listen": f"127.0.0.1:{self.port}",
                "operator_socket": folder / "operator",
                "events_dir": folder / "events",
                "checkpoint_dir": folder / "checkpoints",
                "devices": DEVICES,
                "tasks": [
                    {
                        "name": "digits",
                        "dimension": len(self.bench.initial),
                        "layout_hash": self.bench.layout_hash,
                        "initial": folder / "initial.npy",
                    }
                ],
                "radio_socket": folder / "radio",
                "stop": {"duration_s": duration_s},
                "max_payload_bytes": PAYLOAD_BYTES,
                "partial_updates": "keep" if rule == _IN_ROUNDS else "discard",
            }
            | _RULES[rule]
        )
        (folder / "server.json").write_text(self.config.model_dump_json())

    def first_server(self) -> int:
        """Start a server; return when it listens, its first snapshot put aside."""
        reader, writer = os.pipe()

        def body() -> None:
            serve(self.config, listening=lambda _: os.write(writer, b"l") and None)

        pid = fork(body)
        os.close(writer)
        assert os.read(reader, 1) == b"l"
        os.close(reader)
        shutil.copy(self.config.checkpoint_dir / "server.state", self.folder / "first.state")
        return pid

    def next_server(self) -> int:
        """Start one that goes on where the last one was killed."""
        return fork(lambda: serve(self.config, resume=self.config.checkpoint_dir))

    def starter(self) -> int:
        """Start what begins the run, which changes nothing if it has begun."""

        async def begin() -> None:
            address = f"unix:{self.config.operator_socket}"
            async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
                request = pb.StartRequest(start_mono_s=time.monotonic() + 0.1)
                await pb_grpc.OperatorStub(channel).Start(request, wait_for_ready=True)

        return fork(lambda: asyncio.run(begin()))

    def radio_plane(self) -> int:
        """Start what tells a server that allocates of the uplink, and takes its powers."""

        async def serve_plane() -> None:
            plane = grpc.aio.server(options=server_options())
            add_CoordinationServicer_to_server(Plane(published_drop(DEVICES, 3)), plane)
            plane.add_insecure_port(f"unix:{self.config.radio_socket}")
            await plane.start()
            await plane.wait_for_termination()

        return fork(lambda: asyncio.run(serve_plane()))

    def agent(self, device: int) -> int:
        in_rounds = self.config.aggregation.kind == _IN_ROUNDS
        codec = {"kind": "sign_modulus", "bits": 8}
        config = AgentConfig.model_validate(
            {
                "run_id": RUN_ID,
                "device": device,
                "server": f"127.0.0.1:{self.port}",
                "events_dir": self.folder / "events",
                "state_dir": self.folder / "state" / f"agent-{device}",
                "state_sync": False,
                "policy": {"kind": "codec", "codec": codec}
                if in_rounds
                else {"kind": "topk", "fraction": 0.5},
                "reports": in_rounds,
                "reports_updates": self.config.allocation is not None,
                "max_payload_bytes": PAYLOAD_BYTES,
            }
        )
        return fork(lambda: asyncio.run(run_agent(config, [self.bench.device(device)])))


def see_through(
    run: Run, draw: random.Random, *, kills: int, duration_s: float, agents_die: bool
) -> dict[str, Any]:
    """Kill so many servers, or as many as there is time for; wait for the run's end."""
    plane = run.radio_plane()
    server = run.first_server()
    agents = [run.agent(device) for device in range(DEVICES)]
    assert exit_code(run.starter()) == 0
    ends_s = time.monotonic() + duration_s
    killed = agents_killed = 0
    while killed < kills and time.monotonic() < ends_s - _QUIET_S - _LIFE_S[1]:
        time.sleep(draw.uniform(*_LIFE_S))
        kill(server)
        killed += 1
        if agents_die and draw.random() < 0.5:
            device = draw.randrange(DEVICES)
            kill(agents[device])
            agents[device] = run.agent(device)
            agents_killed += 1
        server = run.next_server()
    exit_codes = [exit_code(pid) for pid in (*agents, server)]
    kill(plane)
    return {"killed": killed, "agents_killed": agents_killed, "exit_codes": exit_codes}


def main(folder: Path, rule: str, seed: int, kills: int, duration_s: float, who: str) -> None:
    """Run one run and print what became of it."""
    keep_the_whole_journal(folder / "archive")
    run = Run(folder, rule, duration_s)
    seen = see_through(
        run,
        random.Random(seed),
        kills=kills,
        duration_s=duration_s,
        agents_die=who == "agents_too",
    )
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    where, what, seed, most, seconds, who = sys.argv[1:]
    main(Path(where), what, int(seed), int(most), float(seconds), who)
