"""Powers of a cell-free uplink, decided by the server over a radio plane on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tests.server.cell_free_drops import published_drop
from tests.server.harness import FakeClock
from tests.server.radio_plane import FLOOR_BPS, Plane

from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.events import EventLog, read_events
from fadelab_proto.wire import server_options
from fadelab_server.allocator.uplink import UplinkStatistics
from fadelab_server.journal.records import Granted
from fadelab_server.rounds.base import AllocationError, Report
from fadelab_server.rounds.book import RoundBook
from fadelab_server.rounds.cell_free import CellFreeAllocator
from fadelab_server.rounds.config import BudgetConfig, CellFreeAllocationConfig
from fadelab_server.rounds.radio_access import RadioAccess
from fadelab_server.rounds.spending import RoundCost, Spending

DEVICES = 6
CONTROLS = (
    "sqp_budget",
    "sqp_weighted",
    "dinkelbach",
    "min_max",
    "full",
    "wmmse",
    "coordinate_descent",
)


def report(device: int, *, bits: float = 2e6) -> Report:
    numbers = {"bits": 0.95 * bits, "wire_bits": bits, "compute_s": 0.075, "compute_j": 0.001}
    return Report(device, 1, 0, numbers)


async def nowhere(granted: Granted) -> None:
    """Journal nothing."""


def with_plane(
    folder: Path,
    config: dict[str, Any],
    scenario: Callable[[CellFreeAllocator, Plane], Awaitable[None]],
    *,
    statistics: UplinkStatistics | None = None,
) -> list[dict[str, Any]]:
    async def main() -> None:
        plane = Plane(published_drop(DEVICES, 3) if statistics is None else statistics)
        server = grpc.aio.server(options=server_options())
        pb_grpc.add_CoordinationServicer_to_server(plane, server)
        server.add_insecure_port(f"unix:{folder}/radio")
        await server.start()
        clock = FakeClock()
        with EventLog(folder, "server", "0", clock) as log:
            settings = CellFreeAllocationConfig.model_validate(config)
            allocator = CellFreeAllocator(
                settings,
                RadioAccess(folder / "radio"),
                devices=DEVICES,
                book=RoundBook(settings.budget),
                note=nowhere,
                clock=clock,
                log=log,
            )
            await asyncio.wait_for(scenario(allocator, plane), 30)
            await allocator.close()
        await server.stop(None)

    asyncio.run(main())
    return read_events(folder / "server-0.jsonl")


@pytest.mark.parametrize("kind", CONTROLS)
def test_every_power_control_gives_powers_whose_rates_are_those_in_force(
    tmp_path: Path, kind: str
) -> None:
    async def scenario(allocator: CellFreeAllocator, plane: Plane) -> None:
        reports = {device: report(device) for device in range(1, DEVICES)}
        grants = await allocator.decide(0, reports, {})
        (powers_w,) = plane.powers_w
        assert powers_w[0] == 0.0  # it reported nothing
        assert 0 < max(powers_w) <= plane.statistics.full_power_w
        rates = plane.statistics.rate_bps(np.array(powers_w) / plane.statistics.full_power_w)
        for device, grant in grants.items():
            assert grant.power_w == powers_w[device]
            assert grant.rate_bps == pytest.approx(max(rates[device], FLOOR_BPS))
            if grant.power_w:
                assert grant.upload_s == pytest.approx(2e6 / grant.rate_bps)
        # A second round starts from the first one's powers.
        again = await allocator.decide(1, reports, {})
        assert set(again) == set(reports)

    budget = {"energy_j": 0.5, "latency_s": 20.0}
    config = {"power_control": {"kind": kind}, "budget": budget}
    events = with_plane(tmp_path, config, scenario)
    planned = [event for event in events if event["event"] == "round_planned"]
    assert len(planned) == 2
    assert planned[0]["power_control"] == kind
    assert planned[0]["largest_rate_gap"] < 1e-9


def test_the_shortest_round_gives_all_the_same_latency(tmp_path: Path) -> None:
    async def scenario(allocator: CellFreeAllocator, plane: Plane) -> None:
        sizes = {device: report(device, bits=1e6 * (1 + device)) for device in range(DEVICES)}
        grants = await allocator.decide(0, sizes, {})
        latencies = [grant.upload_s for grant in grants.values()]
        assert max(latencies) <= 1.01 * min(latencies)

    with_plane(tmp_path, {"power_control": {"kind": "min_max"}}, scenario)


def test_who_is_not_heard_is_silent_and_who_has_nothing_gets_nothing(tmp_path: Path) -> None:
    drop = published_drop(DEVICES, 3)
    gain = drop.coherent_gain.copy()
    gain[2] = 0.0
    deaf = UplinkStatistics(
        gain,
        drop.own_interference,
        drop.cross_interference,
        drop.noise,
        drop.bandwidth_hz,
        drop.data_share,
        drop.full_power_w,
    )

    async def scenario(allocator: CellFreeAllocator, plane: Plane) -> None:
        reports = {device: report(device) for device in range(DEVICES)}
        reports[4] = report(4, bits=0.0)
        grants = await allocator.decide(0, reports, {})
        assert {device for device, grant in grants.items() if not grant.power_w} == {2, 4}
        nothing = {device: report(device, bits=0.0) for device in range(DEVICES)}
        grants = await allocator.decide(1, nothing, {})
        assert not any(grant.power_w for grant in grants.values())
        with pytest.raises(AllocationError, match="no power control is possible"):
            await allocator.decide(2, {2: report(2)}, {})

    with_plane(tmp_path, {"power_control": {"kind": "min_max"}}, scenario, statistics=deaf)


def test_a_radio_plane_that_refuses_ends_the_round(tmp_path: Path) -> None:
    async def scenario(allocator: CellFreeAllocator, plane: Plane) -> None:
        plane.refusal = "not today"
        with pytest.raises(AllocationError, match="not today"):
            await allocator.decide(0, {0: report(0)}, {})
        with pytest.raises(AllocationError, match="not today"):
            await allocator.between_rounds()

    with_plane(tmp_path, {}, scenario)


def test_planned_and_measured_costs_are_two_accounts(tmp_path: Path) -> None:
    async def scenario(allocator: CellFreeAllocator, plane: Plane) -> None:
        reports = {device: report(device) for device in range(DEVICES)}
        grants = await allocator.decide(0, reports, {})
        for device in range(DEVICES):
            allocator.uploaded(device, 100.0 + 3.0)  # the clock stands at 100 s
        assert allocator.ended(1) is None
        planned_j = sum(grant.power_w * grant.upload_s for grant in grants.values())
        assert spent(tmp_path)["planned_j"] == pytest.approx(planned_j + DEVICES * 0.001)
        radiated_w = sum(grant.power_w for grant in grants.values())
        assert spent(tmp_path)["measured_j"] == pytest.approx(3 * radiated_w + DEVICES * 0.001)
        assert spent(tmp_path)["measured_s"] == pytest.approx(3.075)

    with_plane(tmp_path, {}, scenario)


def spent(folder: Path) -> dict[str, Any]:
    events = read_events(folder / "server-0.jsonl")
    return next(event for event in events if event["event"] == "round_cost")


def cost(planned_j: float, planned_s: float) -> RoundCost:
    return RoundCost(planned_s=planned_s, planned_j=planned_j, compute_s=0.0, compute_j=0.0)


def test_energy_is_metered_with_the_powers_that_were_in_force() -> None:
    own = cost(0.0, 0.0)
    own.powers_changed({0: 1.0, 1: 2.0}, 10.0)
    assert own.uploaded(0, 12.0) == (2.0, 2.0)
    own.powers_changed({1: 5.0}, 13.0)
    assert own.uploaded(1, 14.0) == (4.0, 2.0 * 3 + 5.0)
    assert own.uploaded(1, 15.0) == (0.0, 0.0)
    assert (own.measured_s, own.measured_j) == (4.0, 13.0)


def test_a_budget_ends_with_the_round_that_goes_beyond_it() -> None:
    spending = Spending(BudgetConfig(energy_j=1.0, latency_s=10.0))
    spending.add(cost(0.6, 1.0))
    assert spending.over is None
    assert spending.left.energy_j == pytest.approx(0.4)
    spending.add(cost(0.6, 1.0))
    assert spending.over == "the energy budget of 1 J is spent (planned)"
    slow = Spending(BudgetConfig(latency_s=10.0))
    slow.add(cost(1e9, 11.0))
    assert slow.over == "the latency budget of 10 s is spent (planned)"
    measured = Spending(BudgetConfig(energy_j=1.0, counts="measured"))
    measured.add(cost(5.0, 1.0))
    assert measured.over is None  # nothing was measured
    assert measured.left.latency_s == np.inf


def test_budgets_that_a_power_control_needs_must_be_given() -> None:
    model = TypeAdapter(CellFreeAllocationConfig)
    with pytest.raises(ValidationError, match="what is left of both budgets"):
        model.validate_python({"power_control": {"kind": "sqp_budget"}})
