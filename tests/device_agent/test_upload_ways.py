"""Updates in several streams and in datagrams, to a real server, with losses made by hand."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.device_agent.agent_harness import (
    LARGE,
    HandRadio,
    agent_events,
    agent_log,
    go,
    large_config,
    proxied,
)
from tests.server.harness import Device, Running, logged, make_update, newest, offer, running

from fadelab_agent.encoded_update import EncodedUpdate
from fadelab_agent.membership import RefusedError
from fadelab_agent.routes import ClassRoutes, LaneRoutes, UplinkShares, lanes
from fadelab_agent.trust import ServerDoor
from fadelab_agent.uplink import Uplink, UploadOutcome
from fadelab_agent.upload_ways import open_ways
from fadelab_proto import federation_pb2 as pb
from fadelab_proto.clock import SystemClock
from fadelab_proto.codecs import Codec, SignModulus
from fadelab_proto.datagram import datagram_payload_bytes
from fadelab_proto.packet import parse_packet

UPDATE, SIGN, MODULUS = (
    pb.PACKET_CLASS_UPDATE,
    pb.PACKET_CLASS_SIGN,
    pb.PACKET_CLASS_MODULUS,
)
DELTA = np.linspace(-3, 3, LARGE, dtype=np.float32)
PACKETS = 100
CLOCK = SystemClock()
DATAGRAMS = {"update": {"kind": "datagrams", "settle_s": 0.05}}


class Air(asyncio.DatagramProtocol):
    """Passes datagrams on to the server, but for those that it is told to lose."""

    def __init__(self, port: int) -> None:
        self.loses: Callable[[int, int], bool] = lambda sequence, copy: False
        """Asked with a packet's sequence number and which copy of it this is, from 1."""
        self.copies: Counter[int] = Counter()
        self.on_arrival: Callable[[], None] = lambda: None
        self._to = ("127.0.0.1", port)
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        sequence = parse_packet(data).sequence
        self.copies[sequence] += 1
        if not self.loses(sequence, self.copies[sequence]):
            self._transport.sendto(data, self._to)
        self.on_arrival()


class Ground:
    """A server, device 0, and an uplink to it over some ways."""

    def __init__(self, server: Running, device: Device, uplink: Uplink, air: Air) -> None:
        self.server = server
        self.device = device
        self.air = air
        self._uplink = uplink

    def update(self, codec: Codec | None = None) -> EncodedUpdate:
        made = make_update(DELTA, session=self.device.session, codec=codec)
        return EncodedUpdate(made.header, tuple(made.packets))

    async def upload(
        self, update: EncodedUpdate, outcome: UploadOutcome | None = None, **options: Any
    ) -> UploadOutcome:
        return await self._uplink.upload(update, outcome, **options)


@asynccontextmanager
async def ground(
    folder: Path,
    routes: dict[str, Any],
    *,
    radio: HandRadio | None = None,
    shares: UplinkShares | None = None,
    channel: Any = None,
    **server: Any,
) -> AsyncIterator[Ground]:
    config = large_config(folder, datagram_listen="127.0.0.1:0", **server)
    async with running(config) as run:
        device = run.device()
        await device.join(tasks=[offer(dimension=LARGE)])
        loop = asyncio.get_running_loop()
        transport, air = await loop.create_datagram_endpoint(
            lambda: Air(run.federation.datagram_port), local_addr=("127.0.0.1", 0)
        )
        address = f"127.0.0.1:{run.port}"
        plain = run.connect(address) if channel is None else await channel(run)
        radio = radio or HandRadio()
        try:
            async with open_ways(
                ClassRoutes.model_validate(routes),
                shares or UplinkShares(),
                plain,
                door=ServerDoor(address),
                datagram_port=transport.get_extra_info("sockname")[1],
                mtu_bytes=1500,
                radio=radio,
                clock=CLOCK,
                stall_s=20.0,
            ) as ways:
                with agent_log(folder) as log:
                    uplink = Uplink(ways, radio=radio, clock=CLOCK, log=log, stall_s=20.0)
                    yield Ground(run, device, uplink, air)
        finally:
            transport.close()


def after(kept: set[int]) -> Any:
    """Return the model after FedAsync with weight one half took these packets of 128 entries."""
    expected = np.linspace(-1, 1, LARGE, dtype=np.float32)
    for sequence in kept:
        part = slice(128 * sequence, 128 * (sequence + 1))
        expected[part] += np.float32(0.5) * DELTA[part]
    return expected


def test_an_update_in_datagrams_alone_is_complete(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ground(tmp_path, DATAGRAMS) as at:
            outcome = await at.upload(at.update())
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.packets_sent == 0
            assert outcome.datagrams[UPDATE].sent == set(range(PACKETS))
            assert outcome.datagrams[UPDATE].repeats == 0
            np.testing.assert_allclose(newest(at.server), after(set(range(PACKETS))), atol=1e-6)
        (event,) = logged(tmp_path, "upload_complete")
        assert event["datagram_packets"] == event["packets"] == PACKETS

    go(scenario)


def test_what_is_lost_stays_out_and_what_arrived_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ground(tmp_path, DATAGRAMS, partial_updates="keep") as at:
            at.air.loses = lambda sequence, _: sequence % 7 == 3
            outcome = await at.upload(at.update())
            kept = {n for n in range(PACKETS) if n % 7 != 3}
            assert outcome.status == pb.UPLOAD_STATUS_CLOSED
            assert outcome.acknowledged == kept
            assert outcome.datagrams[UPDATE].missing == PACKETS - len(kept)
            assert set(at.air.copies.values()) == {1}
            np.testing.assert_allclose(newest(at.server), after(kept), atol=1e-6)

    go(scenario)


def test_what_is_lost_is_repeated_until_all_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = {"update": {**DATAGRAMS["update"], "repeats": 5}}
        async with ground(tmp_path, routes) as at:
            at.air.loses = lambda sequence, copy: copy <= (sequence % 7 == 3) + (sequence % 14 == 3)
            outcome = await at.upload(at.update())
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.datagrams[UPDATE].repeats == 14 + 7
            assert outcome.datagrams[UPDATE].rounds == 2
            assert logged(tmp_path, "upload_complete")[0]["duplicates"] == 0

    go(scenario)


def test_after_the_deadline_the_server_takes_what_it_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = {"update": {**DATAGRAMS["update"], "repeats": 1000, "deadline_s": 0.5}}
        async with ground(tmp_path, routes, partial_updates="keep") as at:
            at.air.loses = lambda sequence, _: sequence == 5
            outcome = await at.upload(at.update())
            assert outcome.status == pb.UPLOAD_STATUS_CLOSED
            assert outcome.acknowledged == set(range(PACKETS)) - {5}
            tally = outcome.datagrams[UPDATE]
            assert not tally.in_time
            assert tally.repeats >= 2

    go(scenario)


def test_signs_in_a_stream_go_before_the_moduli_in_datagrams(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = {"modulus": DATAGRAMS["update"]}
        async with ground(tmp_path, routes) as at:
            update = at.update(SignModulus(4))
            signs = {
                n for n, one in enumerate(update.packets) if parse_packet(one).packet_class == SIGN
            }
            held: list[bool] = []

            def look() -> None:
                upload = at.server.federation.uploads.get((0, 0))
                held.append(upload is None or signs <= set(upload.received))

            at.air.on_arrival = look
            outcome = await at.upload(update)
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.packets_sent == len(signs) > 0
            assert outcome.datagrams.keys() == {MODULUS}
            assert len(held) == len(update.packets) - len(signs) > 0
            assert all(held)
        (event,) = logged(tmp_path, "upload_complete")
        assert event["datagram_packets"] == len(held)

    go(scenario)


def test_the_last_word_waits_for_every_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        routes = {"sign": {"kind": "stream", "dscp": 46}, "modulus": DATAGRAMS["update"]}
        marked = {"default": 0.5, "marked": [{"dscp": 46, "rate_share": 0.5}]}
        shares = UplinkShares.model_validate(marked)
        async with ground(tmp_path, routes, shares=shares, partial_updates="keep") as at:
            at.air.loses = lambda *_: True
            update = at.update(SignModulus(4))
            classes = [parse_packet(packet).packet_class for packet in update.packets]
            signs = {sequence for sequence, number in enumerate(classes) if number == SIGN}
            outcome = await at.upload(update)
            assert outcome.status == pb.UPLOAD_STATUS_CLOSED
            assert outcome.acknowledged == signs
            assert outcome.datagrams[MODULUS].missing == len(classes) - len(signs)

    go(scenario)


def test_classes_with_marks_of_their_own_have_connections_of_their_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        sockets: list[int] = []

        async def plain(run: Running) -> Any:
            # The connection without a mark leads nowhere: nothing may go there.
            return run.connect("127.0.0.1:1")

        routes = {"sign": {"kind": "stream", "dscp": 46}, "modulus": {"kind": "stream", "dscp": 10}}
        async with ground(tmp_path, routes, channel=plain) as at:
            update = at.update(SignModulus(4))
            opened = at.server.federation.open_upload
            at.server.federation.open_upload = lambda *given: (  # type: ignore[method-assign]
                sockets.append(1) or opened(*given)  # type: ignore[func-returns-value]
            )
            outcome = await at.upload(update)
            assert outcome.status == pb.UPLOAD_STATUS_COMPLETE
            assert outcome.packets_sent == len(update.packets)
            assert outcome.attempts == 1
            assert len(sockets) == 2
        (event,) = logged(tmp_path, "upload_complete")
        assert (event["classes"], event["duplicates"]) == (["sign", "modulus"], 0)

    go(scenario)


def test_the_end_of_the_window_ends_an_update_that_gives_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e6)
        async with ground(tmp_path, DATAGRAMS, radio=radio, partial_updates="keep") as at:

            def close() -> None:
                if len(at.air.copies) == 20:
                    radio.blink()

            at.air.on_arrival = close
            outcome = await at.upload(at.update(), gives_up=True)
            assert outcome.status == pb.UPLOAD_STATUS_CLOSED
            assert outcome.given_up
            assert 19 <= len(outcome.acknowledged) <= 40
            assert len(at.air.copies) == outcome.datagrams[UPDATE].datagrams < PACKETS

    go(scenario)


def test_while_out_of_contact_nothing_is_sent_and_then_it_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e6)
        async with ground(tmp_path, DATAGRAMS, radio=radio) as at:
            closed = asyncio.Event()

            def close() -> None:
                if len(at.air.copies) == 20:
                    radio.opened.clear()
                    closed.set()

            at.air.on_arrival = close
            uploading = asyncio.create_task(at.upload(at.update()))
            await closed.wait()
            await asyncio.sleep(0.3)
            # A burst of 20 ms at 1 Mbit/s is four packets.
            assert len(at.air.copies) <= 25
            at.air.on_arrival = lambda: None
            radio.opened.set()
            outcome = await uploading
            assert (outcome.status, outcome.attempts) == (pb.UPLOAD_STATUS_COMPLETE, 1)

    go(scenario)


def test_after_a_broken_connection_each_datagram_is_still_sent_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e6)
        async with ground(tmp_path, DATAGRAMS, radio=radio, partial_updates="keep") as first:
            async with proxied(first.server) as (proxy, channel):
                uplink_ways = open_ways(
                    ClassRoutes.model_validate(DATAGRAMS),
                    UplinkShares(),
                    channel,
                    door=ServerDoor("127.0.0.1:1"),
                    datagram_port=first.air._transport.get_extra_info("sockname")[1],
                    mtu_bytes=1500,
                    radio=radio,
                    clock=CLOCK,
                    stall_s=20.0,
                )
                async with uplink_ways as ways:
                    with agent_log(tmp_path) as log:
                        uplink = Uplink(ways, radio=radio, clock=CLOCK, log=log, stall_s=20.0)

                        def cut() -> None:
                            if len(first.air.copies) == 20:
                                proxy.cut()

                        first.air.on_arrival = cut
                        first.air.loses = lambda sequence, _: sequence == 3
                        outcome = await uplink.upload(first.update())
            assert outcome.status == pb.UPLOAD_STATUS_CLOSED
            assert outcome.attempts == 2
            assert outcome.acknowledged == set(range(PACKETS)) - {3}
            assert set(first.air.copies.values()) == {1}
        assert len(agent_events(tmp_path, "upload_interrupted")) == 1

    go(scenario)


def test_a_server_that_takes_no_datagrams_is_told_before_anything_is_trained() -> None:
    async def scenario() -> None:
        ways = open_ways(
            ClassRoutes.model_validate(DATAGRAMS),
            UplinkShares(),
            None,  # type: ignore[arg-type]
            door=ServerDoor("127.0.0.1:1"),
            datagram_port=0,
            mtu_bytes=1500,
            radio=HandRadio(),
            clock=CLOCK,
            stall_s=1.0,
        )
        with pytest.raises(
            RefusedError, match="the class 'update' is to travel as datagrams, but the server takes"
        ):
            async with ways:
                pass

    go(scenario)


def test_classes_are_grouped_by_the_queues_that_they_share() -> None:
    routes = ClassRoutes.model_validate(
        {
            "update": {"kind": "stream", "dscp": 5},
            "sign": {"kind": "stream", "dscp": 46},
            "modulus": {"kind": "datagrams", "dscp": 10},
        }
    )
    shares = UplinkShares.model_validate(
        {"default": 0.25, "marked": [{"dscp": 46, "rate_share": 0.75}]}
    )
    modulus = routes.modulus
    assert lanes(routes, shares) == (
        LaneRoutes(0.25, ((5, frozenset({UPDATE})),), ((MODULUS, modulus),)),  # type: ignore[arg-type]
        LaneRoutes(0.75, ((46, frozenset({SIGN})),), ()),
    )
    assert lanes(ClassRoutes(), UplinkShares()) == (
        LaneRoutes(1.0, ((0, frozenset({UPDATE, SIGN, MODULUS})),), ()),
    )


def test_packets_fit_a_datagram_where_one_has_to() -> None:
    assert ClassRoutes().payload_bytes(16384, 1200) == 16384
    routes = ClassRoutes.model_validate({"sign": DATAGRAMS["update"]})
    assert routes.payload_bytes(16384, 1200) == datagram_payload_bytes(1200) == 1132
    assert routes.payload_bytes(600, 1200) == 600


@pytest.mark.parametrize(
    ("routes", "complaint"),
    [
        ({"model": {}}, "model"),
        ({"sign": {"kind": "pigeon"}}, "'stream', 'datagrams'"),
        ({"sign": {"kind": "stream", "dscp": 64}}, "less than or equal to 63"),
        ({"sign": {"kind": "stream", "repeats": 3}}, "repeats"),
        ({"sign": {"kind": "datagrams", "deadline_s": 0}}, "greater than 0"),
    ],
)
def test_impossible_routes_are_refused(routes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ClassRoutes.model_validate(routes)
