"""The power management chip of the Raspberry Pi 5, by ``vcgencmd pmic_read_adc``.

Format: lines such as ``VDD_CORE_A current(7)=1.91102000A`` and ``VDD_CORE_V volt(15)=0.87355220V``
(Raspberry Pi documentation, "vcgencmd", and its firmware's output). A rail's two lines share the name
before the last letter; their numbers are of the converter's channels and do not match.
"""

import re
import shutil
import subprocess

_LINE = re.compile(r"\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)([AV])\s*")
_PATIENCE_S = 2.0


class RaspberryPmic:
    """All rails behind the chip; what USB devices draw from the 5 V input is not among them.

    Args:
        program: the command, as a path.

    """

    every_s = 0.5
    name = "pmic (its rails, without USB)"

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def find(cls, program: str = "vcgencmd") -> "RaspberryPmic | None":
        """Return the sensor of this machine; None if it has none that may be read."""
        path = shutil.which(program)
        if path is None:
            return None
        found = cls(path)
        return None if found.read_w() is None else found

    def read_w(self) -> float | None:
        """Ask the firmware; None if it does not answer as a Raspberry Pi 5's."""
        try:
            done = subprocess.run(  # noqa: S603 -- the arguments are ours
                [self._program, "pmic_read_adc"],
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return rails_w(done.stdout) if done.returncode == 0 else None


def rails_w(text: str) -> float | None:
    """Return the power of all rails whose voltage and current are told; None if there is none."""
    readings: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2] != match[4]:
            continue
        try:
            readings[match[2]][match[1]] = float(match[3])
        except ValueError:
            continue
    rails = readings["A"].keys() & readings["V"].keys()
    if not rails:
        return None
    return sum(readings["A"][rail] * readings["V"][rail] for rail in rails)
