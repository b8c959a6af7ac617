"""Marks of congestion: the right bits, a sound checksum, nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipv4_packets import TCP, ipv4, ports

from fadelab_emulation.backends.relay.ecn import congestion_experienced
from fadelab_emulation.backends.relay.icmp import checksum


def with_ecn(bits: int, dscp: int = 0, payload: bytes = b"") -> bytes:
    packet = bytearray(ipv4(ports(1, 2, payload), protocol=TCP, dscp=dscp))
    packet[1] |= bits
    packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    return bytes(packet)


@given(bits=st.sampled_from([0b01, 0b10]), dscp=st.integers(0, 63), payload=st.binary(max_size=30))
def test_a_capable_packet_is_marked_and_stays_sound(bits: int, dscp: int, payload: bytes) -> None:
    packet = with_ecn(bits, dscp, payload)
    marked = congestion_experienced(packet)
    assert marked[1] == dscp << 2 | 0b11
    assert checksum(marked[:20]) == 0
    assert (marked[:1], marked[2:10], marked[12:]) == (packet[:1], packet[2:10], packet[12:])


@pytest.mark.parametrize("bits", [0b00, 0b11])
def test_others_stay_as_they_are(bits: int) -> None:
    packet = with_ecn(bits)
    assert congestion_experienced(packet) == packet
