"""What is remembered of links in others' networks, and who may remove what."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from sandboxed import in_sandbox

from fadelab_emulation.attach import places
from fadelab_emulation.attach.checks import remove_orphans
from fadelab_emulation.attach.interfaces import list_interfaces
from fadelab_emulation.attach.journal import Journal, has_living_owner, remove_leftovers
from fadelab_emulation.attach.places import (
    MissingCapabilityError,
    RefusedPlaceError,
    check_capabilities,
    find_place,
    open_place,
)
from fadelab_emulation.attach.undo import ALIAS, MadeLink, NamespaceName
from fadelab_emulation.namespaces import NetworkNamespace, create_namespaces
from fadelab_emulation.netlink import links
from fadelab_emulation.netlink.message import NetlinkSocket
from fadelab_emulation.sandbox import (
    ForeignNamespaceError,
    adopt_network,
    assert_private_namespace,
)

GONE = NamespaceName(label="the container x", path=Path("/proc/0/ns/net"), identity=(1, 2))


def test_a_journal_of_the_living_is_left_alone_and_one_of_the_dead_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write([MadeLink(place=GONE, index=5, name="fl0")])
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["pid"] == os.getpid()
    assert has_living_owner(journal.alias, tmp_path)
    assert remove_leftovers(tmp_path) == []
    assert path.exists()
    journal._locks = [os.close(lock) for lock in journal._locks][:0]  # as the kernel does at death
    assert remove_leftovers(tmp_path) == []
    assert not path.exists()
    assert not has_living_owner(journal.alias, tmp_path)


def test_a_journal_is_gone_when_its_process_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    journal.remove()


def test_a_journal_that_cannot_be_read_is_not_acted_upon(tmp_path: Path) -> None:
    (tmp_path / "emulate-0.json").write_text('{"pid": 1, "traces": [{"kind": "all"}]}')
    assert remove_leftovers(tmp_path) == []
    assert list(tmp_path.iterdir()) != []


def pair(namespace: NetworkNamespace, index: int, name: str) -> None:
    here = links.VethEnd(name, index, index.to_bytes(6, "big"))
    there = links.VethEnd(f"{name}-far", index + 1, (index + 1).to_bytes(6, "big"))
    namespace.netlink.change([links.create_veth(here, there, namespace.descriptor)])


def leftovers(folder: str) -> dict[str, Any]:
    ((namespace, _),) = create_namespaces(1, lambda: None)
    pair(namespace, 10, "ours")
    pair(namespace, 20, "theirs")
    pair(namespace, 30, "renumbered")
    pair(namespace, 40, "unnoted")
    namespace.netlink.change(
        [
            links.set_alias(10, f"{ALIAS} emulate-1"),
            links.set_alias(20, "somebody's"),
            links.set_alias(40, f"{ALIAS} emulate-nobody"),
        ]
    )
    status = os.fstat(namespace.descriptor)
    # Its path says nothing: a process that lives there is how it is found.
    place = GONE.model_copy(update={"identity": (status.st_dev, status.st_ino)})
    journal = Journal(Path(folder))
    names = [(10, "ours"), (20, "theirs"), (31, "renumbered"), (50, "never made")]
    journal.write([MadeLink(place=place, index=index, name=name) for index, name in names])
    for lock in journal._locks:
        os.close(lock)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        namespace.enter()
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    while not find_place("it", place.path, place.identity):
        os.sched_yield()
    said = remove_leftovers(Path(folder))
    orphans = remove_orphans(namespace.netlink)
    os.close(writer)
    os.waitpid(child, 0)
    left = sorted(one.name for one in list_interfaces(namespace.netlink))
    return {"said": said, "orphans": orphans, "left": left}


@pytest.mark.namespaces
def test_only_what_is_ours_is_removed(tmp_path: Path) -> None:
    seen = in_sandbox(leftovers, str(tmp_path))
    assert seen["said"] == ["ours in the container x"]
    assert seen["orphans"] == ["unnoted"]
    assert seen["left"] == sorted(["lo", "theirs", "theirs-far", "renumbered", "renumbered-far"])


def adoption() -> list[bool]:
    """Return whether links may be made: in the sandbox, in another network, once it is adopted."""
    ((namespace, _),) = create_namespaces(1, lambda: None)

    def may() -> bool:
        try:
            assert_private_namespace()
        except ForeignNamespaceError:
            return False
        return True

    seen = [may(), namespace.run(may)]
    adopt_network(namespace.descriptor)
    return [*seen, namespace.run(may), may()]


@pytest.mark.namespaces
def test_another_network_must_be_adopted_first() -> None:
    assert in_sandbox(adoption) == [True, False, True, True]


def test_without_a_sandbox_nothing_is_ours() -> None:
    with pytest.raises(ForeignNamespaceError, match="did not make"):
        assert_private_namespace()


def test_places_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedPlaceError, match=r"there is no container x: .* does not exist"):
        open_place("the container x", tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(RefusedPlaceError, match="is not a network namespace"):
        open_place("the namespace x", tmp_path / "file")
    with pytest.raises(RefusedPlaceError, match="is not a network namespace"):
        open_place("the namespace x", Path("/proc/self/ns/mnt"))


def test_without_capabilities_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "may_administer", lambda: False)
    with pytest.raises(
        MissingCapabilityError, match="CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root"
    ):
        check_capabilities()


def test_this_network_has_a_loopback_interface() -> None:
    with NetlinkSocket() as netlink:
        (loopback,) = [one for one in list_interfaces(netlink) if one.name == "lo"]
    assert loopback.is_loopback
    assert loopback.index == links.LOOPBACK_INDEX
