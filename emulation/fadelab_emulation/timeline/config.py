"""Every timeline that can stand in for the radio models."""

from typing import Annotated

from pydantic import Field

from fadelab_emulation.links_config import LinksConfig
from fadelab_emulation.timeline.mahimahi import MahimahiConfig
from fadelab_emulation.timeline.rate_steps import CsvConfig
from fadelab_emulation.timeline.replay import ReplayConfig

AnyTimeline = Annotated[ReplayConfig | MahimahiConfig | CsvConfig, Field(discriminator="kind")]
"""Each has ``build(terms)``, which returns a
:class:`fadelab_emulation.timeline.link_source.LinkSource`."""


class TimelineConfig(LinksConfig):
    """Links that follow a recording or a trace instead of radio models."""

    timeline: AnyTimeline = Field(description="What the links follow.")
