"""What the kernel tells of a wireless interface, over netlink (linux/nl80211.h)."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_STATION, _STATION_INFO = "NL80211_ATTR_STA_INFO", "NL80211_STA_INFO_"
_RATE_BPS = 1e5
"""Bit rates come in units of 100 kbit/s."""


class WirelessError(RuntimeError):
    """The kernel does not tell of the interface; the message says why."""


@dataclass(frozen=True, slots=True)
class Association:
    """The link to the access point that the interface is associated with."""

    signal_dbm: float | None
    """Received power; None if the driver does not tell."""
    noise_dbm: float | None
    rate_up_bps: float
    """Of the physical layer, at which the last frame was sent; 0 if not told."""
    rate_down_bps: float


class WirelessInterface:
    """One interface of the kernel's wireless subsystem, in station mode.

    Args:
        name: what it is called.

    Raises:
        WirelessError: if there is none of that name, or it is not wireless.

    """

    def __init__(self, name: str) -> None:
        try:
            # Only agents on a real wireless link need it.
            from pyroute2 import IW  # noqa: PLC0415
            from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415
        except ImportError:
            raise WirelessError(
                "radio.kind nl80211 needs the Python package pyroute2: "
                "`pip install 'fadelab[agent]'`"
            ) from None
        self._error = NetlinkError
        try:
            self._index = socket.if_nametoindex(name)
            self._kernel: Any = IW()
        except OSError:
            raise WirelessError(f"there is no interface {name}") from None
        except NetlinkError as error:
            raise WirelessError(
                f"{name} cannot be asked: this kernel has no wireless subsystem ({error})"
            ) from None
        self._name = name

    def association(self) -> Association | None:
        """Return the present one; None out of contact. Raises WirelessError."""
        try:
            stations = list(self._kernel.get_stations(self._index))
            surveys = list(self._kernel.survey(self._index)) if stations else []
        except self._error as error:
            raise WirelessError(f"{self._name} is not a wireless interface: {error}") from None
        return association_of(stations, surveys)

    def close(self) -> None:
        """Close the socket."""
        self._kernel.close()


def association_of(stations: Iterable[Any], surveys: Iterable[Any]) -> Association | None:
    """Return what dumped stations and surveys amount to.

    In station mode the only station is the access point. One whose flags say that it is not yet, or
    no longer, associated is no contact; drivers that tell no flags list associated stations alone.
    """
    noise_dbm = next(filter(None, map(_noise_dbm, surveys)), None)
    for station in stations:
        info = station.get_attr(_STATION)
        if info is None:
            continue
        flags = info.get_attr(f"{_STATION_INFO}STA_FLAGS")
        if flags is not None and not flags["ASSOCIATED"]:
            continue
        signal_dbm = info.get_attr(f"{_STATION_INFO}SIGNAL")
        return Association(
            signal_dbm=None if signal_dbm is None else float(signal_dbm),
            noise_dbm=noise_dbm,
            rate_up_bps=_rate_bps(info.get_attr(f"{_STATION_INFO}TX_BITRATE")),
            rate_down_bps=_rate_bps(info.get_attr(f"{_STATION_INFO}RX_BITRATE")),
        )
    return None


def _rate_bps(rate: Any) -> float:
    """Return a rate; the older of the two attributes ends at 6.5 Gbit/s."""
    if rate is None:
        return 0.0
    units = rate.get_attr("NL80211_RATE_INFO_BITRATE32")
    if units is None:
        units = rate.get_attr("NL80211_RATE_INFO_BITRATE")
    return _RATE_BPS * (units or 0)


def _noise_dbm(survey: Any) -> float | None:
    info = survey.get_attr("NL80211_ATTR_SURVEY_INFO")
    if info is None or info.get_attr("NL80211_SURVEY_INFO_IN_USE") is None:
        return None
    noise = info.get_attr("NL80211_SURVEY_INFO_NOISE")
    # A signed byte in an unsigned one.
    return None if noise is None else float(noise - 256 if noise > 127 else noise)
