"""Calibration: what real updates over shaped links show."""

import json

import pytest
from commandline import command

from fadelab.local.calibrate import Calibration


def test_the_ratio_is_goodput_over_programmed_rate() -> None:
    measured = Calibration(programmed_bps=2e6, update_bytes=100_000, seconds=0.4, goodput_bps=1.9e6)
    assert measured.ratio == pytest.approx(0.95)


@pytest.mark.namespaces
@pytest.mark.usefixtures("_needs_sandbox")
def test_links_of_different_rates_are_measured_at_once() -> None:
    ended = command("link", "calibrate", "--rates-mbps", "2,8", "--megabytes", "0.5", "--json")
    rows = json.loads(ended.stdout)
    assert [row["programmed_bps"] for row in rows] == [2e6, 8e6]
    for row in rows:
        assert row["update_bytes"] == 500_000
        # 1448 payload bytes of each 1514-byte frame are what TCP leaves at most; a busy machine may
        # look late at the first packet, and measures too short a time then.
        assert 0.8 < row["ratio"] < 1.1
        assert row["goodput_bps"] == pytest.approx(row["ratio"] * row["programmed_bps"])
