"""The kernel loses exactly the packets that the chain in Python says."""

import os
import socket
import statistics
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from impaired_link import (
    HUB_ADDRESS,
    NO_LOSS,
    Datagrams,
    ImpairedLink,
    independent,
)
from numpy.typing import NDArray
from sandboxed import in_sandbox

from fadelab_emulation.backends.impairment import bpf
from fadelab_emulation.backends.impairment.base import Arrivals, Direction, LaneLoss, PortState
from fadelab_emulation.backends.impairment.chain import LossChain, first_state, loss_sequence
from fadelab_emulation.backends.impairment.ebpf import EbpfLoss, ebpf_problem
from fadelab_emulation.backends.plan import ClassMark, LinkPlan, QueueSizes
from fadelab_emulation.netlink.message import Request

pytestmark = pytest.mark.namespaces

SEED = 20240229
BURSTS = LaneLoss(in_good=0.001, in_bad=0.8, to_bad=0.005, to_good=0.05)
CLASSES = (ClassMark(dscp=46), ClassMark(port=5001))
DEFAULT, MARKED, BY_PORT = range(3)
UP, DOWN = Direction


@pytest.fixture(autouse=True, scope="module")
def _needs_ebpf() -> None:
    if problem := in_sandbox(ebpf_problem):
        pytest.skip(problem)


def make_link(*classes: ClassMark) -> ImpairedLink:
    plan = LinkPlan([QueueSizes.for_rates(1e6, 1e6)], classes=classes, seed=SEED)
    return ImpairedLink(EbpfLoss(plan))


def expected(
    loss: LaneLoss, packets: int, *, lane: int = 0, direction: Direction = UP
) -> NDArray[np.bool_]:
    return loss_sequence(first_state(SEED, 0, direction, lane), loss, packets)


def fates(direction: Direction, loss: LaneLoss, packets: int) -> NDArray[np.bool_]:
    link = make_link()
    link.set(loss, direction=direction)
    return Datagrams(link, direction).fates(packets)


def test_bursts_hit_exactly_the_packets_that_the_seed_says() -> None:
    lost = in_sandbox(fates, UP, BURSTS, 100_000)
    np.testing.assert_array_equal(lost, expected(BURSTS, 100_000))
    assert 0.05 < lost.mean() < 0.1


def test_independent_losses_of_the_downlink_are_exact_too() -> None:
    loss = independent(0.05)
    lost = in_sandbox(fates, DOWN, loss, 20_000)
    np.testing.assert_array_equal(lost, expected(loss, 20_000, direction=DOWN))


def extremes() -> tuple[int, int, int]:
    link = make_link()
    datagrams = Datagrams(link)
    untouched = datagrams.fates(1000).sum()
    link.set(LaneLoss(1.0, 1.0, 0.5, 0.5))
    all_lost = datagrams.fates(5000).sum()
    link.set(LaneLoss(0.0, 0.0, 0.5, 0.5))
    return int(untouched), int(all_lost), int(datagrams.fates(5000).sum())


def test_probability_one_loses_all_and_zero_or_nothing_set_loses_none() -> None:
    assert in_sandbox(extremes) == (0, 5000, 0)


def changed_on_the_way() -> tuple[NDArray[np.bool_], Arrivals]:
    link = make_link()
    datagrams = Datagrams(link)
    parts = []
    for loss in (BURSTS, independent(0.3), BURSTS):
        link.set(loss)
        parts.append(datagrams.fates(4000))
    return np.concatenate(parts), link.read()


def test_a_change_takes_hold_at_once_and_neither_numbers_nor_state_start_anew() -> None:
    lost, counted = in_sandbox(changed_on_the_way)
    chain = LossChain(first_state(SEED, 0, UP, 0), NO_LOSS)
    wanted = []
    for loss in (BURSTS, independent(0.3), BURSTS):
        chain.change(loss)
        wanted += [chain.lost() for _ in range(4000)]
    np.testing.assert_array_equal(lost, wanted)
    assert counted == Arrivals(12_000, sum(wanted))


def class_fates() -> list[NDArray[np.bool_]]:
    """Return the fates of the default class, of what bears the DSCP, and of the port."""
    link = make_link(*CLASSES)
    link.set(independent(0.1), BURSTS, independent(0.5))
    plain, by_port = Datagrams(link), Datagrams(link, port=5001)
    marked, both = Datagrams(link, dscp=46), Datagrams(link, from_port=5001, dscp=46)
    flows = (plain, marked, both, by_port)
    rounds = [[flow.fates(1000) for flow in flows] for _ in range(2)]
    return [
        np.concatenate([lost[0] for lost in rounds]),
        np.concatenate([part for lost in rounds for part in lost[1:3]]),
        np.concatenate([lost[3] for lost in rounds]),
    ]


def test_each_class_has_its_own_chain_and_the_dscp_goes_before_the_port() -> None:
    losses = (independent(0.1), BURSTS, independent(0.5))
    for lane, lost in enumerate(in_sandbox(class_fates)):
        np.testing.assert_array_equal(lost, expected(losses[lane], len(lost), lane=lane))


def odd_packets() -> dict[str, int]:
    """Return how many of ten of each kind are lost where only port 5001 loses, and all."""
    link = make_link(*CLASSES)
    link.set(NO_LOSS, NO_LOSS, independent(1.0))
    lost = {"plain": int(Datagrams(link).fates(10).sum())}
    to_port = Datagrams(link, port=5001)
    lost["to the port"] = int(to_port.fates(10).sum())
    to_port.set_options(b"\x01" * 8)
    lost["behind a longer header"] = int(to_port.fates(10).sum())
    to_port.set_options(b"")
    to_port.send_large(10, payload_bytes=4000)
    lost["in fragments"] = 10 - len(to_port.receive(0.5))
    lost["from the port"] = int(Datagrams(link, from_port=5001).fates(10).sum())
    before = link.read().lost_packets
    with link.namespace.run(socket.socket) as client:
        client.setblocking(False)
        client.connect_ex((HUB_ADDRESS, 5001))
        to_port.receive(0.2)
        lost["TCP to the port"] = link.read().lost_packets - before
    return lost


def test_ports_are_found_at_either_end_behind_any_header_but_not_in_fragments() -> None:
    assert in_sandbox(odd_packets) == {
        "plain": 0,
        "to the port": 10,
        "behind a longer header": 10,
        "in fragments": 0,
        "from the port": 10,
        "TCP to the port": 1,
    }


def sent_from_two_threads(packets: int) -> Arrivals:
    link = make_link()
    link.set(BURSTS)
    flows = [Datagrams(link) for _ in range(2)]
    threads = [threading.Thread(target=flow.fates, args=(packets,)) for flow in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while link.read().arrived_packets < 2 * packets:
        flows[0].receive(0.02)
    return link.read()


def test_packets_that_two_processors_judge_at_once_do_not_share_random_numbers() -> None:
    assert in_sandbox(sent_from_two_threads, 30_000) == Arrivals(
        60_000, int(expected(BURSTS, 60_000).sum())
    )


def change_s() -> tuple[list[Request], float]:
    link = make_link(*CLASSES)
    port = link.ports[UP]
    state = PortState((BURSTS, independent(0.1), NO_LOSS), 0.0, 0.0)
    durations_s = []
    for _ in range(1000):
        begin_s = time.perf_counter()
        to_send = link.impairment.change(port, state)
        durations_s.append(time.perf_counter() - begin_s)
    return to_send, statistics.median(durations_s)


def test_a_change_is_a_write_into_memory() -> None:
    to_send, duration_s = in_sandbox(change_s)
    assert to_send == []
    assert duration_s < 200e-6


def closed_again() -> tuple[int, int]:
    link = make_link()
    first = link.impairment
    before = len(list(Path("/proc/self/fd").iterdir()))
    for used in (False, True):
        link.impairment = EbpfLoss(LinkPlan([QueueSizes.for_rates(1e6, 1e6)]))
        link.hub.change(link.impairment.prepare(link.ports[UP]))
        if used:
            link.set(BURSTS)
        link.read()
        link.impairment.close()
    after = len(list(Path("/proc/self/fd").iterdir()))
    first.close()
    return before, after


def asked_for_delay() -> str:
    try:
        make_link().set(delay_s=0.02)
    except ValueError as error:
        return str(error)
    return ""


def test_a_delay_is_refused_and_not_forgotten() -> None:
    assert "0.02 s" in in_sandbox(asked_for_delay)


def test_nothing_stays_open() -> None:
    before, after = in_sandbox(closed_again)
    assert after == before


def without_privilege() -> str:
    os.setresuid(65534, 65534, 65534)
    return ebpf_problem()


def test_a_refusal_names_its_cause_and_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Run as root" in in_sandbox(without_privilege)
    monkeypatch.setattr(bpf.platform, "machine", lambda: "riscv64")
    assert "riscv64" in ebpf_problem()


def test_a_program_that_the_kernel_rejects_is_refused_with_the_kernels_reason() -> None:
    broken = bpf.Assembler()
    broken.leave()
    with pytest.raises(bpf.BpfRefusedError, match=r"R0 !read_ok"):
        bpf.load_classifier(broken.assemble())
