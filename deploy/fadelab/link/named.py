"""Network namespaces with names, in which any program can be started: `ip netns exec NAME ...`.

Links called NAME are one namespace for their server's end, ``fadelab-NAME``, and one for every
device's, ``fadelab-NAME-0`` and so on, pinned in /run/netns as `ip netns add` does (ip-netns(8)).
Each bears a mark, the alias of its loopback interface: a namespace without it is somebody else's.
"""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.link.job import MOST_DEVICES
from fadelab_emulation import linux
from fadelab_emulation.namespaces import in_new_thread
from fadelab_emulation.netlink.links import (
    LOOPBACK_INDEX,
    delete_link,
    parse_link,
    read_link,
    set_alias,
    set_up,
)
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.netlink.nftables import remove_rejections

RUN_DIR = Path("/run/netns")

_PREFIX = "fadelab-"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FILE = re.compile(rf"{_PREFIX}({_NAME.pattern})(?:-(0|[1-9][0-9]*))?")
_MARK = "made by fadelab link create"
_INTERFACE = re.compile(r"fl\d+|eth0|delay\d+")
"""What back-ends make: links, and delay lines beside them."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Links that exist."""

    name: str
    devices: int
    whole: bool
    """False for what a killed command left of them."""
    driven: bool

    def as_json(self) -> dict[str, object]:
        """Return it for ``--json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Held:
    """Namespaces that are open and that no other process drives meanwhile; descriptors."""

    hub: int
    devices: Sequence[int]

    def remove_links(self) -> None:
        """Remove all links inside, also those that a killed process left."""
        for descriptor in (self.hub, *self.devices):
            in_new_thread(partial(_remove_links, descriptor))


def create(name: str, devices: int) -> None:
    """Make the namespaces of links called ``name``, without links for now; all of them or none.

    Raises:
        FadelabError: USAGE for a name that cannot be or exists; ENVIRONMENT without root.

    """
    _check_name(name)
    _check_root("create")
    if not 1 <= devices <= MOST_DEVICES:
        raise FadelabError(
            ExitCode.USAGE, f"there can be 1 to {MOST_DEVICES} devices, not {devices}"
        )
    there = _files(name)
    if there:
        raise FadelabError(
            ExitCode.USAGE,
            f"{there[0].name} exists already in {RUN_DIR}; remove it with "
            f"`fadelab link delete {name}`",
        )
    made: list[Path] = []
    try:
        _prepare_run_dir()
        # The server's end comes last: where it exists, all are there.
        for path in (*(_device_path(name, device) for device in range(devices)), _path(name)):
            in_new_thread(partial(_pin, path))
            made.append(path)
    except OSError as error:
        for path in made:
            _unpin(path)
        _refuse_by_kernel("make network namespaces", error)


def delete(name: str) -> None:
    """Remove the namespaces of links called ``name``, and the links inside; all of them or none.

    A process that is still inside keeps its namespace, without a name and without a link.

    Raises:
        FadelabError: USAGE for an unknown name, for namespaces that Fadelab did not make and for
            links that are being driven; ENVIRONMENT without root.

    """
    _check_name(name)
    _check_root("delete")
    files = _files(name)
    if not files:
        _refuse_unknown(name)
    with contextlib.ExitStack() as opened:
        spaces = [opened.enter_context(_opened(path)) for path in files if _is_pinned(path)]
        for descriptor in spaces:
            _lock(descriptor, name)
        try:
            for descriptor in spaces:
                in_new_thread(partial(_remove_links, descriptor))
            for path in reversed(files):
                _unpin(path)
        except OSError as error:
            _refuse_by_kernel("remove network namespaces", error)


def listing() -> list[Listed]:
    """Return all links that exist; anybody may ask, but only root is told others' from ours."""
    found: dict[str, list[Path]] = {}
    for path, name in _all_files():
        if os.geteuid() == 0 and _is_pinned(path) and not _is_own(path):
            continue
        found.setdefault(name, []).append(path)
    return [
        Listed(
            name=name,
            devices=len([path for path in files if path != _path(name)]),
            whole=_path(name) in files,
            driven=any(_is_locked(path) for path in files),
        )
        for name, files in sorted(found.items())
    ]


def own_names() -> list[str]:
    """Return the names of all links that Fadelab made; others' namespaces are passed over.

    Raises:
        FadelabError: ENVIRONMENT without root.

    """
    _check_root("delete")
    return sorted({name for path, name in _all_files() if _is_own(path)})


@contextlib.contextmanager
def hold(name: str) -> Iterator[Held]:
    """Open the namespaces of links called ``name`` to drive them, and keep others from it.

    Raises:
        FadelabError: as :func:`delete` does.

    """
    _check_name(name)
    _check_root("drive")
    files = _files(name)
    if not files:
        _refuse_unknown(name)
    if files[0] != _path(name):
        raise FadelabError(
            ExitCode.USAGE,
            f"the namespaces of {name!r} are not all there: remove them with "
            f"`fadelab link delete {name}` and make them anew",
        )
    with contextlib.ExitStack() as opened:
        hub, *devices = [opened.enter_context(_opened(path)) for path in files]
        for descriptor in (hub, *devices):
            _lock(descriptor, name)
        yield Held(hub, devices)


# -- names ---------------------------------------------------------------------------------------


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise FadelabError(
            ExitCode.USAGE,
            f"{name!r} cannot be a name of links: it must be a small letter and up to 31 more, "
            "digits or '_'",
        )


def _check_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise FadelabError(
            ExitCode.ENVIRONMENT,
            f"`fadelab link {verb}` needs root, for named network namespaces belong to the whole "
            "machine; `fadelab link run` puts programs behind links without it",
        )


def _path(name: str) -> Path:
    return RUN_DIR / f"{_PREFIX}{name}"


def _device_path(name: str, device: int) -> Path:
    return RUN_DIR / f"{_PREFIX}{name}-{device}"


def _all_files() -> list[tuple[Path, str]]:
    """Return what is named as ours is: the server's end first, then the devices in order."""
    found: list[tuple[str, int, Path]] = []
    with contextlib.suppress(FileNotFoundError):
        for path in RUN_DIR.iterdir():
            parts = _FILE.fullmatch(path.name)
            if parts is not None:
                found.append((parts[1], -1 if parts[2] is None else int(parts[2]), path))
    return [(path, name) for name, _, path in sorted(found)]


def _files(name: str) -> list[Path]:
    return [path for path, its_name in _all_files() if its_name == name]


def _refuse_unknown(name: str) -> NoReturn:
    names = ", ".join(listed.name for listed in listing()) or "none at all"
    raise FadelabError(ExitCode.USAGE, f"there are no links called {name!r}; there are: {names}")


def _refuse_by_kernel(what: str, error: OSError) -> NoReturn:
    if error.errno in (errno.EPERM, errno.EACCES):
        raise FadelabError(
            ExitCode.ENVIRONMENT,
            f"this machine does not let root {what}: the capabilities CAP_SYS_ADMIN and "
            "CAP_NET_ADMIN are needed, which containers often lack",
        ) from error
    raise FadelabError(ExitCode.ENVIRONMENT, f"cannot {what}: {error}") from error


# -- pins and marks ------------------------------------------------------------------------------


def _prepare_run_dir() -> None:
    """Make the folder as iproute2 does: mounts in it show in all mount namespaces."""
    RUN_DIR.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = str(RUN_DIR)
    try:
        linux.mount("", folder, "none", linux.MS_SHARED | linux.MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        linux.mount(folder, folder, "none", linux.MS_BIND | linux.MS_REC)
        linux.mount("", folder, "none", linux.MS_SHARED | linux.MS_REC)


def _pin(path: Path) -> None:
    """Make a marked namespace with a name; in a thread of its own."""
    linux.unshare(linux.CLONE_NEWNET)
    with NetlinkSocket() as netlink:
        netlink.change([set_alias(LOOPBACK_INDEX, _MARK), set_up(LOOPBACK_INDEX)])
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    try:
        linux.mount("/proc/thread-self/ns/net", str(path), "none", linux.MS_BIND)
    except OSError:
        path.unlink()
        raise


def _unpin(path: Path) -> None:
    if _is_pinned(path):
        linux.unmount(str(path))
    path.unlink()


def _is_pinned(path: Path) -> bool:
    """Say whether a namespace is mounted there, not only the empty file for one."""
    return path.stat().st_dev != RUN_DIR.stat().st_dev or path.stat().st_size > 0


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of a namespace that Fadelab made; FadelabError for another's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not in_new_thread(partial(_is_marked, descriptor)):
            raise FadelabError(ExitCode.USAGE, f"{path} was not made by Fadelab and is left alone")
        yield descriptor
    except OSError as error:
        _refuse_by_kernel(f"enter {path.name}", error)
    finally:
        os.close(descriptor)


def _is_own(path: Path) -> bool:
    with contextlib.suppress(FadelabError), _opened(path):
        return True
    return False


def _is_marked(descriptor: int) -> bool:
    try:
        linux.setns(descriptor, linux.CLONE_NEWNET)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a file of another kind
            return False
        raise
    with NetlinkSocket() as netlink:
        return parse_link(netlink.query([read_link(LOOPBACK_INDEX)])[0]).alias == _MARK


def _remove_links(descriptor: int) -> None:
    linux.setns(descriptor, linux.CLONE_NEWNET)
    with NetlinkSocket() as netlink:
        links = [parse_link(answer) for answer in netlink.dump(read_link())]
        netlink.change(
            [delete_link(one.interface) for one in links if _INTERFACE.fullmatch(one.name)]
        )
    remove_rejections()


# -- locks: one process at a time drives ---------------------------------------------------------


def _lock(descriptor: int, name: str) -> None:
    """Take a namespace's lock, which the kernel lets go of when its holder ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FadelabError(
            ExitCode.USAGE, f"the links {name!r} are being driven by another process; end it first"
        ) from None


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
