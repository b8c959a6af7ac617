"""Sender and receiver on the two ends of emulated links: losses, closed windows, full queues.

Nothing is said about the order of arrival: the kernel of a machine with several processors may
change it.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from tests.device_agent.agent_harness import HandRadio
from tests.device_agent.test_datagram_uplink import make_packets
from tests.emulation.sandboxed import in_sandbox, make_backend, make_tick

from fadelab_agent.datagram_uplink import (
    DatagramSender,
    DatagramTally,
    DatagramTerms,
    DatagramTooLongError,
    Held,
)
from fadelab_agent.progress import StalledError
from fadelab_agent.radio import WiredRadio
from fadelab_emulation.backends.base import DirectionSample
from fadelab_emulation.backends.kernel import KernelBackend
from fadelab_emulation.window import WindowMode
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.datagram import FRAME_OVERHEAD_BYTES
from fadelab_proto.packet import HEADER_BYTES
from fadelab_server.datagrams import ArrivedPacket, DatagramReceiver, ReceiverStatistics

pytestmark = pytest.mark.namespaces

RATE_BPS = 20e6
PAYLOAD_BYTES = 200
FRAME_BYTES = PAYLOAD_BYTES + HEADER_BYTES + FRAME_OVERHEAD_BYTES
CLOCK = SystemClock()


@dataclass
class Ends:
    """Device 0's sender, the server's receiver, and the link between them."""

    backend: KernelBackend
    sender: DatagramSender
    receiver: DatagramReceiver
    radio: HandRadio
    arrived: list[int]
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    duration_s: float = 0.0

    async def send(self, packets: list[bytes], held: Held | None = None) -> DatagramTally:
        tally, since_s = DatagramTally(), CLOCK.now_s()
        await self.sender.send(packets, tally, held=held)
        self.duration_s = CLOCK.now_s() - since_s
        return tally

    async def held(self) -> set[int]:
        return set(self.arrived)

    async def all_seen(self, sent: int) -> None:
        """Return once the link has judged each datagram and what it let through has arrived."""
        while (link := self.link()).arrived_packets[0] < sent or (
            len(self.arrived) < sent - link.lost_packets[0]
        ):
            self.changed.clear()
            # The link's counters tell nobody that they have changed.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 0.05)

    async def arrival_of(self, sequence: int) -> None:
        while sequence not in self.arrived:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)

    def link(self) -> DirectionSample:
        return self.backend.sample().up


class Result(NamedTuple):
    outcome: DatagramTally
    duration_s: float
    arrived: list[int]
    statistics: ReceiverStatistics
    link_arrived: int
    link_lost: int
    link_bytes: int


Script = Callable[[Ends], Awaitable[DatagramTally]]


def over_link(
    script: Script,
    *,
    rate_bps: float = RATE_BPS,
    loss: float = 0.0,
    window: WindowMode = WindowMode.HOLD,
    **terms: Any,
) -> Result:
    """Run a script between the ends of a link and return what all sides counted."""

    async def body() -> Result:
        backend = make_backend(1, rate_bps, window=window)
        backend.apply(make_tick(1, rate_bps, loss_up=loss))
        backend.sample()  # losses are counted from the first sample on
        arrived: list[int] = []

        def deliver(batch: Sequence[ArrivedPacket]) -> None:
            arrived.extend(one.packet.sequence for one in batch)
            ends.changed.set()

        receiver = DatagramReceiver(
            (backend.server_address, 0), deliver, run_id=7, devices=range(1), clock=CLOCK
        )
        radio = HandRadio(rate_bps=rate_bps)
        sender = backend.namespaces[0].run(
            lambda: DatagramSender(
                receiver.address,
                DatagramTerms(pb.PACKET_CLASS_SIGN, **terms),
                radio=radio,
                clock=CLOCK,
                stall_s=30.0,
            )
        )
        ends = Ends(backend, sender, receiver, radio, arrived)
        receiver.start()
        outcome = await script(ends)
        sender.close()
        link = ends.link()
        return Result(
            outcome,
            ends.duration_s,
            arrived,
            receiver.stop(),
            int(link.arrived_packets[0]),
            int(link.lost_packets[0]),
            int(backend.counters().up.wire_bytes[0]),
        )

    return asyncio.run(body())


def packets(count: int) -> list[bytes]:
    return make_packets(count, payload_bytes=PAYLOAD_BYTES)


def once_over_loss() -> Result:
    async def script(ends: Ends) -> DatagramTally:
        outcome = await ends.send(packets(6000))
        await ends.all_seen(6000)
        return outcome

    return over_link(script, loss=0.05)


def test_what_is_received_is_what_the_link_let_through_and_that_is_the_programmed_share() -> None:
    sent, loss = 6000, 0.05
    result = in_sandbox(once_over_loss)
    assert len(result.outcome.sent) == sent
    assert result.outcome.errors == {}
    assert result.link_arrived == sent
    assert len(result.arrived) == sent - result.link_lost
    assert len(result.arrived) == len(set(result.arrived))
    flow = result.statistics.flows[0, 3]
    assert (flow.packets, flow.overrun_packets) == (len(result.arrived), 0)
    assert result.statistics.socket_drops == 0
    deviation = math.sqrt(sent * loss * (1 - loss))
    assert abs(len(result.arrived) - sent * (1 - loss)) <= 4 * deviation
    assert result.link_bytes == result.outcome.link_bytes == sent * FRAME_BYTES


def repeated_over_loss() -> Result:
    async def script(ends: Ends) -> DatagramTally:
        outcome = await ends.send(packets(2000), held=ends.held)
        await ends.all_seen(2000 + outcome.repeats)
        return outcome

    return over_link(script, loss=0.2, repeats=25, settle_s=0.05)


def test_selective_repeat_completes_over_loss_and_repeats_little_else_than_was_lost() -> None:
    result = in_sandbox(repeated_over_loss)
    assert result.outcome.missing == 0
    assert set(result.arrived) == set(range(2000))
    assert 1 <= result.outcome.rounds <= 25
    # Every repeat stands for a loss, but for datagrams that a busy machine delivers after the
    # server was asked.
    assert result.link_lost <= result.outcome.repeats
    assert 2000 + result.outcome.repeats == result.link_arrived
    duplicates = len(result.arrived) - 2000
    assert result.outcome.repeats == result.link_lost + duplicates


def closed_while_sending(window: WindowMode) -> Result:
    """The link is closed for less than sending takes, although the radio says that it is open."""

    async def script(ends: Ends) -> DatagramTally:
        ends.backend.apply(make_tick(1, RATE_BPS, is_open=False))
        sending = asyncio.create_task(ends.send(packets(6000)))
        await asyncio.sleep(0.3)
        assert not ends.arrived
        ends.backend.apply(make_tick(1, RATE_BPS))
        outcome = await sending
        await ends.arrival_of(5999)
        return outcome

    return over_link(script, window=window)


@pytest.mark.parametrize(
    ("window", "error"),
    [(WindowMode.DOWN, "ENETUNREACH"), (WindowMode.REJECT, "EHOSTUNREACH")],
)
def test_a_link_that_refuses_is_counted_and_waited_for(window: WindowMode, error: str) -> None:
    result = in_sandbox(closed_while_sending, window)
    assert result.outcome.errors.keys() == {error}
    assert result.outcome.errors[error] >= 2
    assert result.outcome.unsent == 0
    assert len(result.arrived) == len(set(result.arrived))


def faster_than_the_link(rate_bps: float, count: int) -> Result:
    async def script(ends: Ends) -> DatagramTally:
        ends.radio.rate_bps = 4 * rate_bps
        outcome = await ends.send(make_packets(count))
        await ends.arrival_of(count - 1)
        return outcome

    return over_link(script, rate_bps=rate_bps)


def test_what_a_full_queue_refuses_is_sent_later_and_not_lost() -> None:
    result = in_sandbox(faster_than_the_link, 2e6, 150)
    assert result.outcome.errors["ENOBUFS"] > 0
    assert result.outcome.repeats == 0
    assert sorted(result.arrived) == list(range(150))


def test_a_full_socket_is_waited_for() -> None:
    # 60 ms at 100 Mbit/s are more than a socket's buffer holds, which the queue's packets fill.
    result = in_sandbox(faster_than_the_link, 100e6, 3000)
    assert result.outcome.errors == {}
    assert sorted(result.arrived) == list(range(3000))


def at_the_links_rate() -> Result:
    async def script(ends: Ends) -> DatagramTally:
        outcome = await ends.send(packets(4000))
        await ends.arrival_of(3999)
        return outcome

    return over_link(script)


def test_at_the_links_rate_the_queue_never_overflows() -> None:
    result = in_sandbox(at_the_links_rate)
    assert result.outcome.errors == {}
    assert sorted(result.arrived) == list(range(4000))
    assert result.duration_s >= 4000 * FRAME_BYTES * 8 / RATE_BPS - 0.02


def beyond_the_links_mtu() -> str:
    async def script(ends: Ends) -> DatagramTally:
        return await ends.send(make_packets(1, payload_bytes=2000))

    try:
        over_link(script, mtu_bytes=9000)
    except DatagramTooLongError as error:
        return str(error)
    return "sent"


def test_an_mtu_that_the_link_lacks_is_told() -> None:
    assert "carries no datagrams of 9000 bytes: configure" in in_sandbox(beyond_the_links_mtu)


def nowhere_to_send() -> str:
    async def body() -> str:
        sender = DatagramSender(
            ("10.77.0.1", 9),
            DatagramTerms(pb.PACKET_CLASS_SIGN),
            radio=WiredRadio(CLOCK, rate_up_bps=RATE_BPS, rate_down_bps=RATE_BPS),
            clock=CLOCK,
            stall_s=0.3,
        )
        try:
            await sender.send(packets(3), DatagramTally())
        except StalledError as error:
            return str(error)
        return "sent"

    return asyncio.run(body())


def test_a_network_that_never_takes_anything_is_a_stall_with_its_figures() -> None:
    told = in_sandbox(nowhere_to_send)
    assert told.startswith("nothing moved on the uplink for ")
    assert "at 20.000 Mbit/s" in told
