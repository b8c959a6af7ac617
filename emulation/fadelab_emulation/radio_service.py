"""The radio plane: what devices' modems know, and the launcher's view of the links."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import numpy as np

from fadelab_emulation.backends.base import LinkCounters
from fadelab_emulation.link_state import FloatArray, LinkTick
from fadelab_emulation.tick_loop import TickLoop
from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc

_REFRESH_S = 1.0
# At most a hundred routine reports a second altogether; openings and closings never wait.
_REFRESH_S_PER_DEVICE = 0.01
_MAX_LINKS_IN_REPORT = 64


class LinkBoard:
    """The latest tick, and who has to hear of it; lives in the event loop."""

    def __init__(self, devices: int, tick_s: float, power_w: float) -> None:
        self.devices = devices
        self.tick: LinkTick | None = None
        self.counters: LinkCounters | None = None
        self.power_w = np.full(devices, power_w)
        """In force."""
        self.granted_w = self.power_w.copy()
        """In force now, or from a tick on that is yet to come."""
        refresh_s = max(_REFRESH_S, devices * _REFRESH_S_PER_DEVICE)
        self._refresh_ticks = max(1, round(refresh_s / tick_s))
        self._news = [asyncio.Event() for _ in range(devices)]
        self._powers_taken = asyncio.Event()
        self.closing = asyncio.Event()
        """Set when the emulator ends; every stream then ends by itself."""

    def post(self, tick: LinkTick) -> None:
        """Take a tick; wake the devices whose window opened or closed, and some others in turn."""
        previous = self.tick
        self.tick = tick
        due = np.arange(self.devices) % self._refresh_ticks == tick.index % self._refresh_ticks
        if previous is None:
            due[:] = True
        else:
            due |= previous.is_open != tick.is_open
        for device in np.flatnonzero(due).tolist():
            self._news[device].set()

    def take_powers(self, powers_w: dict[int, float]) -> None:
        """Take the powers, by device, that are in force now; tell these devices."""
        for device, power_w in powers_w.items():
            self.power_w[device] = power_w
            self._news[device].set()
        self._powers_taken.set()

    async def powers_in_force(self, powers_w: FloatArray) -> LinkTick | None:
        """Return a tick that has these powers of all devices; None when the emulator ends."""
        while not np.array_equal(self.power_w, powers_w):
            if self.closing.is_set():
                return None
            self._powers_taken.clear()
            await self._powers_taken.wait()
        return self.tick

    async def news(self, device: int) -> bool:
        """Return when there is something to tell this device; False when the emulator ends."""
        await self._news[device].wait()
        self._news[device].clear()
        return not self.closing.is_set()

    def close(self) -> None:
        """End all streams."""
        self.closing.set()
        self._powers_taken.set()
        for event in self._news:
            event.set()


class RadioService(pb_grpc.RadioServicer):
    """What agents talk to."""

    def __init__(
        self, board: LinkBoard, loop: TickLoop, *, max_power_w: float, powers_matter: bool = True
    ) -> None:
        self._board = board
        self._loop = loop
        self._max_power_w = max_power_w
        self._powers_matter = powers_matter

    async def WatchLink(  # noqa: N802
        self,
        request: pb.WatchLinkRequest,
        context: grpc.aio.ServicerContext[pb.WatchLinkRequest, pb.LinkReport],
    ) -> AsyncIterator[pb.LinkReport]:
        """Report now, at every opening and closing, and about once a second."""
        device = request.device
        if device >= self._board.devices:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"device {device} is not one of 0..{self._board.devices - 1}",
            )
        yield self._report(device)
        while await self._board.news(device):
            yield self._report(device)

    async def RequestPower(  # noqa: N802
        self,
        request: pb.PowerRequest,
        context: grpc.aio.ServicerContext[pb.PowerRequest, pb.PowerReply],
    ) -> pb.PowerReply:
        """Grant a power above 0 and up to the device's maximum; a report tells when it is in force."""
        board, device = self._board, request.device
        if device >= board.devices:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"device {device} is not one of 0..{board.devices - 1}",
            )
        if not self._powers_matter:
            return pb.PowerReply(
                status=pb.POWER_STATUS_REFUSED,
                reason="the links follow a given timeline, in which powers have no say",
                power_w=board.granted_w[device],
            )
        if not 0 < request.power_w <= self._max_power_w:
            return pb.PowerReply(
                status=pb.POWER_STATUS_REFUSED,
                reason=f"{request.power_w:g} W is not above 0 and at most {self._max_power_w:g} W",
                power_w=board.granted_w[device],
            )
        self._loop.request_power(device, request.power_w)
        board.granted_w[device] = request.power_w
        return pb.PowerReply(status=pb.POWER_STATUS_GRANTED, power_w=request.power_w)

    def _report(self, device: int) -> pb.LinkReport:
        board, tick = self._board, self._board.tick
        if tick is None:
            # Staging: the device joins over an open link; it learns its rate at the start.
            return pb.LinkReport(open=True, power_w=board.power_w[device])
        return pb.LinkReport(
            t_s=tick.t_s,
            open=bool(tick.is_open[device]),
            snr_db=tick.snr_up_db[device],
            rate_up_bps=tick.rate_up_bps[device],
            rate_down_bps=tick.rate_down_bps[device],
            predicted_contact_s=tick.predicted_contact_s[device],
            power_w=board.power_w[device],
        )


class EmulatorService(pb_grpc.EmulatorServicer):
    """What the launcher talks to."""

    def __init__(self, board: LinkBoard, loop: TickLoop) -> None:
        self._board = board
        self._loop = loop

    async def Begin(  # noqa: N802
        self,
        request: pb.BeginRequest,
        context: grpc.aio.ServicerContext[pb.BeginRequest, pb.BeginReply],
    ) -> pb.BeginReply:
        """Start the timeline."""
        if not request.start_mono_s > 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "start_mono_s must be positive")
        self._loop.begin(request.start_mono_s)
        return pb.BeginReply()

    async def WatchFidelity(  # noqa: N802
        self,
        request: pb.WatchFidelityRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[pb.WatchFidelityRequest, pb.FidelityReport],  # noqa: ARG002
    ) -> AsyncIterator[pb.FidelityReport]:
        """Report once a second."""
        closing = self._board.closing
        while not closing.is_set():
            if self._board.tick is not None and self._board.counters is not None:
                yield self._fidelity(self._board.tick, self._board.counters)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), _REFRESH_S)

    def _fidelity(self, tick: LinkTick, counters: LinkCounters) -> pb.FidelityReport:
        shown = range(min(self._board.devices, _MAX_LINKS_IN_REPORT))
        up, down = counters.up, counters.down
        return pb.FidelityReport(
            t_s=tick.t_s,
            lateness_p99_ms=self._loop.lateness.percentile_ms(99),
            links=[
                pb.LinkFidelity(
                    device=i,
                    open=bool(tick.is_open[i]),
                    rate_up_bps=tick.rate_up_bps[i],
                    saturated=bool(up.programmed_bytes[i] > 0),
                    achieved_ratio=up.achieved_bytes[i] / max(1.0, up.programmed_bytes[i]),
                    wire_up_bytes=int(up.wire_bytes[i]),
                    wire_down_bytes=int(down.wire_bytes[i]),
                    leaked_packets=int(up.leaked_packets[i] + down.leaked_packets[i]),
                )
                for i in shown
            ],
        )
