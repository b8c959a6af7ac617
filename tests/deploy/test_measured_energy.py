"""Energy by boards' own sensors, integrated over what agents did."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_record import RunWriter

from fadelab.results.power import energy_j, measured_energy
from fadelab.results.record import RunRecord


@given(
    st.lists(st.floats(0.0, 100.0), min_size=2, max_size=40),
    st.floats(-1.0, 50.0),
    st.floats(0.0, 50.0),
    st.floats(0.0, 50.0),
)
def test_energies_of_neighbouring_intervals_add_up(
    powers: list[float], start_s: float, first_s: float, second_s: float
) -> None:
    at_s, power_w = np.arange(len(powers), dtype=float), np.array(powers)
    ends = (start_s, start_s + first_s, start_s + first_s + second_s)
    whole = energy_j(at_s, power_w, [(ends[0], ends[2])])
    parts = energy_j(at_s, power_w, [(ends[0], ends[1]), (ends[1], ends[2])])
    assert whole == pytest.approx(parts, abs=1e-9)
    assert whole + 1e-9 >= 0


def test_a_constant_power_times_its_time_is_the_energy() -> None:
    at_s = np.array([0.0, 1.0, 4.0])
    assert energy_j(at_s, np.full(3, 5.0), [(0.5, 3.5)]) == pytest.approx(15.0)


def events(folder: Path, *rows: dict[str, Any]) -> None:
    common = {"role": "agent", "id": "0", "t_s": 0.0}
    lines = [json.dumps({**common, **row}) for row in rows]
    (folder / "events").mkdir(exist_ok=True)
    (folder / "events" / "agent-0.jsonl").write_text("\n".join(lines) + "\n")


def server(folder: Path, start_s: float, end_s: float) -> None:
    rows = [
        {"event": "run_started", "mono_s": start_s, "start_mono_s": start_s},
        {"event": "run_stopped", "mono_s": end_s},
    ]
    common = {"role": "server", "id": "0", "t_s": 0.0}
    lines = [json.dumps({**common, **row}) for row in rows]
    (folder / "events").mkdir(exist_ok=True)
    (folder / "events" / "server-0.jsonl").write_text("\n".join(lines) + "\n")


def test_phases_get_their_share(tmp_path: Path) -> None:
    RunWriter(tmp_path)
    server(tmp_path, 10.0, 20.0)
    events(
        tmp_path,
        {"event": "power_source", "mono_s": 5.0, "source": "given"},
        # 2 W for idling, 6 W for training from 12 to 14, with steep flanks.
        {
            "event": "power",
            "mono_s": 21.0,
            "at_mono_s": [8.0, 11.999, 12.0, 14.0, 14.001, 21.0],
            "power_w": [2.0, 2.0, 6.0, 6.0, 2.0, 2.0],
        },
        {"event": "trained", "mono_s": 14.0, "real_s": 2.0, "emulated_s": 1.0},
        {"event": "plan", "mono_s": 14.5, "task": "digits", "update_id": 1},
        {"event": "upload_ended", "mono_s": 17.5, "task": "digits", "update_id": 1},
    )
    found = measured_energy(RunRecord.load(tmp_path), 0)
    assert found is not None
    assert found.source == "given"
    assert found.training_j == pytest.approx(12.0)
    assert found.uploads_j == pytest.approx(6.0)
    assert found.total_j == pytest.approx(28.0, rel=1e-3)
    assert found.mean_w == pytest.approx(2.8, rel=1e-3)


@pytest.mark.parametrize("rows", [[], [{"event": "power_source", "mono_s": 1.0, "source": None}]])
def test_without_a_sensor_there_is_the_model_only(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    RunWriter(tmp_path)
    server(tmp_path, 10.0, 20.0)
    events(tmp_path, *rows)
    assert measured_energy(RunRecord.load(tmp_path), 0) is None
