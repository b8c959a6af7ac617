"""Address translation between a node's links and the network that leads to the server.

Devices know the server by an address of their links; beyond the node nobody knows theirs. A node
does what a mobile network's gateway does (RFC 3022): it puts the server's real address into what
devices send, and its own in place of the devices'.

Written after include/uapi/linux/netfilter/nf_tables.h and nf_nat.h.
"""

import errno
import ipaddress
import struct
from pathlib import Path

from fadelab_emulation.netlink.message import (
    NETLINK_NETFILTER,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    nested,
    string,
)
from fadelab_emulation.netlink.nftables import expression, number, table_request, transact

_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_TABLE = "fadelab-gateway"
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_PREROUTING, _FORWARD, _POSTROUTING = 0, 2, 4
_BEFORE_ROUTING, _FILTERING, _AFTER_ROUTING = -100, 0, 100
"""NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER and NF_IP_PRI_NAT_SRC of netfilter_ipv4.h."""
_DROP, _ACCEPT = 0, 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_VERDICT_REGISTER, _REGISTER = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_SOURCE_AT, _DESTINATION_AT, _DESTINATION_PORT_AT = 12, 16, 2
"""Bytes from the beginning of an IPv4 header (RFC 791), and of a TCP or UDP header."""
_EQUAL = 0
_NAT_DESTINATION = 1
_AF_INET = 2
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def translate(links: str, port: int, server: str) -> None:
    """Lead what devices send to the server's port on, and nothing else, in the calling thread's network.

        chain prerouting, type nat:    ip daddr LINKS.0.1 th dport PORT dnat to SERVER
        chain postrouting, type nat:   ip saddr LINKS.0.0/16 ip daddr SERVER masquerade
        chain forward, policy drop:    ip saddr LINKS.0.0/16 ip daddr SERVER accept
                                       ip saddr SERVER ip daddr LINKS.0.0/16 accept

    Args:
        links: the first two numbers of all addresses of links, such as ``10.77``.
        port: the server's, TCP and UDP, the same at both addresses.
        server: its IPv4 address.

    Raises:
        NetlinkError: the kernel lacks nf_tables or its address translation.
        PermissionError: the network does not forward, and may not be told to.

    """
    _allow_forwarding()
    operation = (
        "translate addresses, for which the kernel needs nf_tables (CONFIG_NFT_NAT, "
        "CONFIG_NFT_MASQ; try `modprobe nft_masq`)"
    )
    ours = ipaddress.IPv4Address(f"{links}.0.0").packed[:2]
    hub, there = (ipaddress.IPv4Address(one).packed for one in (f"{links}.0.1", server))
    from_us, to_us = _field(_SOURCE_AT, ours), _field(_DESTINATION_AT, ours)
    from_there, to_there = _field(_SOURCE_AT, there), _field(_DESTINATION_AT, there)
    to_port = _compare(_TRANSPORT_HEADER, _DESTINATION_PORT_AT, struct.pack(">H", port))
    rules = {
        "prerouting": [[*_field(_DESTINATION_AT, hub), *to_port, *_destination_becomes(there)]],
        "postrouting": [[*from_us, *to_there, expression("masq", b"")]],
        "forward": [[*from_us, *to_there, _accept()], [*from_there, *to_us, _accept()]],
    }
    requests = [
        table_request(operation, _NEWTABLE, string(_TABLE_NAME, _TABLE)),
        table_request(operation, _NEWCHAIN, _chain("prerouting", "nat", _PREROUTING)),
        table_request(operation, _NEWCHAIN, _chain("postrouting", "nat", _POSTROUTING)),
        table_request(operation, _NEWCHAIN, _chain("forward", "filter", _FORWARD)),
        *(
            table_request(operation, _NEWRULE, _rule(chain, rule))
            for chain, found in rules.items()
            for rule in found
        ),
    ]
    _commit(operation, requests)


def _commit(operation: str, requests: list[Request]) -> None:
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            transact(netlink, requests)
    except OSError as error:
        raise NetlinkError(error.errno or errno.EOPNOTSUPP, operation, "") from error


def _allow_forwarding() -> None:
    if _FORWARDING.read_text().strip() == "1":
        return
    try:
        _FORWARDING.write_text("1")
    except OSError as error:
        raise PermissionError(
            f"this container's network does not forward packets ({error.strerror}): give it the "
            "sysctl net.ipv4.ip_forward=1"
        ) from None


_PLACES = {
    "prerouting": _BEFORE_ROUTING,
    "postrouting": _AFTER_ROUTING,
    "forward": _FILTERING,
}


def _chain(name: str, kind: str, hook: int) -> bytes:
    priority = struct.pack(">i", _PLACES[name])
    policy = _DROP if hook == _FORWARD else _ACCEPT
    return (
        string(_CHAIN_TABLE, _TABLE)
        + string(_CHAIN_NAME, name)
        + nested(_CHAIN_HOOK, number(_HOOK_NUMBER, hook) + attribute(_HOOK_PRIORITY, priority))
        + number(_CHAIN_POLICY, policy)
        + string(_CHAIN_TYPE, kind)
    )


def _rule(chain: str, expressions: list[bytes]) -> bytes:
    return (
        string(_RULE_TABLE, _TABLE)
        + string(_RULE_CHAIN, chain)
        + nested(_RULE_EXPRESSIONS, *expressions)
    )


def _field(at: int, value: bytes) -> list[bytes]:
    """Return what goes on if the IPv4 header has this value there."""
    return _compare(_NETWORK_HEADER, at, value)


def _compare(header: int, at: int, value: bytes) -> list[bytes]:
    load = number(1, _REGISTER) + number(2, header) + number(3, at) + number(4, len(value))
    data = nested(3, attribute(1, value))
    return [
        expression("payload", load),
        expression("cmp", number(1, _REGISTER) + number(2, _EQUAL) + data),
    ]


def _destination_becomes(address: bytes) -> list[bytes]:
    load = number(1, _REGISTER) + nested(2, attribute(1, address))
    change = number(1, _NAT_DESTINATION) + number(2, _AF_INET) + number(3, _REGISTER)
    return [expression("immediate", load), expression("nat", change)]


def _accept() -> bytes:
    verdict = nested(2, nested(2, number(1, _ACCEPT)))
    return expression("immediate", number(1, _VERDICT_REGISTER) + verdict)
