"""A transfer may take as long as it likes, as long as it moves."""

import asyncio

import pytest
from tests.device_agent.agent_harness import HandRadio, go

from fadelab_agent.progress import ProgressWatch, StalledError

# 1000 bytes at 8 kbit/s take 1 s; ten times that is tolerated, on top of the minimum.
UNIT_BYTES = 1000
SLOW_BPS = 8000.0


def watching(radio: HandRadio, *, minimum_s: float = 0.05, uplink: bool = True) -> ProgressWatch:
    return ProgressWatch(radio, unit_bytes=UNIT_BYTES, minimum_s=minimum_s, uplink=uplink)


async def forever() -> None:
    await asyncio.Event().wait()


def test_what_moves_never_stalls_however_long_it_takes() -> None:
    async def scenario() -> None:
        radio = HandRadio()
        watch = watching(radio)

        async def work() -> str:
            for _ in range(20):
                radio.elapsed_s += 1e6
                watch.moved()
                await radio.asked(1)
            return "through"

        assert await watch.guard(work()) == "through"
        assert watch.pieces == 20

    go(scenario)


def test_time_out_of_contact_does_not_count() -> None:
    async def scenario() -> None:
        radio = HandRadio(is_open=False)
        watch = watching(radio, minimum_s=0.01)

        async def work() -> str:
            await radio.asked(4)
            return "through"

        assert await watch.guard(work()) == "through"

    go(scenario)


@pytest.mark.parametrize(("uplink", "name"), [(True, "uplink"), (False, "downlink")])
def test_a_stall_is_told_with_its_figures(uplink: bool, name: str) -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=SLOW_BPS)
        watch = watching(radio, minimum_s=0.5, uplink=uplink)
        radio.elapsed_s = 1000.0
        with pytest.raises(
            StalledError,
            match=rf"nothing moved on the {name} for 1000\.0 s in contact; "
            r"at 0\.008 Mbit/s 10\.5 s are allowed for 1000 bytes",
        ):
            await watch.guard(forever())

    go(scenario)


def test_a_stall_cancels_the_work() -> None:
    async def scenario() -> None:
        radio = HandRadio()
        watch = watching(radio)
        radio.elapsed_s = 1000.0
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await forever()
            finally:
                cancelled.set()

        with pytest.raises(StalledError):
            await watch.guard(work())
        assert cancelled.is_set()

    go(scenario)


def test_the_allowance_is_that_of_the_lowest_rate_since_something_moved() -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=SLOW_BPS)
        watch = watching(radio)
        # 10.05 s are allowed at the slow rate; 10 s of them pass, then the rate rises a
        # thousandfold, at which the allowance would be 0.06 s.
        radio.elapsed_s = 10.0

        async def work() -> str:
            await radio.asked(1)
            radio.rate_bps = 1000 * SLOW_BPS
            watch._moved.set()
            await radio.asked(3)
            return "through"

        assert await watch.guard(work()) == "through"

    go(scenario)


def test_a_rate_that_falls_lengthens_the_allowance() -> None:
    async def scenario() -> None:
        radio = HandRadio(rate_bps=1e9)
        watch = watching(radio)
        radio.elapsed_s = 10.0

        async def work() -> str:
            radio.rate_bps = SLOW_BPS
            await radio.asked(3)
            return "through"

        assert await watch.guard(work()) == "through"

    go(scenario)


def test_cancelling_the_guard_cancels_the_work() -> None:
    async def scenario() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await forever()
            finally:
                cancelled.set()

        guard = asyncio.create_task(watching(HandRadio(), minimum_s=60).guard(work()))
        await begun.wait()
        guard.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guard
        assert cancelled.is_set()

    go(scenario)


def test_an_error_of_the_work_comes_through() -> None:
    async def scenario() -> None:
        async def work() -> None:
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await watching(HandRadio()).guard(work())

    go(scenario)
