"""From the experiment's ``radio`` section to what the tick loop follows."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from fadelab_emulation.backends.choice import Need, needs_of
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_emulation.timeline.link_source import LinkSource, LinkTerms
from fadelab_emulation.world import RadioWorld

_MOST_TICKS_LOOKED_AT = 20_000


def _class_name(section: Any) -> str:
    """Return which class a section is of; what is no section at all is refused by either."""
    given = isinstance(section, dict) and "timeline" in section
    return TimelineConfig.__name__ if given or isinstance(section, TimelineConfig) else _MODELS


_MODELS = RadioConfig.__name__
# Tags are the classes' names, by which error messages find the schema of what was meant.
AnyRadio = Annotated[
    Annotated[RadioConfig, Tag(_MODELS)] | Annotated[TimelineConfig, Tag(TimelineConfig.__name__)],
    Discriminator(_class_name),
]
"""Radio models, or a timeline in their place: the section that has the key ``timeline``."""


def link_source(config: RadioConfig | TimelineConfig, devices: int, seed: int) -> LinkSource:
    """Return what yields the links' states.

    Raises:
        OSError: a file that the section names cannot be read.
        ValueError: it is malformed or does not fit the number of devices.

    """
    if isinstance(config, RadioConfig):
        return RadioWorld(config, devices, seed)
    terms = LinkTerms(
        devices=devices,
        tick_s=config.tick_s,
        seed=seed,
        classes=tuple(config.classes),
        packet_loss_up=config.packet_loss_up,
        packet_loss_down=config.packet_loss_down,
        delay_up_s=config.delay_up_s,
        delay_down_s=config.delay_down_s,
        jitter_up_s=config.jitter_up_s,
        jitter_down_s=config.jitter_down_s,
    )
    return config.timeline.build(terms)


def needs(
    config: RadioConfig | TimelineConfig, devices: int, seed: int, duration_s: float
) -> frozenset[Need]:
    """Return what links must be able to do to follow the section for ``duration_s``.

    Losses and delays of radio models are constant, so their first tick tells; a timeline is gone
    through, up to 20 000 ticks of it.
    """
    source = link_source(config, devices, seed)
    ticks = 1
    if isinstance(config, TimelineConfig):
        ticks = max(1, min(_MOST_TICKS_LOOKED_AT, round(duration_s / config.tick_s)))
    found: frozenset[Need] = frozenset()
    for _ in range(ticks):
        found |= needs_of([source.step()], config.window)
    return found
