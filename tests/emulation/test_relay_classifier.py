"""Packets find their lane by DSCP or port, as they do in the kernel's back-ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipv4_packets import ICMP, TCP, UDP, ipv4, ports

from fadelab_emulation.backends.plan import ClassMark
from fadelab_emulation.backends.relay.classifier import classifier

MARKS = (ClassMark(port=5000), ClassMark(dscp=46), ClassMark(port=6000))


def test_without_classes_all_packets_share_the_default_lane() -> None:
    assert classifier(())(ipv4(ports(1, 2), dscp=46)) == 0


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(("source", "destination"), [(5000, 33000), (33000, 5000)])
def test_a_port_at_either_end_decides(protocol: int, source: int, destination: int) -> None:
    assert classifier(MARKS)(ipv4(ports(source, destination), protocol=protocol)) == 1


def test_the_dscp_comes_before_ports_and_of_two_ports_the_first_class_counts() -> None:
    classify = classifier(MARKS)
    assert classify(ipv4(ports(5000, 1), dscp=46)) == 2
    assert classify(ipv4(ports(6000, 5000))) == 1
    assert classify(ipv4(ports(1, 2))) == 0


def test_the_ecn_bits_are_no_part_of_the_dscp() -> None:
    packet = bytearray(ipv4(ports(1, 2), dscp=46))
    packet[1] |= 0b11
    assert classifier(MARKS)(bytes(packet)) == 2


def test_ports_are_found_behind_options() -> None:
    assert classifier(MARKS)(ipv4(ports(6000, 1), options=bytes(8))) == 3


@pytest.mark.parametrize("fragment", [0x2000, 0x0001, 0x2005])
def test_fragments_have_no_ports_but_a_dscp(fragment: int) -> None:
    classify = classifier(MARKS)
    assert classify(ipv4(ports(5000, 1), fragment=fragment)) == 0
    assert classify(ipv4(ports(5000, 1), fragment=fragment, dscp=46)) == 2


def test_the_flag_that_forbids_fragments_is_no_fragment() -> None:
    assert classifier(MARKS)(ipv4(ports(5000, 1), fragment=0x4000)) == 1


def test_other_protocols_have_no_ports() -> None:
    assert classifier(MARKS)(ipv4(ports(5000, 1), protocol=ICMP)) == 0


@given(st.binary(min_size=20, max_size=60))
def test_any_bytes_have_a_lane(packet: bytes) -> None:
    assert 0 <= classifier(MARKS)(packet) <= len(MARKS)
