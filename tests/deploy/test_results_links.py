"""What a run's record says of its links: back-end, calibration, delay, connectivity, oracle."""

import json
from pathlib import Path

import pytest
from run_record import DEVICES, RunWriter, radio, write_whole_run

from fadelab.results.compute import compute_summary
from fadelab.results.manifest_links import complete_manifest
from fadelab.results.schema import Connectivity, Links, LossFidelity, Summary


def summary(run: RunWriter) -> Summary:
    write_whole_run(run)
    return compute_summary(run.folder)


def test_the_back_end_is_told_with_the_reason(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.ready(variant="netem/cbpf", backend="netem", passed_over=["lite/cbpf: no delay"])
    links = summary(run).links
    assert (links.backend, links.variant, links.window) == ("netem", "netem/cbpf", "hold")
    assert links.why == "the cheapest that this machine has for rates and contact windows"
    assert links.passed_over == ["lite/cbpf: no delay"]
    assert links.loss_is_seeded is False
    assert links.time_scale == 1.0
    assert not links.oracle


def test_an_old_or_aborted_run_says_nothing_of_all_this(tmp_path: Path) -> None:
    found = summary(RunWriter(tmp_path))
    assert found.links == Links(
        backend=None,
        variant=None,
        why=None,
        passed_over=[],
        window=None,
        loss_is_seeded=None,
        time_scale=1.0,
        oracle=False,
        calibration=[],
    )
    assert found.total.connectivity is None
    for link in (found.devices["0"].up, found.devices["0"].down):
        assert (link.connectivity, link.loss, link.delay) == (None, None, None)


def test_an_oracle_is_marked(tmp_path: Path) -> None:
    section = radio(prediction={"kind": "oracle", "horizon_s": 20})
    assert summary(RunWriter(tmp_path, radio=section)).links.oracle


def test_calibration_is_judged_by_the_experiment(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.calibrated(achieved_bps=0.98e6)
    run.calibrated(direction="down", programmed_bps=2e6, achieved_bps=1.9e6)
    good, bad = summary(run).links.calibration
    assert (good.device, good.direction, good.achieved_bps) == (0, "up", 0.98e6)
    assert (good.achieved_delay_ms, good.jitter_ms, good.transmission_ms) == (0.1, 0.0, 0.5)
    assert good.within_bounds
    assert not bad.within_bounds


def test_a_link_that_no_probe_crossed_is_not_within_bounds(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.calibrated(achieved_delay_s=None)
    (row,) = summary(run).links.calibration
    assert row.achieved_delay_ms is None
    assert not row.within_bounds


def test_delay_is_the_median_of_the_probes(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    for tick, achieved_s in enumerate((0.0501, 0.09, 0.0503)):
        run.delay_probe(1, tick, achieved_s=achieved_s)
    run.delay_probe(1, 3, programmed_s=0.06, achieved_s=0.06)
    devices = summary(run).devices
    found = devices["1"].up.delay
    assert found is not None
    assert found.probes == 4
    assert found.programmed_ms == pytest.approx(50.0)
    assert found.achieved_ms == pytest.approx((50.3 + 60.0) / 2)
    assert found.error_ms == pytest.approx((0.1 + 0.3) / 2)
    assert (found.jitter_ms, found.transmission_ms) == (0.0, 0.5)
    assert devices["1"].down.delay is None
    assert devices["0"].up.delay is None


def test_losses_come_from_the_account(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    write_whole_run(run)
    run.account(1, down_arrived_packets=400, down_lost_packets=8, down_expected_losses=4.0)
    found = compute_summary(tmp_path).devices["1"].down.loss
    assert found == LossFidelity(arrived=400, lost=8, expected=4.0, z=4 / (4 * 0.99) ** 0.5)


# Ticks of run_record.OPEN: device 0 is closed in tick 2, device 1 from tick 1 to tick 3.
THROUGH = [[0, 0], [5, 2], [9, 2], [9, 2], [12, 3], [15, 6], [18, 9], [18, 9]]


def test_the_confusion_matrix_of_each_link_and_of_all(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.achieved({"through_packets": THROUGH})
    found = summary(run)
    matrix = found.devices["1"].up.connectivity
    # Device 1: closed 1-2 and 2-3 silent, open 4-5 and 5-6 passed; the rest changes or is idle.
    assert matrix == Connectivity(open_passed=2, open_stuck=0, closed_silent=2, closed_passed=0)
    assert found.devices["1"].down.connectivity == Connectivity(
        open_passed=0, open_stuck=0, closed_silent=2, closed_passed=0
    )
    total = found.total.connectivity
    assert total is not None
    # Device 0: 0-1, 3-4, 4-5 and 5-6 passed; it is never closed from one reading to the next.
    assert (total.up.open_passed, total.up.closed_silent) == (6, 2)
    assert (total.up.open_stuck, total.up.closed_passed) == (0, 0)


@pytest.mark.parametrize(("time_scale", "passed"), [(1.0, 1), (50.0, 0)])
def test_the_guard_time_is_one_of_the_wall_clock(
    time_scale: float, passed: int, tmp_path: Path
) -> None:
    run = RunWriter(tmp_path, radio=radio(time_scale=time_scale))
    leaky = [[0, 0], [0, 0], [0, 1], [0, 2], [0, 3], [0, 3], [0, 3], [0, 3]]
    run.achieved({"through_packets": leaky})
    # The first closed interval never counts. The second begins 0.5 s after the closing, at
    # time_scale 50 those are 10 ms on the wall.
    matrix = summary(run).devices["1"].up.connectivity
    assert matrix is not None
    assert matrix.closed_passed == passed


def test_the_manifest_is_completed_at_once_and_again_the_same(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.ready()
    run.calibrated()
    write_whole_run(run)
    before = json.loads((tmp_path / "manifest.json").read_text())
    complete_manifest(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    manifest = json.loads(text)
    links = Links.model_validate(manifest.pop("links"))
    assert manifest == before
    assert links == compute_summary(tmp_path).links
    assert [row.device for row in links.calibration] == [0]
    complete_manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == text
    assert not list(tmp_path.glob("*.new"))


def test_a_run_without_links_keeps_its_manifest(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.fail("this machine has no back-end")
    before = (tmp_path / "manifest.json").read_bytes()
    complete_manifest(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert len(compute_summary(tmp_path).devices) == DEVICES
