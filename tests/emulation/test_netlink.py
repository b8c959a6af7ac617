"""What the encoders say is what the kernel holds, told by an independent reader."""

import errno
import sys
from typing import Any

import pytest
from sandboxed import in_sandbox, make_backend, make_tick

from fadelab_emulation.backends.topology import SERVER_ADDRESS, device_address, hub_index
from fadelab_emulation.netlink import links, traffic
from fadelab_emulation.netlink.message import (
    NetlinkError,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    string,
)

pyroute2 = pytest.importorskip("pyroute2")


def test_attributes_are_padded_and_read_back() -> None:
    data = string(1, "htb") + attribute(2, b"\x01\x02\x03\x04\x05") + nested(3, attribute(1, b"x"))
    assert len(data) % 4 == 0
    found = list(attributes(data, 0))
    assert found[:2] == [(1, b"htb\0"), (2, b"\x01\x02\x03\x04\x05")]
    assert list(attributes(found[2][1], 0)) == [(1, b"x")]


def test_a_torn_attribute_ends_the_reading() -> None:
    assert list(attributes(b"\x01\x00\x01\x00\xff", 0)) == []


def kernel_view() -> dict[str, Any]:
    backend = make_backend(2, 1e6)
    backend.apply(make_tick(2, 3e6, loss_up=0.25))
    index = hub_index(1)
    with pyroute2.IPRoute() as kernel:
        link = kernel.get_links(index)[0]
        qdiscs = {q.get("kind"): q for q in kernel.get_qdiscs(index)}
        classes = {c.get_attr("TCA_KIND"): c for c in kernel.get_classes(index)}
        htb = classes["htb"].get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")
        return {
            "name": link.get("ifname"),
            "gso": link.get("gso_max_segs"),
            "mac": link.get("address"),
            "kinds": sorted(qdiscs),
            "rate": htb["rate"],
            "limit": qdiscs["bfifo"].get_attr("TCA_OPTIONS"),
            "routes": [r.get("dst") for r in kernel.get_routes(oif=index)],
            "neighbours": [
                (n.get("dst"), n["state"]) for n in kernel.get_neighbours(ifindex=index)
            ],
            "filters": [f.get("kind") for f in kernel.get_filters(index, parent=0xFFFFFFF2)],
            "address": [a.get("address") for a in kernel.get_addr(index=1)],
        }


@pytest.mark.namespaces
def test_the_kernel_holds_what_was_asked_for() -> None:
    view = in_sandbox(kernel_view)
    assert (view["name"], view["gso"], view["mac"]) == ("fl1", 1, "02:fa:de:00:00:01")
    assert {"tbf", "htb", "bfifo", "clsact"} <= set(view["kinds"])
    assert view["rate"] == 3_000_000 // 8
    limit = bytes.fromhex(view["limit"].replace(":", ""))  # this reader leaves it as it came
    assert int.from_bytes(limit, sys.byteorder) == 8 * traffic.MTU_FRAME_BYTES
    assert device_address(1) in view["routes"]
    assert (device_address(1), 0x80) in view["neighbours"]
    assert "bpf" in view["filters"]
    assert SERVER_ADDRESS in view["address"]


def refused_changes() -> list[tuple[int | None, str]]:
    found = []
    with NetlinkSocket() as netlink:
        good, bad = links.set_up(1), links.add_route(1, "10.0.0.1", "10.9.9.9")
        for batch in ([bad], [good, bad, good], [good] * 3000 + [bad]):
            try:
                netlink.change(batch)
            except NetlinkError as error:
                found.append((error.errno, error.operation))
        netlink.change([good])
        try:
            netlink.query([traffic.read_shaper(999)])
        except NetlinkError as error:
            found.append((error.errno, error.operation))
    return found


@pytest.mark.namespaces
def test_a_refusal_names_the_request_wherever_it_stands_in_a_batch() -> None:
    route = (errno.EINVAL, "add route to 10.0.0.1")
    assert in_sandbox(refused_changes) == [
        route,
        route,
        route,
        (errno.ENODEV, "read the shaper of interface 999"),
    ]
