"""What links are to do: the timeline they follow, for how many devices, by which back-end."""

from dataclasses import dataclass

import numpy as np

from fadelab.link.sources import OneDevice, TwoWays, WithOutages
from fadelab.local.trial import choose_backend
from fadelab_emulation.backends.choice import Choice, Need
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.outages import OutageConfig, check_outages
from fadelab_emulation.packet_class import class_marks
from fadelab_emulation.schedule import ScheduleReader
from fadelab_emulation.sources import link_source, needs
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_emulation.timeline.link_source import LinkSource
from fadelab_emulation.timeline.rate_steps import CsvConfig, load_rate_steps
from fadelab_emulation.timeline.replay import ReplayConfig

MOST_DEVICES = 1000
_LOOKED_AT_S = 10.0

LinksSection = RadioConfig | TimelineConfig


@dataclass(frozen=True, slots=True)
class LinkJob:
    """Everything that links are told, as :func:`fadelab.link.oneshot.run_behind_links` takes it.

    Raises:
        OSError: a file that is named cannot be read.
        ValueError: it is malformed, settings do not fit each other, or outages overlap.

    """

    links: LinksSection
    """Radio models or a timeline, and what holds for all links: delays, losses, window mode ..."""
    devices: int = 1
    seed: int = 0
    outages: tuple[OutageConfig, ...] = ()
    """Times at which links are closed, whatever the timeline says."""
    recorded_device: int | None = None
    """Whose link the only device gets, of a timeline of several; None: the first one's."""
    downlink: LinksSection | None = None
    """What the downlink follows where it is not ``links``; no more than its rates, its delay, its
    jitter and its losses count."""

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= MOST_DEVICES:
            raise ValueError(f"there can be 1 to {MOST_DEVICES} devices, not {self.devices}")
        if self.recorded_device is not None and self.devices != 1:
            raise ValueError(
                f"one device of a timeline can be followed by one device, not by {self.devices}"
            )
        check_outages(self.outages, self.links.tick_s)
        self.source()

    def source(self) -> LinkSource:
        """Return what yields the links' states, from the beginning."""
        source = self._followed(self.links)
        if self.downlink is not None:
            source = TwoWays(source, self._followed(self.downlink))
        return WithOutages(source, self.outages, self.devices) if self.outages else source

    def _followed(self, links: LinksSection) -> LinkSource:
        source = link_source(links, self._followed_devices, self.seed)
        return source if self.recorded_device is None else OneDevice(source, self.recorded_device)

    @property
    def _followed_devices(self) -> int:
        """How many devices the timeline needs to have."""
        return self.devices if self.recorded_device is None else self.recorded_device + 1

    def plan(self) -> LinkPlan:
        """Return what links to make.

        Each one's queue holds 60 ms at the mean rate of its first ten seconds, for queues are
        sized once and must not hang on one moment.
        """
        links, source = self.links, self.source()
        ticks = [
            links.timescale.scaled(source.step())
            for _ in range(max(1, round(_LOOKED_AT_S / links.tick_s)))
        ]
        up_bps = np.mean([tick.rate_up_bps for tick in ticks], axis=0)
        down_bps = np.mean([tick.rate_down_bps for tick in ticks], axis=0)
        return LinkPlan(
            queues=[QueueSizes.for_rates(*rates) for rates in zip(up_bps, down_bps, strict=True)],
            classes=class_marks(links.classes),
            window=links.window,
            seed=self.seed,
        )

    def choose_backend(self) -> Choice:
        """Return the back-end that can carry these links on this machine.

        Must be called in a process with one thread: it forks.

        Raises:
            FadelabError: ENVIRONMENT, with the reasons and the remedy.

        """
        links = self.links
        needed: frozenset[Need] = frozenset()
        for section in (links, self.downlink):
            if section is not None:
                change_s = _changing_s(section)
                needed |= needs(section, self._followed_devices, self.seed, change_s)
        return choose_backend(links.backend, needed, links.window, class_marks(links.classes))


def _changing_s(links: LinksSection) -> float:
    """Return until when losses and delays may be other than at the beginning."""
    if isinstance(links, RadioConfig):
        return 0.0
    if isinstance(links.timeline, ReplayConfig):
        reader = ScheduleReader(links.timeline.path)
        return reader.ticks * reader.tick_s
    if isinstance(links.timeline, CsvConfig):
        return float(load_rate_steps(links.timeline.path).t_s[-1]) + links.tick_s
    return 0.0
