"""Timelines made of others."""

import numpy as np
import pytest

from fadelab.link.sources import OneDevice, TwoWays, WithOutages
from fadelab_emulation.contact.outages import OutageConfig
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss, plain_tick


class Counting:
    """Links of which each tick's and device's rate is another; odd ticks are closed if wished."""

    def __init__(self, base_bps: float, devices: int, *, blinks: bool = False) -> None:
        self._base_bps = base_bps
        self._devices = devices
        self._blinks = blinks
        self._index = 0
        self.powers: list[tuple[int, float]] = []

    def step(self) -> LinkTick:
        index, self._index = self._index, self._index + 1
        rate_bps = self._base_bps + 1000.0 * index + np.arange(self._devices)
        is_open = np.full(self._devices, not (self._blinks and index % 2))
        return plain_tick(
            rate_bps,
            rate_bps + 0.5,
            index=index,
            t_s=0.1 * index,
            is_open=is_open,
            loss_up=PacketLoss.independent(rate_bps / 1e9),
            delay_s=self._base_bps / 1e9,
        )

    def set_uplink_power(self, device: int, power_w: float) -> None:
        self.powers.append((device, power_w))


def test_two_ways_take_each_direction_from_its_own_timeline() -> None:
    both = TwoWays(Counting(1e6, 2), Counting(2e6, 2))
    both.step()
    tick = both.step()
    assert tick.index == 1
    assert tick.up[0].rate_bps.tolist() == [1e6 + 1000, 1e6 + 1001]
    assert tick.down[0].rate_bps.tolist() == [2e6 + 1000.5, 2e6 + 1001.5]
    assert tick.delay_up_s[0] == pytest.approx(1e-3)
    assert tick.delay_down_s[0] == pytest.approx(2e-3)


def test_two_ways_are_closed_only_where_both_are() -> None:
    one = TwoWays(Counting(1e6, 1, blinks=True), Counting(2e6, 1))
    both = TwoWays(Counting(1e6, 1, blinks=True), Counting(2e6, 1, blinks=True))
    assert [bool(one.step().is_open[0]) for _ in range(4)] == [True] * 4
    assert [bool(both.step().is_open[0]) for _ in range(4)] == [True, False, True, False]


def test_one_device_has_the_numbers_of_the_chosen_one() -> None:
    whole, source = Counting(1e6, 5), Counting(1e6, 5)
    alone = OneDevice(source, 3)
    for _ in range(3):
        all_of_them, tick = whole.step(), alone.step()
        assert tick.devices == 1
        assert (tick.index, tick.t_s) == (all_of_them.index, all_of_them.t_s)
        assert tick.rate_up_bps[0] == all_of_them.rate_up_bps[3]
        assert isinstance(tick.up[0], Lane)
        assert tick.loss_up[0] == pytest.approx(all_of_them.loss_up[3])
        assert all(len(values) == 1 for values in (tick.x_m, tick.delay_up_s, tick.is_open))
    alone.set_uplink_power(0, 0.1)
    assert source.powers == [(3, 0.1)]


def test_outages_close_links_on_top_of_what_the_timeline_does() -> None:
    outages = [OutageConfig(windows_s=[(0.2, 0.4)])]
    source = WithOutages(Counting(1e6, 1, blinks=True), outages, 1)
    ticks = [source.step() for _ in range(7)]
    assert [bool(tick.is_open[0]) for tick in ticks] == [
        True,
        False,
        False,  # would be open
        False,
        True,
        False,
        True,
    ]
    assert ticks[2].predicted_contact_s[0] == 0
