"""SP-FL over real sockets with losses drawn from the formula: how often, without bias, how far off.

The devices' gradients never change, so that the true mean is known and every version tells how the
server aggregated.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.server.harness import (
    DIMENSION,
    Device,
    Running,
    logged,
    make_config,
    make_update,
    newest,
    running,
)
from tests.server.sp_fl_cell import (
    BANDWIDTH_HZ,
    DEVICES,
    ENTRIES,
    MODULUS_BITS,
    gradients,
    noise_per_hz,
)

from fadelab_proto import cell_pb2, cell_pb2_grpc, rounds_pb2, rounds_pb2_grpc
from fadelab_proto.codecs import SignModulus

SMALLER = DIMENSION / ENTRIES
"""A model so much smaller on a band so much narrower meets the same probabilities."""


class Cell(cell_pb2_grpc.CellServicer):
    """A radio plane whose links have all classes' rates at once, as losses are drawn elsewhere."""

    def __init__(self, devices: int) -> None:
        self._noise = (noise_per_hz()[:: DEVICES // devices] / SMALLER).tolist()
        self._band_hz = BANDWIDTH_HZ * SMALLER * devices / DEVICES

    async def ReadChannels(self, request: Any, context: Any) -> cell_pb2.ChannelsReply:  # noqa: N802
        return cell_pb2.ChannelsReply(
            noise_per_hz=self._noise, bandwidth_hz=self._band_hz, efficiency=1
        )


@dataclass
class Scene:
    """A server and its devices, each with one gradient for ever."""

    server: Running
    devices: list[Device]
    gradients: dict[int, Any]
    stubs: list[Any]
    codec: SignModulus

    @property
    def truth(self) -> Any:
        return np.mean(list(self.gradients.values()), axis=0)

    async def round(self, version: int) -> Any:
        """Play a round; return by what the model moved."""
        before = newest(self.server)
        await asyncio.gather(*(self._contribute(device, version) for device in self.devices))
        seen = -1
        while self.server.federation.tasks[0].store.shown.number <= version:
            seen = await self.server.federation.changed.changed_since(seen)
        return newest(self.server).astype(np.float64) - before

    async def _contribute(self, device: Device, version: int) -> None:
        gradient = self.gradients[device.number]
        moduli = np.abs(gradient)
        rule: Any = self.server.federation.tasks[0].rule
        stands_in = rule.compensation.moduli(device.number)
        overlap = 0.0 if stands_in is None else float(np.sum(moduli * stands_in))
        figures = rounds_pb2.ModulusStatistics(
            energy=float(np.sum(moduli**2)), overlap=overlap, quantiser_variance=0.0
        )
        plan = await self.stubs[device.number].Report(
            rounds_pb2.RoundReport(session=device.session, version=version, moduli=figures)
        )
        if plan.status != rounds_pb2.ROUND_STATUS_SEND:
            return
        update = make_update(
            gradient, device=device.number, session=device.session, update_id=version + 1,
            base_version=version, codec=self.codec,
        )  # fmt: skip
        await device.send(update)


@asynccontextmanager
async def scene(folder: Path, devices: int, **aggregation: Any) -> AsyncIterator[Scene]:
    radio = grpc.aio.server()
    cell_pb2_grpc.add_CellServicer_to_server(Cell(devices), radio)
    radio.add_insecure_port(f"unix:{folder}/radio")
    await radio.start()
    config = make_config(
        folder,
        devices=devices,
        aggregation={"kind": "sp_fl", "loss": "bernoulli", "wire_factor": 1} | aggregation,
        radio_socket=folder / "radio",
        partial_updates="keep",
    )
    try:
        async with running(config) as server:
            them = [server.device(number) for number in range(devices)]
            for device in them:
                await device.join()
            server.federation.start(server.federation.clock.now_s())
            address = f"127.0.0.1:{server.port}"
            stubs = [rounds_pb2_grpc.RoundsStub(server.connect(address)) for _ in them]
            own = gradients(devices, dimension=DIMENSION)
            yield Scene(server, them, own, stubs, SignModulus(16))
    finally:
        await radio.stop(None)


def test_both_classes_arrive_as_often_as_the_formula_says_and_the_mean_is_unbiased(
    tmp_path: Path,
) -> None:
    rounds = 120

    async def play() -> tuple[Any, Any]:
        settings: dict[str, Any] = {
            "deadline_s": 0.15,
            "allocation": "equal",
            "fading": "independent",
            "scaling": "ipw",
            "compensation": {"kind": "constant", "modulus": 0.7},
        }
        async with scene(tmp_path, 4, **settings) as own:
            steps = [await own.round(version) for version in range(rounds)]
            signs = np.sign(list(own.gradients.values())) * 0.7
            return np.array(steps), (np.array(list(own.gradients.values())), signs)

    steps, (whole, alone) = asyncio.run(play())
    told = logged(tmp_path, "sp_fl_round")
    assert len(told) == rounds
    for which in ("sign", "modulus"):
        tried = [
            (p, arrived)
            for event in told
            for p, sign, arrived in zip(
                event[f"predicted_{which}"], event["arrived_sign"], event[f"arrived_{which}"],
                strict=True,
            )
            if which == "sign" or sign
        ]  # fmt: skip
        expected, found = (sum(pair[place] for pair in tried) for place in (0, 1))
        reach = 1.96 * math.sqrt(sum(p * (1 - p) for p, _ in tried))
        assert reach < 0.1 * len(tried)
        # Losses are drawn from the experiment's seed: this holds always or never.
        assert abs(found - expected) <= reach, (which, expected, found)
    p = np.array(told[0]["predicted_modulus"])[:, None]
    wanted = np.mean(p * whole + (1 - p) * alone, axis=0)
    error_of_mean = steps.std(axis=0) / math.sqrt(rounds)
    # Squares of 300 standardised errors have the mean 1, if there is no bias.
    standardised = (steps.mean(axis=0) - wanted) / error_of_mean
    assert np.mean(standardised**2) < 3


def test_errors_of_the_aggregate_cross_where_resources_become_scarce(tmp_path: Path) -> None:
    async def error(name: str, deadline_s: float, **settings: Any) -> float:
        common = {"modulus_bits": MODULUS_BITS, "deadline_s": deadline_s, "least_success": 0}
        async with scene(tmp_path / f"{name}-{deadline_s}", 10, **common, **settings) as own:
            scale = np.sum(own.truth**2)
            # Nothing stands in for moduli in the first rounds.
            await own.round(0)
            await own.round(1)
            steps = [await own.round(version) for version in range(2, 10)]
            return float(np.mean([np.sum((step - own.truth) ** 2) / scale for step in steps]))

    async def play() -> list[tuple[float, float]]:
        found = []
        for deadline_s in (0.6, 0.1, 0.06):
            joint = await error("joint", deadline_s, packets="joint", allocation="equal")
            split = await error("split", deadline_s, allocation="full")
            found.append((joint, split))
        return found

    for name, deadline_s in product(("joint", "split"), (0.6, 0.1, 0.06)):
        (tmp_path / f"{name}-{deadline_s}").mkdir()
    (ample, ample_split), *scarce = asyncio.run(play())
    # Rounding to 16 bits and hardly any loss leave next to no error.
    assert max(ample, ample_split) < 0.01
    for joint, split in scarce:
        assert ample < joint
        assert split < joint
