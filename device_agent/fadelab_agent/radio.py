"""The device's modem as it sees it: contact, rate, prediction - and time spent in contact."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc

from fadelab_proto import radio_pb2 as pb
from fadelab_proto import radio_pb2_grpc as pb_grpc
from fadelab_proto.clock import Clock
from fadelab_proto.wire import channel_options


@dataclass(frozen=True, slots=True)
class LinkView:
    """What the modem reports now."""

    is_open: bool
    snr_db: float
    rate_up_bps: float
    rate_down_bps: float
    predicted_contact_s: float
    """Remaining contact as it was predicted at ``reported_s``."""
    power_w: float
    reported_s: float | None = None
    """When this was reported, by the device's clock; None if it holds at any time."""

    def remaining_contact_s(self, now_s: float) -> float:
        """Return the predicted remaining contact less the time since the report."""
        age_s = 0.0 if self.reported_s is None else max(0.0, now_s - self.reported_s)
        return max(0.0, self.predicted_contact_s - age_s)


class Radio(Protocol):
    """The modem's interface to agents; agents do not know whether it is emulated."""

    @property
    def view(self) -> LinkView:
        """The latest report."""
        ...

    async def contact(self) -> None:
        """Return once the device is in a contact window."""
        ...

    async def loss_of_contact(self) -> None:
        """Return once the device is in no contact window."""
        ...

    def open_s(self) -> float:
        """Return the seconds spent in contact since the radio was started."""
        ...

    async def set_power(self, power_w: float) -> str | None:
        """Send with this power from now on; return once it is in force.

        Returns:
            Why the modem does not do it, or None if it does.

        """
        ...


class ReportedRadio:
    """A radio that is told of its link now and then; out of contact until the first report."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._view = LinkView(
            is_open=False,
            snr_db=0.0,
            rate_up_bps=0.0,
            rate_down_bps=0.0,
            predicted_contact_s=0.0,
            power_w=0.0,
        )
        self._opened, self._closed = asyncio.Event(), asyncio.Event()
        self._closed.set()
        self._opened_at_s: float | None = None
        self._open_total_s = 0.0

    @property
    def view(self) -> LinkView:
        """The latest report."""
        return self._view

    async def contact(self) -> None:
        """Wait for the next window, if the device is in none."""
        await self._opened.wait()

    async def loss_of_contact(self) -> None:
        """Wait for the present window's end, if the device is in one."""
        await self._closed.wait()

    def open_s(self) -> float:
        """Return the closed windows' lengths plus the present one's so far."""
        since = self._opened_at_s
        return self._open_total_s + (0.0 if since is None else self._clock.now_s() - since)

    def _hear(self, view: LinkView) -> None:
        now = self._clock.now_s()
        self._view = view
        if view.is_open and self._opened_at_s is None:
            self._opened_at_s = now
            self._closed.clear()
            self._opened.set()
        elif not view.is_open and self._opened_at_s is not None:
            self._open_total_s += now - self._opened_at_s
            self._opened_at_s = None
            self._opened.clear()
            self._closed.set()


class EmulatedRadio(ReportedRadio):
    """The radio plane of the emulator, over a local socket."""

    def __init__(self, socket: Path, device: int, clock: Clock) -> None:
        super().__init__(clock)
        self._device = device
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}", options=channel_options())
        self._watcher: asyncio.Task[None] | None = None
        self._reported = asyncio.Condition()

    async def set_power(self, power_w: float) -> str | None:
        """Ask the emulator, and wait for the report that tells of the power."""
        stub = pb_grpc.RadioStub(self._channel)
        request = pb.PowerRequest(device=self._device, power_w=power_w)
        try:
            reply = await stub.RequestPower(request, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        if reply.status != pb.POWER_STATUS_GRANTED:
            return reply.reason
        async with self._reported:
            await self._reported.wait_for(lambda: self._view.power_w == reply.power_w)
        return None

    async def __aenter__(self) -> Self:
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await self._watcher
        await self._channel.close()

    async def _watch(self) -> None:
        stub = pb_grpc.RadioStub(self._channel)
        while True:
            # An emulator that is restarted is met again; until then the last report stands.
            with contextlib.suppress(grpc.aio.AioRpcError):
                request = pb.WatchLinkRequest(device=self._device)
                async for report in stub.WatchLink(request, wait_for_ready=True):
                    self._take(report)
                    async with self._reported:
                        self._reported.notify_all()
            await self._clock.sleep_until(self._clock.now_s() + 0.1)

    def _take(self, report: pb.LinkReport) -> None:
        self._hear(
            LinkView(
                is_open=report.open,
                snr_db=report.snr_db,
                rate_up_bps=report.rate_up_bps,
                rate_down_bps=report.rate_down_bps,
                predicted_contact_s=report.predicted_contact_s,
                power_w=report.power_w,
                reported_s=self._clock.now_s(),
            )
        )


class WiredRadio:
    """No radio at all: always in contact, at a rate that is known from configuration."""

    def __init__(self, clock: Clock, *, rate_up_bps: float, rate_down_bps: float) -> None:
        self._clock = clock
        self._since_s = clock.now_s()
        self._view = LinkView(
            is_open=True,
            snr_db=0.0,
            rate_up_bps=rate_up_bps,
            rate_down_bps=rate_down_bps,
            predicted_contact_s=float("inf"),
            power_w=0.0,
        )

    @property
    def view(self) -> LinkView:
        """Always the same."""
        return self._view

    async def contact(self) -> None:
        """Return at once."""

    async def loss_of_contact(self) -> None:
        """Never return."""
        await asyncio.Event().wait()

    def open_s(self) -> float:
        """Return the seconds since the start."""
        return self._clock.now_s() - self._since_s

    async def set_power(self, power_w: float) -> str | None:  # noqa: ARG002
        """Refuse: a wire has no transmit power."""
        return "a wired link has no transmit power"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass
