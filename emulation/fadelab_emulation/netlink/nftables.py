"""Messages for nf_tables: one table per namespace that rejects packets of closed interfaces.

Written after include/uapi/linux/netfilter/nf_tables.h. Integers are in network order; the key of
an interface is in the machine's own.
"""

import contextlib
import errno
import struct
from collections.abc import Sequence

from fadelab_emulation.netlink.message import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NetlinkError,
    NetlinkSocket,
    Request,
    attribute,
    find_attribute,
    nested,
    string,
)

_NLM_F_APPEND = 0x800
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET = 0, 2, 3, 6, 9
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14

_AF_INET = 2
_LIST_ELEMENT = 1
_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_TYPE = 1, 3, 4, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_LOCAL_IN = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_TYPE, _SET_KEY_LENGTH = 1, 2, 3, 4, 5
_SET_ID, _SET_EXPRESSION = 10, 17
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_EXPRESSION = 1, 7
_DATA_VALUE, _DATA_VERDICT, _VERDICT_CODE = 1, 2, 1
_COUNTER_PACKETS = 2
_HEADER = struct.Struct(">BBH")
_COUNT = struct.Struct(">Q")

_REGISTER_VERDICT, _REGISTER = 0, 1
_META_IIF, _META_L4PROTO = 4, 16
_EQUAL = 0
_ACCEPT = 1
_IPPROTO_ICMP = 1
_TRANSPORT_HEADER = 2
_DESTINATION_UNREACHABLE = 3
_ICMP_UNREACHABLE, _HOST_UNREACHABLE = 0, 1

_TABLE, _CHAIN = "fadelab", "windows"
_CLOSED, _PASSED = "closed", "passed"
_ELEMENTS_PER_MESSAGE = 1000
"""An attribute holds at most 64 KiB."""


class Rejections:
    """The closed interfaces of the calling thread's namespace, and who sends there regardless.

        chain windows, hook input:
            icmp type destination-unreachable accept
            iif @closed reject with icmp host-unreachable
            iif @passed                  (its elements count what came so far)

    News of a closed link travel over closed links. Raises NetlinkError where the kernel lacks
    nf_tables.
    """

    def __init__(self, interfaces: Sequence[int]) -> None:
        """Make the table; all interfaces are closed."""
        operation = (
            "reject packets of closed links, for which the kernel needs nf_tables "
            "(CONFIG_NF_TABLES_IPV4, CONFIG_NFT_REJECT_IPV4; try `modprobe nft_reject_ipv4`, or "
            "the window mode hold, drop or down)"
        )
        try:
            self._netlink = NetlinkSocket(NETLINK_NETFILTER)
            self._commit(
                [
                    table_request(operation, _NEWTABLE, string(_TABLE_NAME, _TABLE)),
                    table_request(operation, _NEWSET, _set(_CLOSED, 1)),
                    table_request(operation, _NEWSET, _set(_PASSED, 2) + _counting()),
                    table_request(operation, _NEWCHAIN, _input_chain()),
                    *(table_request(operation, _NEWRULE, _rule(rule)) for rule in _rules()),
                ]
            )
        except OSError as error:
            raise NetlinkError(error.errno or errno.EOPNOTSUPP, operation, "") from error
        self._change(_NEWSETELEM, _PASSED, interfaces)
        self.close_interfaces(interfaces)

    def close_interfaces(self, interfaces: Sequence[int]) -> None:
        """Reject what arrives on these interfaces."""
        self._change(_NEWSETELEM, _CLOSED, interfaces)

    def open_interfaces(self, interfaces: Sequence[int]) -> None:
        """Accept what arrives on these closed interfaces again."""
        self._change(_DELSETELEM, _CLOSED, interfaces)

    def passed(self, interfaces: Sequence[int]) -> list[int]:
        """Return how many packets, those news aside, each interface has let pass so far."""
        answers = self._netlink.query(
            [
                table_request("count packets", _GETSETELEM, _elements(_PASSED, [index]), flags=0)
                for index in interfaces
            ]
        )
        return [_packets(answer) for answer in answers]

    def release(self) -> None:
        """Close the socket; the table vanishes with the namespace."""
        self._netlink.close()

    def _change(self, kind: int, name: str, interfaces: Sequence[int]) -> None:
        self._commit(
            [
                table_request(
                    f"move interfaces in the set {name!r}",
                    kind,
                    _elements(name, interfaces[start : start + _ELEMENTS_PER_MESSAGE]),
                )
                for start in range(0, len(interfaces), _ELEMENTS_PER_MESSAGE)
            ]
        )

    def _commit(self, requests: Sequence[Request]) -> None:
        if requests:
            transact(self._netlink, requests)


def remove_rejections() -> None:
    """Remove the table that a killed process left in the calling thread's namespace, if any.

    Where the kernel lacks nf_tables there is none.
    """
    with contextlib.suppress(OSError), NetlinkSocket(NETLINK_NETFILTER) as netlink:
        table = string(_TABLE_NAME, _TABLE)
        # Made first, if need be, so that there is one to delete.
        make = table_request("make the table", _NEWTABLE, table)
        transact(netlink, [make, table_request("delete the table", _DELTABLE, table, flags=0)])


def transact(netlink: NetlinkSocket, requests: Sequence[Request]) -> None:
    """Carry out all of these requests or none. Raises NetlinkError."""
    begin = Request("begin a transaction", _BATCH_BEGIN, 0, _header(0, _SUBSYSTEM))
    end = Request("end a transaction", _BATCH_END, 0, _header(0, _SUBSYSTEM))
    netlink.commit(requests, begin, end)


def table_request(
    operation: str, kind: int, body: bytes, *, flags: int = NLM_F_CREATE | _NLM_F_APPEND
) -> Request:
    """Return a request about a table of IPv4, what it holds, or its rules."""
    if kind == _DELSETELEM:
        flags = 0
    return Request(operation, _SUBSYSTEM << 8 | kind, flags, _header(_AF_INET, 0) + body)


def _header(family: int, resource: int) -> bytes:
    return _HEADER.pack(family, 0, resource)


def number(kind: int, value: int) -> bytes:
    """Return an attribute that holds 32 bits, in network order as all of nf_tables."""
    return attribute(kind, struct.pack(">I", value))


def _set(name: str, identity: int) -> bytes:
    return (
        string(_SET_TABLE, _TABLE)
        + string(_SET_NAME, name)
        + number(_SET_FLAGS, 0)
        + number(_SET_KEY_TYPE, 0)
        + number(_SET_KEY_LENGTH, 4)
        + number(_SET_ID, identity)
    )


def _counting() -> bytes:
    """Have each element of a set count the packets that match it."""
    return nested(_SET_EXPRESSION, string(_EXPRESSION_NAME, "counter"))


def _input_chain() -> bytes:
    hook = number(_HOOK_NUMBER, _LOCAL_IN) + number(_HOOK_PRIORITY, 0)
    return (
        string(_CHAIN_TABLE, _TABLE)
        + string(_CHAIN_NAME, _CHAIN)
        + nested(_CHAIN_HOOK, hook)
        + string(_CHAIN_TYPE, "filter")
    )


def _rules() -> list[list[bytes]]:
    first_byte = number(2, _TRANSPORT_HEADER) + number(3, 0) + number(4, 1)
    news = [
        expression("meta", number(1, _REGISTER) + number(2, _META_L4PROTO)),
        _is(_IPPROTO_ICMP),
        expression("payload", number(1, _REGISTER) + first_byte),
        _is(_DESTINATION_UNREACHABLE),
    ]
    verdict = nested(_DATA_VERDICT, number(_VERDICT_CODE, _ACCEPT))
    accept = expression("immediate", number(1, _REGISTER_VERDICT) + nested(2, verdict))
    code = attribute(2, bytes([_HOST_UNREACHABLE]))
    reject = expression("reject", number(1, _ICMP_UNREACHABLE) + code)
    return [[*news, accept], [*_arrives_in(_CLOSED), reject], _arrives_in(_PASSED)]


def _is(value: int) -> bytes:
    """Return the expression that goes on if the register holds this byte."""
    data = nested(3, attribute(_DATA_VALUE, bytes([value])))
    return expression("cmp", number(1, _REGISTER) + number(2, _EQUAL) + data)


def _arrives_in(name: str) -> list[bytes]:
    return [
        expression("meta", number(1, _REGISTER) + number(2, _META_IIF)),
        expression("lookup", string(1, name) + number(2, _REGISTER)),
    ]


def expression(name: str, data: bytes) -> bytes:
    """Return one step of a rule."""
    return nested(_LIST_ELEMENT, string(_EXPRESSION_NAME, name), nested(_EXPRESSION_DATA, data))


def _rule(expressions: Sequence[bytes]) -> bytes:
    return (
        string(_RULE_TABLE, _TABLE)
        + string(_RULE_CHAIN, _CHAIN)
        + nested(_RULE_EXPRESSIONS, *expressions)
    )


def _elements(name: str, interfaces: Sequence[int]) -> bytes:
    elements = [
        nested(
            _LIST_ELEMENT,
            nested(_ELEMENT_KEY, attribute(_DATA_VALUE, struct.pack("=I", interface))),
        )
        for interface in interfaces
    ]
    return string(_LIST_TABLE, _TABLE) + string(_LIST_SET, name) + nested(_LIST_ELEMENTS, *elements)


def _packets(answer: bytes) -> int:
    """Return the counter of the one element in an answer."""
    at = _HEADER.size
    for kind in (_LIST_ELEMENTS, _LIST_ELEMENT, _ELEMENT_EXPRESSION, _EXPRESSION_DATA):
        at = find_attribute(answer, at, kind)
    return int(_COUNT.unpack_from(answer, find_attribute(answer, at, _COUNTER_PACKETS))[0])
