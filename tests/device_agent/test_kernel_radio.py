"""The radio of a real wireless link: what netlink says, and what agents see of it."""

import asyncio
import struct
from typing import Any

import pytest
from pyroute2.netlink.nl80211 import nl80211cmd

from fadelab_agent.nl80211 import Association, WirelessError, WirelessInterface, association_of
from fadelab_agent.radio_config import KernelRadioConfig
from fadelab_agent.radio_of_kernel import KernelRadio

CONFIG = KernelRadioConfig(kind="nl80211", interface="wlan0", noise_dbm=-90.0, every_s=1.0)
# Numbers of linux/nl80211.h.
STA_INFO, SURVEY_INFO = 21, 84
SIGNAL, TX_BITRATE, RX_BITRATE, STA_FLAGS = 7, 8, 14, 17
BITRATE, BITRATE32 = 1, 5
NOISE, IN_USE = 2, 3
ASSOCIATED = 1 << 7


def attribute(kind: int, value: bytes) -> bytes:
    """Return a netlink attribute with its padding."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def decoded(*attributes: bytes) -> Any:
    """Return what the library makes of a message of the kernel's."""
    body = struct.pack("=BBH", 19, 1, 0) + b"".join(attributes)
    message = nl80211cmd(struct.pack("=IHHII", 16 + len(body), 28, 0, 1, 0) + body)
    message.decode()
    return message


def station(*, flags: int | None = ASSOCIATED, rate32: bool = True) -> Any:
    rates = (
        (attribute(BITRATE32, struct.pack("=I", 8667)), attribute(BITRATE32, struct.pack("=I", 60)))
        if rate32
        else (attribute(BITRATE, struct.pack("=H", 540)), b"")
    )
    info = [
        attribute(SIGNAL, struct.pack("=b", -57)),
        attribute(TX_BITRATE, rates[0]),
        attribute(RX_BITRATE, rates[1]),
    ]
    if flags is not None:
        info.append(attribute(STA_FLAGS, struct.pack("=II", 0xFF, flags)))
    return decoded(attribute(STA_INFO, b"".join(info)))


def survey(noise_dbm: int, *, in_use: bool) -> Any:
    info = attribute(NOISE, struct.pack("=b", noise_dbm))
    return decoded(attribute(SURVEY_INFO, info + (attribute(IN_USE, b"") if in_use else b"")))


def test_an_associated_station_is_the_link() -> None:
    found = association_of([station()], [survey(-80, in_use=False), survey(-92, in_use=True)])
    assert found == Association(-57.0, -92.0, 866.7e6, 6e6)


def test_older_kernels_tell_rates_in_fewer_bits() -> None:
    found = association_of([station(flags=None, rate32=False)], [])
    assert found == Association(-57.0, None, 54e6, 0.0)


def test_a_station_on_its_way_is_no_contact() -> None:
    assert association_of([station(flags=0)], []) is None
    assert association_of([], []) is None


def test_an_interface_that_is_not_there_is_said() -> None:
    with pytest.raises(WirelessError, match=r"no interface no-such|no wireless subsystem"):
        WirelessInterface("no-such")


def test_an_interface_that_is_not_wireless_is_said() -> None:
    with pytest.raises(WirelessError):
        WirelessInterface("lo").association()


class Script:
    """A modem that answers as it is told, and fails where it is told so."""

    def __init__(self, *answers: Association | WirelessError | None) -> None:
        self._answers = list(answers)

    def association(self) -> Association | None:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, WirelessError):
            raise answer
        return answer

    def close(self) -> None:
        self._answers = [WirelessError("closed")]


class TurnedClock:
    """Time that passes when a test says so, and not before somebody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._awaited_s = -1.0
        self._news = asyncio.Condition()

    def now_s(self) -> float:
        return self.now

    async def sleep_until(self, when_s: float) -> None:
        async with self._news:
            self._awaited_s = when_s
            self._news.notify_all()
            await self._news.wait_for(lambda: self.now >= when_s)

    async def turn_to(self, now_s: float) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._awaited_s > self.now)
            self.now = now_s
            self._news.notify_all()


def test_contact_is_association() -> None:
    there = Association(-60.0, None, 100e6, 50e6)

    async def body() -> None:
        clock = TurnedClock()
        modem = Script(there, None, WirelessError("pulled out"), there)
        async with KernelRadio(CONFIG, modem, clock) as radio:
            await radio.contact()
            assert radio.view.snr_db == 30.0
            assert (radio.view.rate_up_bps, radio.view.rate_down_bps) == (100e6, 50e6)
            await clock.turn_to(1.0)
            await radio.loss_of_contact()
            assert radio.open_s() == 1.0
            assert radio.view.predicted_contact_s == 0.0
            await clock.turn_to(2.0)
            await clock.turn_to(3.0)
            await radio.contact()
            await clock.turn_to(3.5)
            assert radio.open_s() == 1.5

    asyncio.run(asyncio.wait_for(body(), 20))


def test_an_interface_that_cannot_be_asked_ends_the_agent() -> None:
    async def body() -> None:
        async with KernelRadio(CONFIG, Script(WirelessError("no wlan0")), TurnedClock()):
            pass

    with pytest.raises(WirelessError, match="no wlan0"):
        asyncio.run(body())
