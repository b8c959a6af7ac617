"""The inventory: which boards there are, how they are reached, and what each one is."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import read_yaml
from fadelab.mistakes import describe
from fadelab_agent.config import ComputeConfig
from fadelab_agent.radio_config import InterfaceName, KernelRadioConfig, NoRadioConfig
from fadelab_proto.config import StrictModel

_Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$",
        description="at most 32 letters, digits, '_', '.' and '-'; a letter or digit first.",
    ),
]
# What stands in a shell's command line or before one must not be taken for anything else.
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]*$")]
_RemotePath = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_./-]+$",
        description="A path on the board, of letters, digits, '_', '.', '-' and '/'.",
    ),
]


class Keeper(StrEnum):
    """Who starts and ends the processes on a board."""

    SSH = "ssh"
    """They live as long as the command's connection to the board."""
    SYSTEMD = "systemd"
    """The units of deploy/boards, which a lost connection does not end."""


class EmulatedLink(StrictModel):
    """The board's interface is shaped after the experiment's radio section."""

    kind: Literal["emulated"] = "emulated"
    interface: InterfaceName = Field(
        description="The interface to the server that is shaped; never the one that SSH uses."
    )


LinkConfig = Annotated[
    EmulatedLink | NoRadioConfig | KernelRadioConfig, Field(discriminator="kind")
]


class DeviceProfile(StrictModel):
    """What boards of one kind have in common."""

    name: _Name
    link: LinkConfig = Field(description="How the board's link to the server comes about.")
    python: _RemotePath = Field(
        "python3", description="Python 3.11 or later, from which a venv is made."
    )
    folder: _RemotePath = Field(
        "fadelab", description="Where everything goes; relative to the user's home."
    )
    system_packages: bool = Field(
        default=False,
        description="Whether the venv sees the packages of the board's own Python, such as a "
        "vendor's torch.",
    )
    keeper: Keeper = Field(Keeper.SSH, description="Who starts and ends the processes.")
    compute: ComputeConfig | None = Field(
        None, description="Processor of the energy and time model, instead of the experiment's."
    )
    data_dir: _RemotePath | None = Field(
        None, description="Folder of data sets on the board; left out: as in the experiment."
    )


class BoardConfig(StrictModel):
    """One board and the way to it."""

    name: _Name
    profile: _Name
    host: _Word = Field(
        description="Name, address or ssh_config alias of its management side: letters, digits, "
        "'_', '.', ':' and '-', no '-' first."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Left out: as ssh_config says.")
    user: _Word | None = Field(
        None, description="Who logs in; left out: as ssh_config says. Letters, digits, '_', '-'."
    )
    identity: Path | None = Field(None, description="Private key; left out: as ssh_config says.")


class ServerPlace(StrictModel):
    """Where boards reach the server, which runs on the machine of the command."""

    address: _Word = Field(description="This machine's address or name on the data network.")
    port: int = Field(50051, ge=1, le=65535)


class Inventory(StrictModel):
    """Boards, in the order of their device numbers."""

    server: ServerPlace
    trust: Path = Field(
        description="Folder of certificates, keys and tokens; `fadelab boards push` makes it."
    )
    known_hosts: Path | None = Field(
        None, description="Host keys of the boards; left out: as ssh_config says."
    )
    profiles: list[DeviceProfile] = Field(min_length=1)
    boards: list[BoardConfig] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _names_are_known_and_apart(self) -> Self:
        known = [profile.name for profile in self.profiles]
        for what, names in (
            ("profiles", known),
            ("boards", [board.name for board in self.boards]),
        ):
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ValueError(f"two {what} are called {twice[0]}: give each its own name")
        for board in self.boards:
            if board.profile not in known:
                raise ValueError(
                    f"the board {board.name} has the profile '{board.profile}', which is none of "
                    f"the profiles: {', '.join(known)}"
                )
        return self

    def profile(self, board: BoardConfig) -> DeviceProfile:
        """Return what a board is."""
        return next(one for one in self.profiles if one.name == board.profile)


def load_inventory(path: Path) -> Inventory:
    """Read and check an inventory; its relative paths are relative to the file.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    tree = read_yaml(path, "inventory")
    try:
        found = Inventory.model_validate(tree)
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), Inventory)) from None
    base = path.absolute().parent
    boards = [
        board.model_copy(update={"identity": base / board.identity.expanduser()})
        if board.identity is not None
        else board
        for board in found.boards
    ]
    update: dict[str, object] = {"boards": boards, "trust": base / found.trust.expanduser()}
    if found.known_hosts is not None:
        update["known_hosts"] = base / found.known_hosts.expanduser()
    return found.model_copy(update=update)
