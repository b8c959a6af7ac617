"""Calibration: real updates over real gRPC show whether links carry what they are told to."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.local.children import Channel, fork_child
from fadelab.local.launch import Sandboxed, sockets_dir
from fadelab.results.record import number
from fadelab_agent.encoded_update import EncodedUpdate, UpdateIdentity, encode_update
from fadelab_agent.membership import Membership
from fadelab_agent.radio import WiredRadio
from fadelab_agent.uplink import Uplink
from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.link_state import plain_tick
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import DenseF32
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.packet import HEADER_BYTES
from fadelab_proto.wire import channel_options
from fadelab_server.app import serve
from fadelab_server.config import FedAvgConfig, ServerConfig, StopConfig, TaskSpec

_TASK = "calibration"
_RUN_ID = 1
_PORT = 50051
_PAYLOAD_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Calibration:
    """One link's measurement."""

    programmed_bps: float
    update_bytes: int
    seconds: float
    """From the arrival of the first eighth of the packets to that of the last one."""
    goodput_bps: float
    """Payload bits per second over that time."""

    @property
    def ratio(self) -> float:
        """Goodput over programmed rate; TCP/IP over Ethernet leaves at most 1448 / 1514."""
        return self.goodput_bps / self.programmed_bps


def calibrate(rates_bps: Sequence[float], update_bytes: int) -> list[Calibration]:
    """Send one update over each of several links at once and time it at the server.

    Args:
        rates_bps: one link for each rate, layer 2.
        update_bytes: payload of each update, rounded up to whole float32 values.

    Raises:
        FadelabError: if no sandbox can be had or a transfer failed.

    """
    with sockets_dir() as folder:
        sandboxed = Sandboxed(
            "calibration",
            lambda channel: channel.send(
                results=[asdict(r) for r in _measure(folder, rates_bps, update_bytes)]
            ),
        )
        sandboxed.wait()
    for message in sandboxed.messages:
        if "results" in message:
            found = message["results"]
            assert isinstance(found, list)
            return [Calibration(**item) for item in found]
    raise FadelabError(ExitCode.COMPONENT_FAILED, "the calibration gave no result")


def _measure(folder: Path, rates_bps: Sequence[float], update_bytes: int) -> list[Calibration]:
    dimension = -(-update_bytes // 4)
    np.save(folder / "zero.npy", np.zeros(dimension, dtype=np.float32), allow_pickle=False)
    queues = [QueueSizes.for_rates(rate, rate) for rate in rates_bps]
    backend = lite_backend(LinkPlan(queues), SystemClock())
    programmed_bps = np.array(rates_bps, dtype=np.float64)
    backend.apply(plain_tick(programmed_bps, programmed_bps))
    senders = []
    for device, rate in enumerate(rates_bps):
        namespace = backend.namespaces[device]

        def body(channel: Channel, device: int = device, rate: float = rate) -> None:
            namespace.enter()  # noqa: B023 -- called in the fork made right below
            if channel.receive() is not None:
                asyncio.run(_send(folder, device, rate, dimension, backend.server_address))

        senders.append(fork_child(f"sender {device}", body))
    config = _server_config(folder, len(rates_bps), dimension, backend.server_address)

    def go(_: int) -> None:
        for sender in senders:
            sender.channel.send(go=True)

    serve(config, listening=go)
    for sender in senders:
        os.waitpid(sender.pid, 0)
    return _read(folder, rates_bps)


def _server_config(folder: Path, devices: int, dimension: int, address: str) -> ServerConfig:
    # One round of all devices is one version: the server ends when every update has arrived.
    return ServerConfig(
        run_id=_RUN_ID,
        listen=f"{address}:{_PORT}",
        operator_socket=folder / "operator",
        events_dir=folder / "events",
        checkpoint_dir=folder / "checkpoints",
        devices=devices,
        tasks=(
            TaskSpec(name=_TASK, dimension=dimension, layout_hash=0, initial=folder / "zero.npy"),
        ),
        aggregation=FedAvgConfig(quorum=devices),
        stop=StopConfig(duration_s=1e6, max_versions=1),
    )


async def _send(folder: Path, device: int, rate_bps: float, dimension: int, address: str) -> None:
    clock = SystemClock()
    with EventLog(folder / "events", "agent", str(device), clock) as log:
        async with grpc.aio.insecure_channel(
            f"{address}:{_PORT}", options=channel_options()
        ) as channel:
            offer = pb.TaskOffer(name=_TASK, dimension=dimension, layout_hash=0, samples=1)
            membership = Membership(
                channel, run_id=_RUN_ID, device=device, offers=[offer], clock=clock, log=log
            )
            await membership.join()
            following = asyncio.create_task(membership.follow())
            radio = WiredRadio(clock, rate_up_bps=rate_bps, rate_down_bps=rate_bps)
            uplink = Uplink(channel, radio=radio, clock=clock, log=log, stall_s=30.0)
            update = _update(device, dimension, membership.assignment(_TASK).session)
            outcome = await uplink.upload(update)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    if outcome.status != pb.UPLOAD_STATUS_COMPLETE:
        raise FadelabError(ExitCode.COMPONENT_FAILED, f"the upload ended early: {outcome.reason}")


def _update(device: int, dimension: int, session: int) -> EncodedUpdate:
    draw = np.random.default_rng(device)
    vector = draw.standard_normal(dimension, dtype=np.float32)
    encoding = DenseF32().encode(vector, max_payload_bytes=_PAYLOAD_BYTES, generator=draw)
    identity = UpdateIdentity(
        run_id=_RUN_ID,
        device=device,
        session=session,
        task_index=0,
        update_id=1,
        base_version=0,
        dimension=dimension,
        samples=1,
    )
    return encode_update(identity, encoding)


def _read(folder: Path, rates_bps: Sequence[float]) -> list[Calibration]:
    found: dict[int, Calibration] = {}
    for event in read_events(folder / "events" / "server-0.jsonl"):
        if event["event"] != "upload_complete":
            continue
        device = int(number(event, "device"))
        seconds = number(event, "last_mono_s") - number(event, "mark_mono_s")
        # Payload alone: every packet carries the same header.
        payload_share = _PAYLOAD_BYTES / (_PAYLOAD_BYTES + HEADER_BYTES)
        payload_bytes = payload_share * number(event, "bytes_after_mark")
        found[device] = Calibration(
            programmed_bps=rates_bps[device],
            update_bytes=int(number(event, "payload_bytes")),
            seconds=seconds,
            goodput_bps=8 * payload_bytes / seconds,
        )
    if len(found) < len(rates_bps):
        raise FadelabError(
            ExitCode.COMPONENT_FAILED, f"only {len(found)} of {len(rates_bps)} updates arrived"
        )
    return [found[device] for device in range(len(rates_bps))]
