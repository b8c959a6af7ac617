"""The tables of a sweep over contacts: worked out by hand from small sweeps and from known lines."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sweep_runs import plan_of, summary_of, sweep_folder, write_planned
from test_contact_use import CONTACTS, record, write_contact

from fadelab.compare.contact_tables import contact_tables, fit_hinge, main
from fadelab.compare.found import find_runs
from fadelab.compare.rows import Table

FIXED = {"name": "afl", "upload": {"kind": "topk", "fraction": 0.05, "indices": "paper"}}
CONTACT = {"kind": "exponential", "mean_contact_s": 4, "mean_gap_s": 4}
FINALS = {
    ("mads", "10"): [0.80, 0.82, 0.84],
    ("fixed-5", "10"): [0.70, 0.73, 0.74],
    ("fixed-50", "10"): [0.10, 0.10, 0.10],
    ("mads", "30"): [0.90, 0.91, 0.92],
    ("fixed-5", "30"): [0.91, 0.90, 0.92],
    ("fixed-50", "30"): [0.10, 0.10, 0.10],
}


def swept(path: Path) -> Path:
    """Write a sweep of MADS and two fixed shares at two speeds."""
    half = FIXED | {"upload": FIXED["upload"] | {"fraction": 0.5}}  # type: ignore[operator]
    plan = plan_of(
        path,
        settings={"radio.contact": CONTACT},
        variants={"mads": {"method": {"name": "mads"}}, "fixed-5": {"method": FIXED}}
        | {"fixed-50": {"method": half}},
        grid={"radio.mobility.speed_mps": [[10, 10], [30, 30]]},
        seeds=3,
    )
    folder = sweep_folder(path / "sweep", plan)
    for run in plan.runs:
        final = FINALS[run.variant, run.point[0][1]][run.seed - 1]
        changes: dict[str, Any] = {"mean_kept_share": None} if "fixed" in run.variant else {}
        if run.variant == "mads" and run.seed == 3:
            changes["mean_energy_j"] = 0.106
        write_planned(folder, run, final, contacts=CONTACTS.model_copy(update=changes))
        complete(folder.run_dir(run.name))
    return folder.path


def complete(run_dir: Path) -> None:
    """Add what the record of a run needs besides its experiment and summary."""
    (run_dir / "events").mkdir()
    path = run_dir / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command_mono_s": 0.0}))


def pooled(run_dir: Path) -> Table:
    """Return the kept shares of one run, as if it were valid."""
    found = find_runs([run_dir])
    valid = replace(found.runs[0], reasons=(), summary=summary_of({0.0: 0.1}))
    return contact_tables(replace(found, runs=(valid,)))[2]


def tables(path: Path) -> list[Table]:
    return contact_tables(find_runs([swept(path)]))


def texts(table: Table) -> list[list[str]]:
    return [[field.text for field in row] for row in table.rows]


def test_the_best_fixed_share_is_found_at_each_point_and_paired(tmp_path: Path) -> None:
    lead = texts(tables(tmp_path)[0])
    assert [row[:5] for row in lead] == [
        ["mads", "speed_mps 10", "0.8200", "0.05", "0.7233"],
        ["mads", "speed_mps 30", "0.9100", "0.05", "0.9100"],
    ]
    # 0.10, 0.09, 0.10: mean 0.0967, deviation 0.00577, t(2) 4.303.
    assert lead[0][5:] == ["+0.09667 [+0.08232, +0.1110]", "3", "better"]
    assert lead[1][-1] == "open"


def test_contacts_are_added_up_over_seeds(tmp_path: Path) -> None:
    use = texts(tables(tmp_path)[1])
    own = next(row for row in use if row[:2] == ["mads", "speed_mps 10"])
    assert own[2:7] == ["120", "0", "120", "97.5 % of 120", "97.5 % of 120"]
    assert own[7:] == ["4.00", "0.400", "0.102", "1.060"]
    fixed = next(row for row in use if row[:2] == ["fixed-5", "speed_mps 10"])
    assert fixed[8] == "\u2013"


def test_kept_shares_are_pooled_by_contact_time(tmp_path: Path) -> None:
    run = record(tmp_path)
    for number in range(1, 25):
        pair = (number + 1) // 2
        write_contact(
            run,
            0,
            0.02 * number,
            predicted_s=0.2 * pair,
            acknowledged=True,
            update_id=number,
            k_keep=min(800, 100 * pair),
        )
    shares = pooled(tmp_path)
    assert texts(shares)[0] == ["0.20 to 0.20", "2", "0.20", "0.100"]
    assert texts(shares)[-1] == ["2.00 to 2.40", "6", "2.20", "0.800"]
    assert sum(int(row[1]) for row in texts(shares)) == 24
    assert "per s up to 1.6 s, R^2 1.000" in shares.title


def test_a_hinge_is_recognised_and_a_few_points_tell_nothing() -> None:
    x_s = np.linspace(1, 12, 12)
    hinge = fit_hinge(x_s, np.minimum(0.1 * x_s - 0.05, 0.65))
    assert hinge is not None
    assert (hinge.offset, hinge.per_s, hinge.knee_s) == pytest.approx((-0.05, 0.1, 7.0), rel=0.02)
    assert hinge.r_squared == pytest.approx(1, abs=1e-3)
    falling = fit_hinge(x_s, np.array([0.1, 0.9] * 6))
    assert falling is not None
    assert falling.r_squared < 0.5
    assert fit_hinge(x_s[:3], x_s[:3]) is None


def test_the_command_writes_markdown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["contact_tables", str(swept(tmp_path))])
    main()
    said = capsys.readouterr().out
    assert said.startswith("## MADS and the best fixed share\n\n| variant |")
    assert "| mads | speed_mps 10 | 0.8200 | 0.05 |" in said
    monkeypatch.setattr("sys.argv", ["contact_tables", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert "neither a sweep nor a run directory" in str(ended.value.code)
