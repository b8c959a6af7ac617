"""The INA3221 of Jetson modules: three channels of voltage and current, by hwmon.

Formats: kernel documentation, hwmon/ina3221.rst: ``in[123]_label``, ``in[123]_input`` in millivolts,
``curr[123]_input`` in milliamperes; a channel that is switched off gives an error (ENODATA).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HWMON = Path("/sys/class/hwmon")
_DRIVER = "ina3221"
_WHOLE = "VDD_IN"
"""The channel of a module's whole input (Jetson Linux Developer Guide, power monitors)."""


@dataclass(frozen=True, slots=True)
class _Channel:
    label: str
    voltage: Path
    current: Path


class Ina3221:
    """The module's input where a channel measures it, else the sum of all channels.

    Args:
        channels: what to read.

    """

    every_s = 0.1

    def __init__(self, channels: Sequence[_Channel]) -> None:
        whole = [channel for channel in channels if channel.label == _WHOLE]
        self._channels = whole or list(channels)
        labels = " + ".join(channel.label for channel in self._channels)
        self.name = f"{_DRIVER} ({labels})"

    @classmethod
    def find(cls, hwmon: Path = HWMON) -> "Ina3221 | None":
        """Return the sensor of this machine; None if it has none."""
        found: list[_Channel] = []
        for chip in sorted(hwmon.glob("*")):
            if _text(chip / "name") == _DRIVER:
                found += _channels(chip)
        return cls(found) if found else None

    def read_w(self) -> float | None:
        """Return the channels' powers added up; None if one of them cannot be read."""
        total_w = 0.0
        for channel in self._channels:
            millivolts, milliamperes = _number(channel.voltage), _number(channel.current)
            if millivolts is None or milliamperes is None:
                return None
            total_w += 1e-6 * millivolts * milliamperes
        return total_w


def _channels(chip: Path) -> list[_Channel]:
    return [
        _Channel(label, voltage, current)
        for number in (1, 2, 3)
        if _number(voltage := chip / f"in{number}_input") is not None
        and _number(current := chip / f"curr{number}_input") is not None
        and (label := _text(chip / f"in{number}_label") or f"channel {number}")
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
