"""Building the images of server, agent and emulator."""

import hashlib
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.images.docker_command import DockerCommand

DOCKERFILE = Path("deploy/docker/Dockerfile")
SOURCE = Path(__file__).parents[3]
"""The checkout that this package is part of, unless it was installed without one."""
_WHEELS_IMAGE = "fadelab-wheels"
CODE_LABEL, MATERIAL_LABEL = "fadelab.code", "fadelab.material"
CODE = (
    *("pyproject.toml", "constraints.txt", "README.md", "LICENSE"),
    *("proto", "server", "device_agent", "emulation", "deploy/fadelab", "deploy/docker"),
)
"""What images are made of, beside packages."""


class Target(StrEnum):
    """What an image is for; the Dockerfile's targets, in its order."""

    SERVER = "server"
    EMULATOR = "emulator"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What to build, and of what."""

    source: Path
    tag: str
    base: str | None = None
    """Image with glibc, Python 3.11 or later, venv and pip; None: the Dockerfile's own choice."""
    wheels: Path | None = None
    """Folder of wheels that are taken rather than what an index has."""
    offline: bool = False
    """Whether wheels are all there is: no index is asked."""
    network: str | None = None
    """The network of the build, such as ``host``; None: the engine's own."""

    def material(self) -> str:
        """Return all but source and tag, to be built of again."""
        wheels = None if self.wheels is None else str(self.wheels.absolute())
        return json.dumps(
            {"base": self.base, "wheels": wheels, "offline": self.offline, "network": self.network}
        )

    @classmethod
    def again(cls, material: str, source: Path, tag: str) -> "BuildOrder":
        """Return the order to build another source of the same material."""
        found = json.loads(material)
        wheels = None if found["wheels"] is None else Path(found["wheels"])
        return cls(
            source=source,
            tag=tag,
            base=found["base"],
            wheels=wheels,
            offline=found["offline"],
            network=found["network"],
        )


@dataclass(frozen=True, slots=True)
class Built:
    """An image that is there now."""

    image: str
    size_bytes: int
    seconds: float


def image_name(target: Target, tag: str) -> str:
    """Return what a target's image is called."""
    return f"fadelab-{target}:{tag}"


def build_images(
    order: BuildOrder, targets: Sequence[Target], hear: Callable[[str], None]
) -> Iterator[Built]:
    """Build images one by one; what has not changed the engine takes from its cache.

    Args:
        order: what to build of.
        targets: which images.
        hear: is told every line that the engine says.

    Raises:
        FadelabError: USAGE without sources or wheels, ENVIRONMENT without an engine,
            COMPONENT_FAILED with the engine's last words.

    """
    _check(order)
    docker = DockerCommand()
    arguments = ["--file", str(order.source / DOCKERFILE)]
    arguments += ["--label", f"{CODE_LABEL}={code_digest(order.source)}"]
    arguments += ["--label", f"{MATERIAL_LABEL}={order.material()}"]
    if order.base is not None:
        arguments += ["--build-arg", f"BASE={order.base}"]
    if order.wheels is not None:
        arguments += ["--build-arg", f"WHEELS={_wheels_image(docker, order.wheels)}"]
    network = order.network
    if order.offline:
        arguments += ["--build-arg", "PIP_NO_INDEX=1"]
        network = network or "none"
    if network is not None:
        arguments += ["--network", network]
    for target in targets:
        image = image_name(target, order.tag)
        begun_s = time.monotonic()
        docker.build(
            order.source, [*arguments, "--target", target, "--tag", image], hear, f"image {image}"
        )
        size_bytes = docker.size_bytes(image)
        assert size_bytes is not None
        yield Built(image, size_bytes, time.monotonic() - begun_s)


def code_digest(source: Path) -> str:
    """Return what tells the code of one image from that of another."""
    digest = hashlib.sha256()
    for part in CODE:
        top = source / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and path.parent.name != "__pycache__":
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(source)} {content}\n".encode())
    return digest.hexdigest()[:16]


def _check(order: BuildOrder) -> None:
    if not (order.source / DOCKERFILE).is_file():
        raise FadelabError(
            ExitCode.USAGE,
            f"{order.source} holds no {DOCKERFILE}: images are built from a checkout of Fadelab, "
            "name one with --source",
        )
    if order.wheels is not None and not any(order.wheels.glob("*.whl")):
        raise FadelabError(ExitCode.USAGE, f"--wheels {order.wheels}: there are no *.whl files")
    if order.offline and order.wheels is None:
        raise FadelabError(
            ExitCode.USAGE, "--offline asks no index, so everything must come from --wheels DIR"
        )


def _wheels_image(docker: DockerCommand, folder: Path) -> str:
    """Return an image with the folder's wheels, made anew if they have changed.

    An image, and not a part of the build's context, for that is sent to the engine at every build.
    """
    wheels = sorted(folder.glob("*.whl"))
    digest = hashlib.sha256()
    for wheel in wheels:
        facts = wheel.stat()
        digest.update(f"{wheel.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    image = f"{_WHEELS_IMAGE}:{digest.hexdigest()[:12]}"

    def write(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            for wheel in wheels:
                archive.add(wheel, f"wheels/{wheel.name}", filter=_nobodys)

    if docker.size_bytes(image) is None:
        docker.import_archive(image, write)
    return image


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out whose file it is, so that the same wheels are the same layer everywhere."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry
