"""Places opened and checked, and the links that are to be made there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fadelab.emulate.config import EmulateFile
from fadelab.emulate.finder import Finder
from fadelab_emulation import linux
from fadelab_emulation.attach.attached import AttachedLinks, Attachment, Unimpaired
from fadelab_emulation.attach.checks import (
    check_apart,
    check_interface,
    check_machine_is_meant,
    check_name_is_free,
    describe,
    remove_orphans,
)
from fadelab_emulation.attach.foreign_star import FIRST_DEVICE_INDEX, FIRST_HUB_INDEX, ForeignStar
from fadelab_emulation.attach.journal import AnyTrace, Journal
from fadelab_emulation.attach.places import Place, RefusedPlaceError
from fadelab_emulation.attach.undo import MadeLink
from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.factory import make_kernel_backend
from fadelab_emulation.backends.impairment.netem import delay_line
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.backends.plan import LinkPlan
from fadelab_emulation.backends.topology import DeviceEnd, Layout
from fadelab_emulation.byte_watch import WatchedEnd
from fadelab_emulation.namespaces import NetworkNamespace
from fadelab_proto.clock import Clock


@dataclass(frozen=True, slots=True)
class Opened:
    """A place and its namespace, entered."""

    place: Place
    namespace: NetworkNamespace

    @classmethod
    def of(cls, place: Place, tell: Callable[[str], None]) -> "Opened":
        """Enter a place and remove what a killed process has left there."""
        opened = cls(place, place.namespace())
        for name in remove_orphans(opened.namespace.netlink):
            tell(f"removed {name} in {place.label}, left behind by a killed `fadelab emulate`")
        return opened


class StarSite:
    """New links between a server's namespace and the devices'.

    Raises:
        RefusedPlaceError: a place or a name in it cannot be used; nothing was changed.
        MissingCapabilityError: a place may not be entered.

    """

    def __init__(self, file: EmulateFile, finder: Finder, tell: Callable[[str], None]) -> None:
        assert file.server is not None
        self._file = file
        self._tell = tell
        places = [finder.find(one) for one in (file.server, *file.devices)]
        check_machine_is_meant(places, allow_host=file.allow_host)
        check_apart(places)
        self.server, *self.devices = [Opened.of(place, tell) for place in places]
        self._layout = Layout(file.network, FIRST_HUB_INDEX)
        for device, opened in enumerate(self.devices):
            server = self.server
            check_name_is_free(server.place.label, server.namespace.netlink, f"fl{device}")
            self._check_device(device, opened)
        self._star: ForeignStar | None = None

    @property
    def server_address(self) -> str:
        """Where devices reach the server."""
        return self._layout.server_address

    @property
    def ends(self) -> list[WatchedEnd]:
        """The devices' ends of their links."""
        layout = self._layout
        return [
            WatchedEnd(FIRST_DEVICE_INDEX + device, layout.device_address(device))
            for device in range(len(self.devices))
        ]

    def traces(self, variant: Variant) -> list[AnyTrace]:
        """Return what links leave behind if nobody removes them."""
        delayed = variant in (Variant.NETEM, Variant.NETEM_CBPF, Variant.NETEM_EBPF)
        traces: list[AnyTrace] = []
        for device, opened in enumerate(self.devices):
            index = self._layout.hub_index(device)
            here, there = describe(self.server.place), describe(opened.place)
            traces.append(MadeLink(place=here, index=index, name=f"fl{device}"))
            if delayed:
                for place, end in ((here, index), (there, FIRST_DEVICE_INDEX + device)):
                    line_index, line_name = delay_line(end)
                    traces.append(MadeLink(place=place, index=line_index, name=line_name))
        return traces

    def make(
        self, variant: Variant, plan: LinkPlan, clock: Clock, journal: Journal
    ) -> KernelBackend:
        """Make the links and continue in the server's namespace; threads to come follow."""
        linux.setns(self.server.namespace.descriptor, linux.CLONE_NEWNET)
        ends = [
            DeviceEnd(
                opened.namespace,
                FIRST_DEVICE_INDEX + device,
                self._file.devices[device].new_interface,
            )
            for device, opened in enumerate(self.devices)
        ]
        self._star = ForeignStar(self.server.namespace.netlink, ends, self._layout, journal.alias)
        return make_kernel_backend(variant, plan, clock, self._star)

    def reopen(self, device: int, place: Place) -> Opened | None:
        """Take note of the place that a device is in now and return it, unless it is none new.

        Raises:
            RefusedPlaceError: the new place cannot be used.
            MissingCapabilityError: it may not be entered.

        """
        if place.identity in {opened.place.identity for opened in self.devices}:
            place.close()
            return None
        opened = Opened.of(place, self._tell)
        self._check_device(device, opened)
        self.devices[device] = opened
        return opened

    def move(self, device: int, opened: Opened, backend: KernelBackend) -> None:
        """Make a device's link anew where the device is now; in the back-end's thread."""
        assert self._star is not None
        self._star.move(device, opened.namespace)
        backend.renew(device)

    def _check_device(self, device: int, opened: Opened) -> None:
        name = self._file.devices[device].new_interface
        check_name_is_free(opened.place.label, opened.namespace.netlink, name)


class AttachedSite:
    """Interfaces that exist; raises as :class:`StarSite` does."""

    server_address = ""

    def __init__(self, file: EmulateFile, finder: Finder, tell: Callable[[str], None]) -> None:
        places = [finder.find(one) for one in file.devices]
        check_machine_is_meant(places, allow_host=file.allow_host)
        self.devices: Sequence[Opened] = [Opened.of(place, tell) for place in places]
        self._attachments: list[Attachment] = []
        seen: set[tuple[tuple[int, int], str]] = set()
        for opened, one in zip(self.devices, file.devices, strict=True):
            assert one.attach is not None
            place = opened.place
            if (place.identity, one.attach) in seen:
                raise RefusedPlaceError(f"{one.attach} in {place.label} is given to two devices")
            seen.add((place.identity, one.attach))
            facts = check_interface(place, opened.namespace.netlink, one.attach)
            self._attachments.append(Attachment(opened.namespace, facts))

    def traces(self, variant: Variant) -> list[AnyTrace]:  # noqa: ARG002 -- as of a star
        """Return what has to be restored if nobody does."""
        return [attachment.facts for attachment in self._attachments]

    def make(
        self,
        variant: Variant,  # noqa: ARG002 -- as of a star
        plan: LinkPlan,
        clock: Clock,
        journal: Journal,
    ) -> KernelBackend:
        """Install the shapers."""
        links = AttachedLinks(self._attachments, journal.alias)
        return KernelBackend(plan, Unimpaired(), clock, links=links)
