"""What an experiment whose server allocates in rounds asks of the radio and of the deployment."""

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.methods.base import MethodPieces
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.rate.cell_free.model import CellFreeConfig
from fadelab_emulation.sources import AnyRadio
from fadelab_server.rounds.config import CellFreeAllocationConfig

MOST_DEVICES = 300
"""Their statistics still fit into one message of the radio plane."""


def check_allocation(pieces: MethodPieces, radio: AnyRadio, devices: int) -> None:
    """Raise ValueError where the radio has no powers that the method could set together."""
    if not isinstance(pieces.allocation, CellFreeAllocationConfig):
        return
    rate = radio.rate if isinstance(radio, RadioConfig) else None
    if not isinstance(rate, CellFreeConfig) or rate.combining != "mr":
        raise ValueError(
            "the method sets the powers of a cell-free uplink: radio.rate must be of kind "
            "cell_free with combining mr"
        )
    if devices > MOST_DEVICES:
        raise ValueError(
            f"devices.count is {devices}; power control of a cell-free uplink is for at most "
            f"{MOST_DEVICES}"
        )


def check_one_emulator(pieces: MethodPieces, where: str) -> None:
    """Refuse an allocation where no single emulator has all links.

    Raises:
        FadelabError: USAGE.

    """
    if pieces.allocation is not None:
        raise FadelabError(
            ExitCode.USAGE,
            f"the method sets all devices' powers at once, which needs one emulator for all links; "
            f"{where} has several: run it locally or in containers",
        )
