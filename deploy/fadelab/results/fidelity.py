"""Each link's part of the summary: what it was programmed to do, against what it did."""

from collections.abc import Iterable

from fadelab.results.connectivity import connectivity
from fadelab.results.delay import delay_fidelity
from fadelab.results.goodput import ProgrammedRate, Transfer, goodput
from fadelab.results.loss import loss_fidelity
from fadelab.results.record import Event, RunRecord, by_device, number
from fadelab.results.schema import ClassTraffic, Connectivity, DelayFidelity, LinkFidelity
from fadelab.results.timeline import Programmed


class LinkEvidence:
    """All that a run's record says of its links, by device and direction (``up`` or ``down``)."""

    def __init__(self, record: RunRecord, devices: int) -> None:
        self._start_mono_s = record.start_mono_s or 0.0
        self._accounts = dict(by_device(record.of("emulator", "link_account"), devices))
        self._probes = dict(by_device(record.of("emulator", "delay_probe"), devices))
        self._programmed = Programmed.of(record, devices)
        self._readings = record.readings()

    def account(self, device: int) -> Event:
        """Return the emulator's account of a link; empty if there is none."""
        found = self._accounts[device]
        return found[-1] if found else {}

    def fidelity(self, device: int, direction: str, transfers: Iterable[Event]) -> LinkFidelity:
        """Return one direction of one link; ``transfers`` are its receiver's events."""
        account, asked = self.account(device), self._programmed.direction(direction)
        programmed = number(account, f"{direction}_programmed_bytes")
        achieved = int(number(account, f"{direction}_achieved_bytes"))
        programmed_bps, achieved_bps = goodput(
            ProgrammedRate(asked.open_bps[:, device], self._programmed.tick_s),
            self._timed(transfers),
        )
        return LinkFidelity(
            programmed_bytes=programmed,
            achieved_bytes=achieved,
            stretches=int(number(account, f"{direction}_stretches")),
            ratio=achieved / programmed if programmed > 0 else None,
            programmed_goodput_bps=programmed_bps,
            achieved_goodput_bps=achieved_bps,
            leaked_packets=int(number(account, f"{direction}_leaked_packets")),
            connectivity=self._connectivity(device, direction),
            classes=_classes(account, direction),
            loss=loss_fidelity(account, direction, float(asked.burstiness[device])),
            delay=self._delay(device, direction),
        )

    def _timed(self, transfers: Iterable[Event]) -> list[Transfer]:
        return [
            Transfer(
                mark_s=number(event, "mark_mono_s") - self._start_mono_s,
                last_s=number(event, "last_mono_s") - self._start_mono_s,
                bytes_after_mark=int(number(event, "bytes_after_mark")),
            )
            for event in transfers
            if event["mark_mono_s"] is not None
        ]

    def _connectivity(self, device: int, direction: str) -> Connectivity | None:
        if device not in self._readings:
            return None
        return connectivity(
            self._readings[device],
            is_open=self._programmed.is_open[:, device],
            rate_bps=self._programmed.direction(direction).slowest_wall_bps[:, device],
            tick_s=self._programmed.tick_wall_s,
            direction=direction,
        )

    def _delay(self, device: int, direction: str) -> DelayFidelity | None:
        return delay_fidelity([p for p in self._probes[device] if p["direction"] == direction])


def _classes(account: Event, direction: str) -> list[ClassTraffic]:
    columns = [
        account.get(name, [])
        for name in (
            "classes",
            f"{direction}_class_packets",
            f"{direction}_class_bytes",
            f"{direction}_class_overflowed",
        )
    ]
    names, packets, sizes, overflowed = (
        column if isinstance(column, list) else [] for column in columns
    )
    return [
        ClassTraffic(
            name=str(name),
            packets=int(str(count)),
            bytes=int(str(size)),
            # Older records do not have it.
            overflowed=int(str(overflowed[at])) if overflowed else None,
        )
        for at, (name, count, size) in enumerate(zip(names, packets, sizes, strict=True))
    ]
