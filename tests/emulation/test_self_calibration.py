"""Links are measured as they are: rates and delays that were programmed, and none that were not."""

import numpy as np
import pytest
from sandboxed import in_sandbox

from fadelab_emulation.backends.choice import Variant
from fadelab_emulation.backends.factory import make_backend
from fadelab_emulation.backends.plan import LinkPlan, QueueSizes
from fadelab_emulation.backends.topology import DEVICE_INDEX, shaper_class
from fadelab_emulation.delay_probe import PROBE_FRAME_BYTES
from fadelab_emulation.delay_watch import DelayWatch, TimedDelay
from fadelab_emulation.link_state import plain_tick
from fadelab_emulation.netlink import traffic
from fadelab_emulation.self_calibration import LinkCalibration, calibrate_links
from fadelab_proto.clock import SystemClock

pytestmark = pytest.mark.namespaces
RATES_BPS = np.array([1e6, 2e6, 4e6, 8e6, 16e6, 20e6])


def plan() -> LinkPlan:
    return LinkPlan([QueueSizes.for_rates(rate, rate / 2) for rate in RATES_BPS.tolist()])


def calibrated(variant: Variant, delay_s: float) -> tuple[list[LinkCalibration], int]:
    backend = make_backend(variant, plan(), SystemClock())
    first = plain_tick(RATES_BPS, RATES_BPS / 2, delay_s=delay_s)
    found = calibrate_links(backend, first, SystemClock())
    left = backend.sample().up.backlog_bytes.sum()
    backend.close()
    return found, int(left)


def test_four_links_from_the_slowest_to_the_fastest_keep_their_rates() -> None:
    found, left = in_sandbox(calibrated, Variant.LITE_CBPF, 0.0)
    assert [(row.device, row.direction) for row in found] == [
        (device, way) for device in (0, 2, 3, 5) for way in ("up", "down")
    ]
    for row in found:
        # 60 packets: one more or less at either end. A busy machine serves a link late, never early.
        assert 0.7 < row.achieved_bps / row.programmed_bps < 1.05
        assert row.achieved_delay_s is not None
        assert -0.001 < row.achieved_delay_s < 0.1
    assert left == 0


def misprogrammed() -> float:
    backend = make_backend(Variant.LITE_CBPF, plan(), SystemClock())
    first = plain_tick(RATES_BPS, RATES_BPS / 2)
    backend.apply(first)
    wrong = traffic.change_htb_class(DEVICE_INDEX, shaper_class(0), 500_000, 3028)
    backend.namespaces[0].netlink.change([wrong])
    (row, *_) = calibrate_links(backend, first, SystemClock())
    return row.achieved_bps


def test_a_link_that_does_not_obey_is_found_out() -> None:
    assert 0.7 < in_sandbox(misprogrammed) / 5e5 < 1.1


def watched() -> tuple[list[TimedDelay], list[TimedDelay], list[int]]:
    backend = make_backend(Variant.LITE_CBPF, plan(), SystemClock())
    watch = DelayWatch(backend)
    tick = plain_tick(RATES_BPS, RATES_BPS)
    backend.apply(tick)
    undelayed = watch.after_tick(tick, backend.sample(), 0.0)
    # A delay that is programmed and not carried out: this back-end has none to give.
    claimed = plain_tick(RATES_BPS, RATES_BPS, delay_s=0.03)
    watch.after_tick(claimed, backend.sample(), 1.0)
    found: list[TimedDelay] = []
    for _ in range(200):
        watch._probe.wait(0.01)
        found += watch.after_tick(claimed, backend.sample(), 1.5)
        if len(found) == 12:
            break
    return undelayed, found, watch.sent_bytes.tolist()


def test_a_delay_that_is_missing_is_seen() -> None:
    undelayed, found, sent_bytes = in_sandbox(watched)
    assert undelayed == []
    assert sent_bytes == [PROBE_FRAME_BYTES] * 6
    assert sorted((timed.device, timed.direction) for timed in found) == [
        (device, way) for device in range(6) for way in ("down", "up")
    ]
    for timed in found:
        assert timed.programmed_s == 0.03
        assert timed.achieved_s < 0.02
