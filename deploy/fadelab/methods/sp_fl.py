"""SP-FL (Yue et al., arXiv 2603.10763): signs before moduli.

What it computes stands in docs/methods/sp_fl.md, and which settings are the baselines.
"""

from typing import Literal

from pydantic import Field

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.methods.base import MethodPieces
from fadelab_agent.policy import FixedCodecConfig
from fadelab_agent.routes import ClassRoutes
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.rate.class_rates import MODULUS, SIGN
from fadelab_emulation.rate.shannon import ShannonConfig
from fadelab_emulation.timeline.config import TimelineConfig
from fadelab_proto.codecs.config import SignModulusConfig, SignOnlyConfig
from fadelab_server.sp_fl_config import SpFlConfig, SpFlSettings


class SpFlMethod(SpFlSettings):
    """Rounds with a deadline; signs and moduli in packets with resources of their own."""

    name: Literal["sp_fl"]
    grid: Literal["all", "per_layer"] = Field(
        "all", description="Which moduli share smallest and largest level."
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        settings = self.model_dump(exclude={"name", "grid"})
        codec = (
            SignOnlyConfig(kind="sign_only")
            if self.packets == "signs"
            else SignModulusConfig(
                kind="sign_modulus",
                bits=self.modulus_bits,
                block=None if self.grid == "all" else "per_layer",
            )
        )
        return MethodPieces(
            SpFlConfig.model_validate(settings),
            FixedCodecConfig(codec=codec),
            error_memory=False,
            cut_updates="keep",
            reports=True,
            divides_radio=self.needs_channels,
        )


def check_one_machine(method: object) -> None:
    """Refuse a method whose server divides the radio's resources where it cannot reach the radio.

    Raises:
        FadelabError: USAGE.

    """
    if isinstance(method, SpFlMethod) and method.needs_channels:
        raise FadelabError(
            ExitCode.USAGE,
            "method sp_fl has the server divide the radio's resources, which it reaches on one "
            "machine only: run the experiment locally, or with method.loss error_free",
        )


def check_links(
    method: SpFlMethod, radio: RadioConfig | TimelineConfig, routes: ClassRoutes
) -> None:
    """Raise ValueError where links do not treat signs and moduli apart as the method needs it."""
    if not method.needs_channels:
        return
    if not (isinstance(radio, RadioConfig) and isinstance(radio.rate, ShannonConfig)):
        raise ValueError(  # noqa: TRY004 -- the value of a key, to pydantic
            "method sp_fl divides power and bandwidth: radio.rate must be of kind shannon, or "
            "method.loss error_free"
        )
    marked = {link.name: link for link in radio.classes if link.dscp is not None}
    for name in (SIGN, MODULUS):
        if name not in marked:
            raise ValueError(
                f"method sp_fl needs a class '{name}' with a dscp in radio.classes, which has "
                f"{', '.join(sorted(marked)) or 'none with a dscp'}"
            )
    datagrams = {name for name, _ in routes.datagrams()}
    if method.loss != "datagram":
        if datagrams:
            raise ValueError(
                f"method.loss is {method.loss}, but transport.classes.{min(datagrams)} is of kind "
                "datagrams: take loss: datagram, or streams"
            )
        return
    for name in (SIGN, MODULUS):
        if name not in datagrams:
            raise ValueError(
                f"method.loss is datagram: transport.classes.{name} must be of kind datagrams"
            )
        if not marked[name].packet_loss_up:
            raise ValueError(
                f"method.loss is datagram: give radio.classes '{name}' a packet_loss_up above 0, "
                "which holds until the first round, so that links are made which can lose packets"
            )
