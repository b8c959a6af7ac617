"""The modem of a real wireless link, as the kernel tells of it."""

import asyncio
import contextlib
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from fadelab_agent.nl80211 import Association, WirelessError
from fadelab_agent.radio import LinkView, ReportedRadio
from fadelab_agent.radio_config import KernelRadioConfig
from fadelab_proto.clock import Clock


class Modem(Protocol):
    """Whoever knows the present association; may take a while to answer."""

    def association(self) -> Association | None:
        """Return it; None out of contact. Raises WirelessError."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class KernelRadio(ReportedRadio):
    """Contact is association; nothing is known of when it ends, so no end is predicted.

    Args:
        config: how often to ask, and what stands in for what the driver does not tell.
        modem: whom to ask; belongs to this object.
        clock: the time.

    """

    def __init__(self, config: KernelRadioConfig, modem: Modem, clock: Clock) -> None:
        super().__init__(clock)
        self._config = config
        self._modem = modem
        self._watcher: asyncio.Task[None] | None = None

    async def set_power(self, power_w: float) -> str | None:  # noqa: ARG002 -- as of all radios
        """Say that the driver decides."""
        return "the transmit power of a real link is its driver's affair"

    async def __aenter__(self) -> Self:
        # Once here, so that an interface that cannot be asked ends the agent.
        self._take(await asyncio.to_thread(self._modem.association))
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
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        self._modem.close()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now_s() + self._config.every_s)
            try:
                found = await asyncio.to_thread(self._modem.association)
            except WirelessError:
                # An adapter that was pulled out may come back.
                found = None
            self._take(found)

    def _take(self, found: Association | None) -> None:
        config = self._config
        if found is None:
            self._hear(replace(self._view, is_open=False, predicted_contact_s=0.0))
            return
        noise_dbm = config.noise_dbm if found.noise_dbm is None else found.noise_dbm
        snr_db = 0.0 if found.signal_dbm is None else found.signal_dbm - noise_dbm
        self._hear(
            LinkView(
                is_open=True,
                snr_db=snr_db,
                rate_up_bps=found.rate_up_bps,
                rate_down_bps=found.rate_down_bps,
                predicted_contact_s=float("inf"),
                power_w=config.power_w,
            )
        )
