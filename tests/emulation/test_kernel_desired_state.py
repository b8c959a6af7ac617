"""What a tick changes is found, for open links at once and for closed ones when they open."""

from dataclasses import replace

import numpy as np
import pytest

from fadelab_emulation.backends.desired import DesiredState
from fadelab_emulation.backends.impairment.base import LaneLoss
from fadelab_emulation.link_state import Lane, LinkTick, PacketLoss, plain_tick

DEVICES, LANES = 3, 2
FLOOR_BPS = 64_000.0
NO_LOSS = LaneLoss(0.0, 0.0, 0.0, 1.0)


def lane(rate_bps: float, loss: float = 0.0) -> Lane:
    return Lane(np.full(DEVICES, rate_bps), PacketLoss.independent(np.full(DEVICES, loss)))


def tick(is_open: list[bool] | None = None) -> LinkTick:
    rates = np.full(DEVICES, 1e6)
    made = plain_tick(rates, rates, is_open=np.array(is_open or [True] * DEVICES))
    return replace(made, up=(lane(1e6), lane(2e6)), down=(lane(3e6), lane(4e6)))


def with_loss(made: LinkTick, device: int, loss: PacketLoss) -> LinkTick:
    fields = {}
    for name in ("in_good", "in_bad", "to_bad", "to_good"):
        values = getattr(made.down[1].loss, name).copy()
        values[device] = getattr(loss, name)[device]
        fields[name] = values
    changed = Lane(made.down[1].rate_bps, PacketLoss(**fields))
    return replace(made, down=(made.down[0], changed))


def in_force(first: LinkTick) -> DesiredState:
    desired = DesiredState(DEVICES, LANES, FLOOR_BPS)
    desired.take(first, moved=True)
    return desired


def test_the_first_tick_sets_every_rate_and_no_port() -> None:
    desired = DesiredState(DEVICES, LANES, FLOOR_BPS)
    changes = desired.take(tick(), moved=True)
    assert changes == (list(range(2 * LANES * DEVICES)), [])
    assert desired.rate_bps.reshape(4, DEVICES)[:, 0].tolist() == [1e6, 2e6, 3e6, 4e6]
    assert desired.take(tick(), moved=False) == ([], [])


def test_one_rate_is_one_place() -> None:
    desired = in_force(tick())
    rates = np.full(DEVICES, 2e6)
    rates[1] = 5e6
    changed = replace(tick(), up=(lane(1e6), Lane(rates, lane(2e6).loss)))
    assert desired.take(changed, moved=False) == ([1 * DEVICES + 1], [])
    assert desired.rate_bps[DEVICES + 1] == 5e6


def test_losses_and_delays_are_found_at_their_port() -> None:
    desired = in_force(tick())
    burst = PacketLoss(*(np.full(DEVICES, value) for value in (0.0, 0.5, 0.1, 0.3)))
    lossy = with_loss(tick(), 2, burst)
    assert desired.take(lossy, moved=False) == ([], [DEVICES + 2])
    state = desired.port_state(DEVICES + 2)
    assert state == ((NO_LOSS, LaneLoss(0.0, 0.5, 0.1, 0.3)), 0.0, 0.0)
    assert desired.mean_loss()[:, DEVICES + 2].tolist() == [0.0, pytest.approx(0.125)]
    late = replace(lossy, delay_up_s=np.array([0.0, 0.02, 0.0]), jitter_up_s=np.full(DEVICES, 1e-3))
    assert desired.take(late, moved=False) == ([], [0, 1, 2])
    assert desired.port_state(1) == ((NO_LOSS, NO_LOSS), 0.02, 1e-3)
    assert desired.port_state(DEVICES + 1) == ((NO_LOSS, NO_LOSS), 0.0, 0.0)


def test_a_closed_link_changes_when_it_opens() -> None:
    desired = in_force(tick([True, False, True]))
    burst = PacketLoss(*(np.full(DEVICES, value) for value in (0.0, 0.5, 0.1, 0.3)))
    lossy = with_loss(tick([True, False, True]), 1, burst)
    assert desired.take(lossy, moved=False) == ([], [])
    opened = replace(lossy, is_open=np.array([True, True, True]))
    places = [1, DEVICES + 1, 2 * DEVICES + 1, 3 * DEVICES + 1]
    assert desired.take(opened, moved=True) == (places, [DEVICES + 1])


def test_rows_may_be_slices_of_something_larger() -> None:
    desired = in_force(tick())
    table = np.zeros((DEVICES, 4))
    table[:, 3] = 1.0
    table[2, :2] = 0.25
    columns = PacketLoss(*(table[:, column] for column in range(4)))
    sliced = replace(tick(), up=(Lane(np.full(DEVICES, 1e6), columns), lane(2e6)))
    assert desired.take(sliced, moved=False) == ([], [2])


@pytest.mark.parametrize("wrong", [tick().up[:1], (*tick().up, lane(1e6))])
def test_a_tick_with_other_lanes_is_refused(wrong: tuple[Lane, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit 3 links with 2"):
        in_force(tick()).take(replace(tick(), up=wrong), moved=False)


def test_a_tick_for_other_devices_is_refused() -> None:
    rates = np.full(2 * DEVICES, 1e6)
    with pytest.raises(ValueError, match="for 6 devices does not fit 3 links"):
        in_force(tick()).take(plain_tick(rates, rates), moved=False)
