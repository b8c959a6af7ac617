"""Installing on boards: the wheel into a venv, certificates and tokens, systemd's units."""

import asyncio
import io
import shlex
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fadelab.boards.facts import BoardFacts, ask_facts, problems
from fadelab.boards.inventory import Inventory, Keeper
from fadelab.boards.ssh import Board, BoardError, Fleet
from fadelab.boards.wheel import pack_wheel
from fadelab.certificates import CertificatesError, make_certificates
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images.build import SOURCE
from fadelab_proto.tls import device_name

UNITS = ("fadelab-agent.service", "fadelab-link.service")
_UNITS_HERE = SOURCE / "deploy" / "boards"
_UNITS_THERE = "/etc/systemd/system"
_EXTRAS = "agent,command,emulation,server"
_INSTALL_S = 3600.0
"""A board may have to fetch torch over a slow network."""
_SECRET, _PUBLIC = 0o600, 0o644


@dataclass(frozen=True, slots=True)
class PushOrder:
    """What to install from."""

    wheels: Path | None = None
    """Folder of wheels that are taken rather than what an index has; sent to every board."""
    offline: bool = False
    """Whether wheels are all there is: boards ask no index."""


def make_trust(inventory: Inventory, days: int) -> bool:
    """Make certificates, keys and tokens for the inventory unless they are there; say if so.

    Raises:
        FadelabError: USAGE, if they cannot be made.

    """
    if (inventory.trust / "tokens.json").exists():
        return False
    try:
        make_certificates(
            inventory.trust,
            servers=[inventory.server.address],
            devices=len(inventory.boards),
            days=days,
        )
    except CertificatesError as error:
        raise FadelabError(ExitCode.USAGE, str(error)) from None
    return True


def trust_files(inventory: Inventory, device: int) -> list[Path]:
    """Return what a board needs of the trust folder, and nothing else. FadelabError: USAGE."""
    name = device_name(device)
    names = ("ca.pem", f"{name}.pem", f"{name}.key", f"{name}.token")
    found = [inventory.trust / each for each in names]
    for path in found:
        if not path.is_file():
            raise FadelabError(
                ExitCode.USAGE,
                f"there is no {path}: the folder was made for fewer boards; remove it, and "
                "`fadelab boards push` makes it anew",
            )
    return found


async def push(
    fleet: Fleet, order: PushOrder, scratch: Path, tell: Callable[[str], None]
) -> list[str]:
    """Install on all boards at the same time; return one sentence for each that failed."""
    trust = [trust_files(fleet.inventory, board.device) for board in fleet.boards]
    wheel = pack_wheel(scratch)
    failures = await fleet.connect()

    async def one(board: Board) -> None:
        failure = failures[board.device]
        if failure is not None:
            raise failure
        facts = await ask_facts(board)
        found = problems(board, facts)
        if found:
            raise BoardError(f"the board {board.name} is not fit: {'; '.join(found)}")
        await _install(board, facts, order, wheel=wheel, trust=trust[board.device])
        tell(f"{board.name}: installed in {facts.folder}")

    done = await asyncio.gather(*map(one, fleet.boards), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException) and not isinstance(result, BoardError):
            raise result
    return [str(result) for result in done if result is not None]


async def _install(
    board: Board, facts: BoardFacts, order: PushOrder, *, wheel: Path, trust: list[Path]
) -> None:
    folder = shlex.quote(facts.folder)
    await board.must(f"umask 077; mkdir -p {folder} && rm -rf {folder}/wheels {folder}/trust")
    files = {f"trust/{path.name}": (path.read_bytes(), _SECRET) for path in trust}
    for path in [wheel, *(sorted(order.wheels.glob("*.whl")) if order.wheels else [])]:
        files[f"wheels/{path.name}"] = path.read_bytes(), _PUBLIC
    await send_files(board, facts.folder, files)
    sees = "--system-site-packages " if board.profile.system_packages else ""
    python = shlex.quote(board.profile.python)
    await board.must(
        f"test -x {folder}/venv/bin/pip || {python} -m venv {sees}{folder}/venv",
        patience_s=_INSTALL_S,
    )
    pip = f"{folder}/venv/bin/python -m pip --disable-pip-version-check install --quiet"
    source = "--no-index " if order.offline else ""
    there = f"{folder}/wheels/{shlex.quote(wheel.name)}"
    # First what it depends on; then it alone, whose version may be that of other code.
    await board.must(
        f"{pip} {source}--find-links {folder}/wheels {there}'[{_EXTRAS}]' && "
        f"{pip} --no-index --no-deps --force-reinstall {there}",
        patience_s=_INSTALL_S,
    )
    if board.profile.keeper is Keeper.SYSTEMD:
        await _install_units(board, facts)


async def send_files(board: Board, folder: str, files: dict[str, tuple[bytes, int]]) -> None:
    """Write files, given with their modes, below a folder of the board. Raises BoardError."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    await board.must(
        f"tar --extract --no-same-owner --file - --directory {shlex.quote(folder)}",
        packed.getvalue(),
        patience_s=_INSTALL_S,
    )


async def _install_units(board: Board, facts: BoardFacts) -> None:
    user = (await board.must("id -un")).decode().strip()
    files = {}
    for name in UNITS:
        try:
            text = (_UNITS_HERE / name).read_text(encoding="utf-8")
        except OSError:
            raise BoardError(
                f"there is no {_UNITS_HERE / name}: units are installed from a checkout"
            ) from None
        text = text.replace("@USER@", user).replace("@FOLDER@", facts.folder)
        files[f"units/{name}"] = text.encode(), _PUBLIC
    await send_files(board, facts.folder, files)
    root = root_prefix(facts)
    sources = " ".join(f"{shlex.quote(facts.folder)}/units/{name}" for name in UNITS)
    await board.must(
        f"{root}install -m 644 {sources} {_UNITS_THERE}/ && {root}systemctl daemon-reload"
    )


def root_prefix(facts: BoardFacts) -> str:
    """Return what makes a shell command root's."""
    return "" if facts.is_root else "sudo -n "
