"""What an agent asks about its link where no emulator plays the modem.

This module imports nothing heavy, so that inventories can be checked where no agent runs.
"""

from typing import Annotated, Literal

from pydantic import Field

from fadelab_proto.config import StrictModel

InterfaceName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$",
        description="A letter, a digit or '_', then up to 14 of these, '.' or '-'.",
    ),
]


class NoRadioConfig(StrictModel):
    """Always in contact, at rates known beforehand: a cable, or a link that tells nothing."""

    kind: Literal["none"] = "none"
    rate_up_bps: float = Field(100e6, gt=0, description="What policies take the uplink for.")
    rate_down_bps: float = Field(100e6, gt=0, description="What policies take the downlink for.")


class KernelRadioConfig(StrictModel):
    """A real Wi-Fi link: contact, signal and bit rates as the kernel's nl80211 tells them."""

    kind: Literal["nl80211"]
    interface: InterfaceName
    every_s: float = Field(0.2, ge=0.02, le=60, description="Seconds between questions.")
    noise_dbm: float = Field(
        -95.0,
        ge=-120,
        le=-40,
        description="Noise that the SNR is taken over where the driver does not tell any.",
    )
    power_w: float = Field(0.1, ge=0, le=10, description="Transmit power; 0.1 W is 20 dBm.")


RadioConfig = Annotated[NoRadioConfig | KernelRadioConfig, Field(discriminator="kind")]
