"""Power coefficients for all devices of a cell-free uplink, round by round.

A. Mahmoudi, M. Xiao, E. Bjornson, "Accelerating energy-efficient federated learning in cell-free
networks with adaptive quantization", arXiv 2412.20785: devices tell how many bits their updates
have, the server solves a power control problem with the large-scale statistics of the uplink and
sends every device its power coefficient.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import numpy as np

from fadelab_proto.clock import Clock
from fadelab_proto.events import EventLog
from fadelab_server.allocator.min_max_latency import min_max_latency
from fadelab_server.allocator.round_cost import Allocation, RoundLoad
from fadelab_server.allocator.uplink import F64
from fadelab_server.journal.records import Granted
from fadelab_server.rounds.base import AllocationError, Grant, Report, UnderWay
from fadelab_server.rounds.book import RoundBook
from fadelab_server.rounds.config import CellFreeAllocationConfig
from fadelab_server.rounds.power_control import decide_round, on_links, prepare
from fadelab_server.rounds.radio_access import RadioAccess, Uplink


class CellFreeAllocator:
    """Decides coefficients and has the emulator put them in force.

    Args:
        config: which power control, which budgets.
        access: to the radio plane.
        devices: in the experiment.
        book: of what rounds cost.
        note: puts what was decided into the journal; it is durable when that returns.

    """

    wanted: tuple[str, ...] = ("bits", "wire_bits", "compute_s", "compute_j")

    def __init__(
        self,
        config: CellFreeAllocationConfig,
        access: RadioAccess,
        *,
        devices: int,
        book: RoundBook,
        note: Callable[[Granted], Awaitable[None]],
        clock: Clock,
        log: EventLog,
    ) -> None:
        prepare(config.power_control)
        self.decides_again = config.during_round == "recompute"
        self._config = config
        self._access = access
        self._devices = devices
        self._clock = clock
        self._log = log
        self._book = book
        self._journal = note
        self._start: F64 | None = None

    async def decide(
        self, version: int, reports: Mapping[int, Report], arrived: Mapping[int, float]
    ) -> Mapping[int, Grant]:
        """Return every reporting device's power; see :class:`Allocator`."""
        uplink = await self._access.uplink()
        load = self._load(reports, arrived, devices=len(uplink.statistics.noise))
        begun_s = self._clock.now_s()
        allocation = await self._solve(uplink, load)
        solve_s = self._clock.now_s() - begun_s
        powers_w = uplink.statistics.full_power_w * allocation.coefficient
        in_force_bps = await self._access.set_powers(powers_w)
        planned = on_links(allocation, load, uplink.floor_bps, powers_w)
        self._start = allocation.coefficient
        self._note(version, reports, planned, in_force_bps, solve_s, again=bool(arrived))
        now_s = self._clock.now_s()
        granted = _granted(
            version, reports, load=load, planned=planned, powers_w=powers_w, now_s=now_s
        )
        self._book.granted(granted)
        await self._journal(granted)
        return _grants(granted)

    async def between_rounds(self) -> None:
        """Give everybody the same rate, for acknowledgements of downloads and for reports."""
        uplink = await self._access.uplink()
        statistics = uplink.statistics
        equal = RoundLoad(np.ones(len(statistics.noise)))
        try:
            allocation = await asyncio.to_thread(min_max_latency, statistics, equal)
        except ValueError as error:
            raise AllocationError(f"no power control is possible: {error}") from error
        await self._access.set_powers(statistics.full_power_w * allocation.coefficient)

    def under_way(self, version: int) -> UnderWay | None:
        """Return what the journal knows of a round; see :class:`Allocator`."""
        granted = self._book.present
        if granted is None or granted.version != version:
            return None
        told = zip(granted.devices, granted.update_ids, granted.reports, strict=True)
        reports = {own: Report(own, update, version, numbers) for own, update, numbers in told}
        return UnderWay(reports, _grants(granted), frozenset(self._book.arrived))

    async def again_in_force(self) -> None:
        """Set the powers of the round under way once more."""
        granted = self._book.present
        if granted is not None:
            powers_w = np.zeros(self._devices)
            powers_w[list(granted.devices)] = granted.power_w
            await self._access.set_powers(powers_w)

    def uploaded(self, device: int, arrived_s: float) -> None:
        """Book a measured upload."""
        granted = self._book.present
        if granted is None:
            return
        upload_s, upload_j = self._book.uploaded(device, arrived_s)
        self._log.write(
            "upload_metered",
            device=device,
            version=granted.version,
            upload_s=round(upload_s, 6),
            upload_j=upload_j,
        )

    def ended(self, version: int) -> str | None:
        """Book the round that made a version; say if a budget is spent."""
        cost, spent = self._book.ended(version), self._book.spending
        if cost is None:
            return spent.over
        self._log.write(
            "round_cost",
            version=version,
            planned_s=cost.planned_s,
            planned_j=cost.planned_j,
            measured_s=cost.measured_s,
            measured_j=cost.measured_j,
            planned_total_s=spent.planned_s,
            planned_total_j=spent.planned_j,
            measured_total_s=spent.measured_s,
            measured_total_j=spent.measured_j,
        )
        return spent.over

    async def close(self) -> None:
        """Leave the radio plane."""
        await self._access.close()

    def _load(
        self, reports: Mapping[int, Report], arrived: Mapping[int, float], *, devices: int
    ) -> RoundLoad:
        if devices != self._devices:
            raise AllocationError(
                f"the radio plane has {devices} devices, the server {self._devices}"
            )
        bits = np.zeros(devices)
        for device, report in reports.items():
            bits[device] = report.numbers["wire_bits"] * (1 - arrived.get(device, 0.0))
        return RoundLoad(
            bits,
            compute_s=max(report.numbers["compute_s"] for report in reports.values()),
            compute_j=sum(report.numbers["compute_j"] for report in reports.values()),
        )

    async def _solve(self, uplink: Uplink, load: RoundLoad) -> Allocation:
        try:
            return await asyncio.to_thread(
                decide_round,
                self._config.power_control,
                uplink.statistics,
                load,
                left=self._book.spending.left,
                start=self._start,
            )
        except ValueError as error:
            raise AllocationError(f"no power control is possible: {error}") from error

    def _note(
        self,
        version: int,
        reports: Mapping[int, Report],
        planned: Allocation,
        in_force_bps: F64,
        solve_s: float,
        *,
        again: bool,
    ) -> None:
        devices = sorted(reports)
        sending = planned.coefficient > 0
        gap = np.abs(in_force_bps[sending] / planned.rate_bps[sending] - 1)
        self._log.write(
            "round_planned",
            version=version,
            again=again,
            power_control=self._config.power_control.kind,
            devices=devices,
            coefficient=planned.coefficient[devices].tolist(),
            rate_bps=planned.rate_bps[devices].tolist(),
            upload_s=planned.upload_s[devices].tolist(),
            upload_j=planned.upload_j[devices].tolist(),
            bits=[reports[device].numbers["bits"] for device in devices],
            wire_bits=[reports[device].numbers["wire_bits"] for device in devices],
            entries=max(report.numbers.get("entries", 0) for report in reports.values()),
            update_ids=[reports[device].update_id for device in devices],
            round_s=planned.round_s,
            round_j=planned.round_j,
            iterations=planned.iterations,
            residual=float(planned.residual),
            solve_s=round(solve_s, 6),
            largest_rate_gap=float(gap.max()) if len(gap) else 0.0,
        )


def _granted(
    version: int,
    reports: Mapping[int, Report],
    *,
    load: RoundLoad,
    planned: Allocation,
    powers_w: F64,
    now_s: float,
) -> Granted:
    devices = sorted(reports)
    return Granted(
        version=version,
        now_s=now_s,
        planned_s=planned.round_s,
        planned_j=planned.round_j,
        compute_s=load.compute_s,
        compute_j=load.compute_j,
        devices=tuple(devices),
        update_ids=tuple(reports[device].update_id for device in devices),
        reports=tuple(dict(reports[device].numbers) for device in devices),
        coefficient=tuple(planned.coefficient[devices].tolist()),
        power_w=tuple(powers_w[devices].tolist()),
        rate_bps=tuple(planned.rate_bps[devices].tolist()),
        upload_s=tuple(planned.upload_s[devices].tolist()),
    )


def _grants(granted: Granted) -> dict[int, Grant]:
    columns = (granted.power_w, granted.rate_bps, granted.upload_s, granted.coefficient)
    rows = zip(granted.devices, *columns, strict=True)
    return {
        device: Grant(power_w, rate_bps, upload_s, {"coefficient": coefficient})
        for device, power_w, rate_bps, upload_s, coefficient in rows
    }
