"""A world's links divided among machines."""

import numpy as np
from sandboxed import in_sandbox

from fadelab_emulation.backends.lite import lite_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.backends.share import LinkShare, of_devices
from fadelab_emulation.link_state import PacketLoss, plain_tick
from fadelab_proto.clock import SystemClock

import pytest  # isort: skip


def test_a_tick_of_some_devices_is_theirs_in_every_column() -> None:
    rates = np.array([1e6, 2e6, 3e6])
    loss = PacketLoss.independent(np.array([0.1, 0.2, 0.3]))
    is_open = np.array([True, False, True])
    tick = plain_tick(rates, 2 * rates, index=7, t_s=0.7, is_open=is_open, loss_up=loss)
    own = of_devices(tick, np.array([2, 1]))
    assert (own.index, own.t_s, own.devices) == (7, 0.7, 2)
    assert own.rate_up_bps.tolist() == [3e6, 2e6]
    assert own.rate_down_bps.tolist() == [6e6, 4e6]
    assert own.loss_up.tolist() == [0.3, 0.2]
    assert own.is_open.tolist() == [True, False]


def shared() -> dict[str, object]:
    links = lite_backend(LinkPlan([QueueSizes.for_rates(1e6, 1e6)] * 2), SystemClock())
    share = LinkShare(links, (3, 1), 4)
    rates = np.array([1e6, 2e6, 3e6, 4e6])
    share.apply(plain_tick(rates, rates))
    sample, counters = share.sample(), share.counters()
    waiting, classes = share.waiting_bytes(), share.class_counters()
    found = {
        "devices": sorted(sample.devices.tolist()),
        "shapes": [counters.up.wire_bytes.shape, counters.down.expected_losses.shape],
        "waiting": waiting.shape,
        "classes": {counts.shape for counts in (classes.sent_bytes, classes.overflowed_packets)},
    }
    share.close()
    return found


@pytest.mark.namespaces
def test_counts_bear_the_worlds_device_numbers() -> None:
    assert in_sandbox(shared) == {
        "devices": [1, 3],
        "shapes": [(4,), (4,)],
        "waiting": (2, 4),
        "classes": {(2, 1, 4)},
    }
