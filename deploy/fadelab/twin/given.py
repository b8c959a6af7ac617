"""What the twin takes from the run, since it does not train: what waited, and how large models were."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fadelab.results.record import Event, RunRecord, number
from fadelab_agent.contact_decision import Waiting
from fadelab_agent.policy.magnitude_fit import MagnitudeFit

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Download:
    """A model as it came over the link."""

    payload_bytes: int
    packets: int


class Given:
    """Measured figures of one device, each asked for by a moment of the run.

    Args:
        waiting: what waited at the beginnings of contacts, by emulated seconds, in their order.
        downloads: models that were received, likewise.
        samples: how many the device trains with; None if the record does not say.

    """

    def __init__(
        self,
        waiting: Sequence[tuple[float, Waiting]],
        downloads: Sequence[tuple[float, Download]],
        samples: int | None,
    ) -> None:
        self._waiting = waiting
        self._downloads = downloads
        self.samples = samples

    def waiting(self, t_s: float) -> Waiting:
        """Return what waited at the contact that was nearest in time."""
        return _nearest(self._waiting, t_s)

    def download(self, t_s: float) -> Download:
        """Return the model that was received nearest in time."""
        return _nearest(self._downloads, t_s)


def given_of(record: RunRecord) -> dict[int, Given]:
    """Return the figures of all devices that have met the server and had something to send."""
    start_s = record.start_mono_s
    assert start_s is not None
    waiting: dict[int, list[tuple[float, Waiting]]] = {}
    decisions = [*record.of("agent", "plan"), *record.of("agent", "contact_skipped")]
    for event in sorted(decisions, key=lambda event: number(event, "mono_s")):
        device, t_s = int(str(event["id"])), number(event, "mono_s") - start_s
        waiting.setdefault(device, []).append((t_s, _waiting(event)))
    downloads: dict[int, list[tuple[float, Download]]] = {}
    for event in record.of("agent", "model_received"):
        device, t_s = int(str(event["id"])), number(event, "mono_s") - start_s
        model = Download(int(number(event, "payload_bytes")), max(1, int(number(event, "packets"))))
        downloads.setdefault(device, []).append((t_s, model))
    samples = {
        int(number(event, "device")): int(number(event, "samples"))
        for name in ("upload_complete", "upload_partial", "upload_abandoned")
        for event in record.of("server", name)
    }
    return {
        device: Given(found, downloads[device], samples.get(device))
        for device, found in waiting.items()
        if device in downloads
    }


def _waiting(event: Event) -> Waiting:
    fit = None
    if event.get("fit_scale") is not None:
        scale, exponent = number(event, "fit_scale"), number(event, "fit_exponent")
        fit = MagnitudeFit(scale, exponent, number(event, "fit_r_squared"))
    return Waiting(number(event, "squared_norm"), fit)


def _nearest(sequence: Sequence[tuple[float, _Found]], t_s: float) -> _Found:
    after = bisect_left(sequence, t_s, key=lambda entry: entry[0])
    around = sequence[max(0, after - 1) : after + 1]
    return min(around, key=lambda entry: abs(entry[0] - t_s))[1]
