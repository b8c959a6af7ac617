"""The file that ``fadelab emulate`` reads."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import read_yaml
from fadelab.mistakes import describe
from fadelab_emulation.sources import AnyRadio, link_source
from fadelab_proto.config import StrictModel

_InterfaceName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$",
        description="A letter, a digit or '_', then up to 14 of these, '.' or '-'.",
    ),
]
_NamespaceName = Annotated[
    str, Field(pattern=r"^[^/]+$", description="A name without '/', as `ip netns` knows it.")
]
_DEFAULT_INTERFACE = "fl0"


class Start(StrEnum):
    """When the timeline begins."""

    AT_ONCE = "at_once"
    ON_BEGIN = "on_begin"
    """When Emulator.Begin is called over the radio plane, as the launcher of a run does."""


class PlaceConfig(StrictModel):
    """A network namespace, by one of the names that it may have."""

    container: str | None = Field(
        None, min_length=1, description="Name or id of a running Docker container."
    )
    netns: _NamespaceName | None = Field(None, description="A name that `ip netns` knows.")
    netns_path: Path | None = Field(None, description="A file such as /proc/123/ns/net.")
    pid: int | None = Field(None, ge=1, description="A process that lives in it.")

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        names = self.names()
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)} name one place twice: give one of them")
        return self

    def names(self) -> list[str]:
        """Return the keys that name the place; none means the network of the command itself."""
        keys = ("container", "netns", "netns_path", "pid")
        return [key for key in keys if getattr(self, key) is not None]


class DeviceConfig(PlaceConfig):
    """A device: where it is, and either a new link there or an interface that exists."""

    interface: _InterfaceName | None = Field(
        None,
        description=f"Name of the device's end of a new link; left out: {_DEFAULT_INTERFACE}.",
    )
    attach: _InterfaceName | None = Field(
        None, description="Name of an interface that exists and is to be shaped."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.attach is not None and self.interface is not None:
            raise ValueError(
                f"'interface: {self.interface}' names a new link's end, 'attach: {self.attach}' an "
                "interface that exists: give one of them"
            )
        if self.attach is None and not self.names():
            raise ValueError(
                "a new link needs a place: give container, netns, netns_path or pid; or name an "
                "interface that exists by attach"
            )
        return self

    @property
    def new_interface(self) -> str:
        """The name of a new link's end."""
        return self.interface or _DEFAULT_INTERFACE


class WorldConfig(StrictModel):
    """The world that the devices of a file are a part of; others drive the rest of it."""

    devices: int = Field(ge=1, le=5000, description="Number of all devices.")
    drives: tuple[int, ...] = Field(
        min_length=1, description="Which of them the devices of this file are, in their order."
    )

    @model_validator(mode="after")
    def _each_is_one_of_all(self) -> Self:
        for device in self.drives:
            if not 0 <= device < self.devices:
                raise ValueError(
                    f"drives names device {device}, but all devices are 0 to {self.devices - 1}"
                )
        if len(set(self.drives)) < len(self.drives):
            raise ValueError("drives names a device twice")
        return self


class EmulateFile(StrictModel):
    """Links between places that others have made, and what they follow."""

    seed: int = Field(0, ge=0)
    duration_s: float | None = Field(
        None, gt=0, le=1e6, description="Emulated seconds; left out: until SIGTERM or SIGINT."
    )
    radio: AnyRadio = Field(description="Radio models or a timeline.")
    record: Path = Field(
        description="Folder to be made for the schedule, what was achieved and the events."
    )
    radio_socket: Path | None = Field(None, description="Unix socket to serve the radio plane on.")
    start: Start = Field(Start.AT_ONCE, description="When the timeline begins.")
    network: str = Field(
        "10.77",
        pattern=r"^(25[0-5]|2[0-4]\d|1?\d?\d)\.(25[0-5]|2[0-4]\d|1?\d?\d)$",
        description="The first two numbers of all addresses of new links, such as 10.77.",
    )
    allow_host: bool = Field(
        default=False, description="Whether the machine's own network may be touched, too."
    )
    of_run: bool = Field(
        default=False,
        description="Whether the links are those of a run, whose processes use them once the radio "
        "plane answers, and nobody else: then the record is the run's directory, links are "
        "calibrated beforehand, and bytes and delays are accounted.",
    )
    server: PlaceConfig | None = Field(None, description="Where new links end.")
    devices: list[DeviceConfig] = Field(min_length=1, max_length=1000)
    world: WorldConfig | None = Field(
        None, description="Given where several machines drive one world's links after one seed."
    )

    @property
    def world_devices(self) -> int:
        """Number of devices of the timeline."""
        return len(self.devices) if self.world is None else self.world.devices

    @property
    def attaches(self) -> bool:
        """Whether interfaces that exist are shaped; otherwise new links are made."""
        return self.devices[0].attach is not None

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        attached = [number for number, device in enumerate(self.devices) if device.attach]
        if attached and len(attached) < len(self.devices):
            other = next(n for n in range(len(self.devices)) if n not in attached)
            raise ValueError(
                f"device {attached[0]} attaches to an interface that exists and device {other} "
                "gets a new link: all devices must be of one kind; run two `fadelab emulate`"
            )
        if attached and self.server is not None:
            raise ValueError(
                "server is where new links end, but all devices attach to interfaces that exist: "
                "leave it out"
            )
        if not attached and (self.server is None or not self.server.names()):
            raise ValueError(
                "new links need a server: give its container, netns, netns_path or pid; or attach "
                "to interfaces that exist"
            )
        if self.world is not None and len(self.world.drives) != len(self.devices):
            raise ValueError(
                f"world.drives names {len(self.world.drives)} devices, but there are "
                f"{len(self.devices)} devices in this file: name each"
            )
        if self.world is not None and not attached:
            raise ValueError("world is for interfaces that exist: give every device an attach")
        if self.start is Start.ON_BEGIN and self.radio_socket is None:
            raise ValueError("start: on_begin needs a radio_socket over which Begin can be called")
        if self.of_run and (attached or self.start is not Start.ON_BEGIN):
            raise ValueError("of_run needs new links (a server) and start: on_begin")
        return self


def load_emulation(path: Path) -> EmulateFile:
    """Read and check a file.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    try:
        checked = EmulateFile.model_validate(read_yaml(path, "emulation"))
        link_source(checked.radio, checked.world_devices, checked.seed)
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path), EmulateFile)) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"{path}: cannot read {error.filename}: {error.strerror}."
        ) from None
    except ValueError as error:
        raise FadelabError(ExitCode.USAGE, f"{path}: {error}.") from None
    return checked
