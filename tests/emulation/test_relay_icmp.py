"""Host-unreachable answers, byte by byte."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipv4_packets import ICMP, TCP, ipv4, ports

from fadelab_emulation.backends.relay.icmp import checksum, host_unreachable


def test_the_checksum_is_that_of_rfc_1071() -> None:
    # The worked example of RFC 1071, section 3: the sum is 0xddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x12") == 0xFFFF - 0x1200


def test_the_answer_quotes_header_and_eight_bytes_and_comes_from_the_destination() -> None:
    packet = ipv4(ports(4000, 5000, bytes(range(100))), protocol=TCP, options=bytes(4))
    answer = host_unreachable(packet)
    assert answer is not None
    assert len(answer) == 20 + 8 + 24 + 8
    assert int.from_bytes(answer[2:4], "big") == len(answer)
    assert answer[9] == ICMP
    assert socket.inet_ntoa(answer[12:16]) == "10.77.0.1"
    assert socket.inet_ntoa(answer[16:20]) == "10.77.1.1"
    assert tuple(answer[20:22]) == (3, 1)
    assert answer[28:] == packet[:32]
    assert checksum(answer[:20]) == 0
    assert checksum(answer[20:]) == 0


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_there_is_no_error_about_an_error(kind: int) -> None:
    assert host_unreachable(ipv4(bytes([kind]) + bytes(7), protocol=ICMP)) is None


def test_a_ping_is_answered() -> None:
    assert host_unreachable(ipv4(bytes([8]) + bytes(7), protocol=ICMP)) is not None


def test_only_the_first_fragment_is_answered() -> None:
    assert host_unreachable(ipv4(ports(1, 2), fragment=0x2000)) is not None
    assert host_unreachable(ipv4(ports(1, 2), fragment=0x2001)) is None


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("0.0.0.0", "10.77.0.1"),
        ("127.0.0.1", "10.77.0.1"),
        ("224.0.0.1", "10.77.0.1"),
        ("10.77.1.1", "224.0.0.1"),
        ("10.77.1.1", "255.255.255.255"),
    ],
)
def test_nothing_is_sent_about_packets_of_no_single_host(source: str, destination: str) -> None:
    assert host_unreachable(ipv4(ports(1, 2), source=source, destination=destination)) is None


@given(st.binary(min_size=20, max_size=100))
def test_whatever_is_answered_is_a_sound_packet(packet: bytes) -> None:
    answer = host_unreachable(packet)
    if answer is not None:
        assert checksum(answer[:20]) == checksum(answer[20:]) == 0
        assert answer[16:20] == packet[12:16]
