"""Datagrams that got lost are sent again only where that was asked for, and only so often."""

from collections import Counter
from collections.abc import Collection

import pytest
from tests.device_agent.agent_harness import HandRadio
from tests.device_agent.datagram_ground import PAYLOAD_BYTES, Ground, make_packets, on_ground

from fadelab_agent.datagram_uplink import Held
from fadelab_proto.packet import HEADER_BYTES


def losing(ground: Ground, lost: dict[int, int]) -> Held:
    """Answer as a server would that never got the first ``lost[n]`` copies of packet n."""

    async def held() -> set[int]:
        ground.take()
        copies = Counter(ground.sequences)
        return {n for n, count in copies.items() if count > lost.get(n, 0)}

    return held


def test_what_the_server_lacks_is_sent_again_until_it_has_all() -> None:
    async def scenario(ground: Ground) -> None:
        held = losing(ground, {2: 1, 5: 2, 8: 1})
        outcome = await ground.send(make_packets(10), held=held)
        assert ground.sequences == [*range(10), 2, 5, 8, 5]
        assert (len(outcome.sent), outcome.repeats, outcome.rounds) == (10, 4, 2)
        assert outcome.missing == 0
        assert outcome.in_time
        assert outcome.packet_bytes == 14 * (PAYLOAD_BYTES + HEADER_BYTES)

    on_ground(scenario, HandRadio(), repeats=9)


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_repeats_end_after_the_configured_rounds(rounds: int) -> None:
    async def scenario(ground: Ground) -> None:
        outcome = await ground.send(make_packets(10), held=losing(ground, {4: 100, 6: 100}))
        assert (outcome.rounds, outcome.repeats, outcome.missing) == (rounds, 2 * rounds, 2)
        assert outcome.in_time

    on_ground(scenario, HandRadio(), repeats=rounds)


def test_the_server_is_asked_only_after_the_last_datagram_had_time_to_arrive() -> None:
    async def scenario(ground: Ground) -> None:
        asked_s: list[float] = []

        async def held() -> Collection[int]:
            asked_s.append(ground.clock.now_s())
            return range(3)

        await ground.send(make_packets(3), held=held)
        assert asked_s[0] - ground.arrivals[-1][0] >= 0.5 - 1e-9

    on_ground(scenario, HandRadio(rate_bps=1e6), settle_s=0.5)
