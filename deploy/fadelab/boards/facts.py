"""What boards tell of themselves, and what of it stands in the way of a run."""

import shlex
from pathlib import Path

from pydantic import Field, ValidationError

from fadelab.boards.inventory import EmulatedLink, Keeper
from fadelab.boards.ssh import Board, BoardError
from fadelab_proto.config import StrictModel

SCRIPT = Path(__file__).with_name("on_board.py")
_OLDEST_PYTHON = (3, 11)
_SPACE_BYTES = 3e9
"""A venv with torch for CPUs takes 1.5 GB, and its installation as much again for a while."""
_MTU_BYTES = 1500


class InterfaceFacts(StrictModel):
    """The interface that is to be shaped."""

    address: str | None = Field(description="Its IPv4 address.")
    mtu_bytes: int


class BoardFacts(StrictModel):
    """What ``on_board.py`` says."""

    python: tuple[int, int, int]
    has_venv: bool
    architecture: str
    kernel: str
    model: str | None
    folder: str = Field(description="Where Fadelab's files are or will be.")
    free_bytes: int
    modules: dict[str, bool | None] = Field(description="What the kernel has; null: unknown.")
    interface: InterfaceFacts | None
    ssh_address: str = Field(description="The board's end of the SSH connection.")
    is_root: bool
    may_be_root: bool
    systemd: bool
    sensors: list[str]
    installed: bool


def script_command(board: Board, *arguments: str) -> str:
    """Return the shell command that runs the script on a board."""
    words = [board.profile.python, "-c", SCRIPT.read_text(encoding="utf-8"), *arguments]
    return shlex.join(words)


async def ask_facts(board: Board) -> BoardFacts:
    """Ask a board. Raises BoardError."""
    link = board.profile.link
    interface = "" if link.kind == "none" else link.interface
    output = await board.must(script_command(board, "facts", board.profile.folder, interface))
    try:
        return BoardFacts.model_validate_json(output)
    except ValidationError:
        raise BoardError(
            f"the board {board.name} answered with something else than facts: {output[:80]!r}"
        ) from None


def problems(board: Board, facts: BoardFacts) -> list[str]:
    """Return one sentence for everything that a run on this board would fail of."""
    found = []
    if facts.python[:2] < _OLDEST_PYTHON:
        version = ".".join(map(str, facts.python))
        found.append(f"{board.profile.python} is Python {version}; 3.11 or later is needed")
    if not facts.has_venv:
        found.append("its Python lacks venv: `sudo apt install python3-venv`")
    if not facts.installed and facts.free_bytes < _SPACE_BYTES:
        found.append(f"only {facts.free_bytes / 1e9:.1f} GB are free, 3 GB are needed")
    if board.profile.keeper is Keeper.SYSTEMD and not facts.systemd:
        found.append("the profile says `keeper: systemd`, but systemd does not run there")
    if board.profile.keeper is Keeper.SYSTEMD and not facts.may_be_root:
        found.append(f"units are started by root: {_SUDO}")
    return found + _link_problems(board, facts)


_SUDO = "let the user use sudo without a password, or log in as root"


def _link_problems(board: Board, facts: BoardFacts) -> list[str]:
    link = board.profile.link
    if link.kind == "none":
        return []
    if facts.interface is None:
        return [f"there is no interface {link.interface}"]
    if not isinstance(link, EmulatedLink):
        return []
    found = []
    if not facts.may_be_root:
        found.append(f"links are shaped by root: {_SUDO}")
    missing = [name for name, there in facts.modules.items() if there is False]
    if missing:
        found.append(f"its kernel lacks {', '.join(missing)}")
    if facts.interface.mtu_bytes > _MTU_BYTES:
        found.append(f"{link.interface} has an MTU above {_MTU_BYTES} bytes")
    if facts.interface.address is not None and facts.interface.address == facts.ssh_address:
        found.append(
            f"SSH comes in over {link.interface}, which is to be shaped: give host an address of "
            "another interface"
        )
    return found
