"""How many runs go on at once, and how long a sweep is expected to take."""

from pathlib import Path

import pytest
from sweep_runs import plan_of

from fadelab.sweep.load import Estimate, cores_of, default_jobs


@pytest.mark.parametrize(
    ("cores", "devices", "jobs"),
    [(1, 8, 1), (2, 8, 1), (3, 8, 1), (4, 8, 2), (16, 8, 8), (16, 101, 5), (4, 1000, 1)],
)
def test_every_run_has_cores_of_its_own(
    tmp_path: Path, cores: int, devices: int, jobs: int
) -> None:
    runs = plan_of(tmp_path, settings={"devices.count": devices}, seeds=1).runs
    assert cores_of(runs[0].experiment) >= 2
    assert default_jobs(runs, cores) == jobs


def test_the_largest_run_decides(tmp_path: Path) -> None:
    runs = plan_of(tmp_path, grid={"devices.count": [2, 400]}, variants=None, seeds=1).runs
    assert default_jobs(runs, 16) == 2
    assert default_jobs(runs[:1], 16) == 8


def test_time_is_expected_by_duration_and_overhead(tmp_path: Path) -> None:
    grid = {"duration_s": [10, 100], "radio.time_scale": [1, 5]}
    runs = plan_of(tmp_path, grid=grid, variants=None, seeds=1).runs
    estimate = Estimate()
    first = [estimate.run_s(run) for run in runs]
    assert [time_s - first[0] for time_s in first] == [0, -8, 90, 10]
    estimate.learn(runs[0], 10 + 4.0)
    estimate.learn(runs[3], 20 + 6.0)
    assert [estimate.run_s(run) for run in runs] == [15, 7, 105, 25]
    assert estimate.all_s(runs, 1) == 152
    # Two at a time take at least as long as the longest.
    assert estimate.all_s(runs, 2) == 105
    assert estimate.all_s([], 2) == 0


def test_runs_that_end_before_their_duration_are_expected_to_go_on_doing_so(
    tmp_path: Path,
) -> None:
    (run,) = plan_of(tmp_path, variants=None, seeds=1).runs
    estimate = Estimate()
    estimate.learn(run, 20.0)
    assert estimate.run_s(run) == pytest.approx(20.0)
