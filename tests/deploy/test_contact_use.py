"""What became of contacts, computed from events; and the four checks over several runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.run_record import RunWriter

from fadelab.results.contact_schema import ContactUse
from fadelab.results.contacts import contact_use, uploads
from fadelab.results.mads_checks import Check, MeasuredRun, check_all
from fadelab.results.record import RunRecord

MADS = {"name": "mads"}


def write_contact(
    run: RunWriter,
    device: int,
    t_s: float,
    *,
    predicted_s: float,
    acknowledged: bool,
    update_id: int = 1,
    energy_j: float = 0.1,
    **plan: Any,
) -> None:
    fields: dict[str, Any] = {
        "task": "digits",
        "update_id": update_id,
        "dimension": 1000,
        "k_keep": 250,
        "safe_contact_s": 0.5,
        "estimated_bits": 8000,
        "full_rate_bps": 8000.0,
        "predicted_contact_s": predicted_s,
    }
    run.write(f"agent-{device}", t_s, "plan", **fields | plan)
    run.write(
        f"agent-{device}",
        t_s + 0.1,
        "contact_used",
        task="digits",
        update_id=update_id,
        energy_j=energy_j,
        allowance_j=0.2,
        queue_j=0.05 * update_id,
        acknowledged=acknowledged,
    )


def record(folder: Path, method: dict[str, Any] = MADS) -> RunWriter:
    run = RunWriter(folder, method=method)
    run.write("server", 0.0, "run_started", start_mono_s=103.0)
    run.write("server", 3.0, "run_stopped", reason="over")
    run.schedule()
    return run


def used(folder: Path) -> ContactUse:
    found = contact_use(RunRecord.load(folder))
    assert found is not None
    return found


def test_uploads_are_held_against_the_contact_that_really_was(tmp_path: Path) -> None:
    # Device 0 is in contact from 0 to 1 s and from 1.5 s on; device 1 from 0 to 0.5 s.
    run = record(tmp_path)
    write_contact(run, 0, 0.0, predicted_s=1.0, acknowledged=True)
    write_contact(run, 0, 1.6, predicted_s=9.0, acknowledged=False, update_id=2, energy_j=0.3)
    write_contact(run, 1, 0.0, predicted_s=9.0, acknowledged=False)
    found = used(tmp_path)
    assert (found.used, found.sent, found.acknowledged) == (3, 2, 1)
    assert (found.predicted_to_fit, found.covered, found.covered_acknowledged) == (2, 1, 1)
    assert found.mean_kept_share == 0.25
    assert found.mean_predicted_s == pytest.approx(5.0)
    assert found.mean_energy_j == pytest.approx(0.5 / 3)
    assert found.allowance_j == 0.2
    assert found.mean_queue_j == pytest.approx((0.1 + 0.05) / 2)


def test_a_fixed_share_fits_if_its_bits_do(tmp_path: Path) -> None:
    run = record(tmp_path, {"name": "afl"})
    write_contact(run, 0, 0.0, predicted_s=1.0, acknowledged=True, safe_contact_s=None)
    write_contact(
        run, 1, 0.0, predicted_s=0.5, acknowledged=False, safe_contact_s=None, k_keep=None
    )
    assert [upload.fits for upload in uploads(RunRecord.load(tmp_path))] == [True, False]
    assert used(tmp_path).covered == 1


def test_skipped_contacts_count_as_used(tmp_path: Path) -> None:
    run = record(tmp_path)
    run.write("agent-0", 0.1, "contact_skipped", task="digits")
    run.write(
        "agent-0",
        0.2,
        "contact_used",
        task="digits",
        update_id=None,
        energy_j=0.0,
        allowance_j=None,
        queue_j=0.0,
        acknowledged=False,
    )
    found = used(tmp_path)
    assert (found.used, found.skipped, found.sent) == (1, 1, 0)
    assert (found.mean_kept_share, found.allowance_j) == (None, None)


def test_other_devices_have_no_such_figures(tmp_path: Path) -> None:
    record(tmp_path)
    assert contact_use(RunRecord.load(tmp_path)) is None


CONTACTS = ContactUse(
    used=40,
    skipped=0,
    sent=40,
    acknowledged=39,
    predicted_to_fit=40,
    covered=40,
    covered_acknowledged=39,
    mean_predicted_s=4.0,
    mean_kept_share=0.4,
    mean_energy_j=0.1,
    allowance_j=0.1,
    mean_queue_j=0.0,
)


def speed(contact_s: float, share: float, final: float = 0.9, method: str = "mads") -> MeasuredRun:
    contacts = CONTACTS.model_copy(update={"mean_predicted_s": contact_s, "mean_kept_share": share})
    return MeasuredRun(f"contact of {contact_s:g} s", method, final, contacts)


def checked(*runs: MeasuredRun) -> list[Check]:
    return check_all(runs)


def test_linear_then_flat_is_recognised() -> None:
    linear = [speed(s, min(1.0, 0.1 * s)) for s in (2.0, 4.0, 8.0, 16.0, 40.0)]
    shape = checked(*linear)[0]
    assert shape.holds
    assert shape.figures["per_s"] == pytest.approx(0.1, rel=0.02)
    falling = [speed(s, 0.8 / s) for s in (2.0, 4.0, 8.0, 16.0)]
    assert checked(*falling)[0].holds is False
    assert checked(*linear[:2])[0].holds is None


def test_success_and_energy_have_their_limits() -> None:
    _, success, energy, _ = checked(speed(4, 0.4))
    assert (success.holds, energy.holds) == (True, True)
    poor = speed(4, 0.4)
    poor = replace(
        poor,
        contacts=poor.contacts.model_copy(
            update={"covered_acknowledged": 37, "mean_energy_j": 0.106}
        ),
    )
    _, success, energy, _ = checked(poor)
    assert (success.holds, energy.holds) == (False, False)
    assert success.figures["share"] == pytest.approx(37 / 40)
    assert energy.figures["worst_ratio"] == pytest.approx(1.06)


def test_mads_must_lose_nowhere_and_win_somewhere() -> None:
    def compared(*finals: tuple[float, float]) -> Check:
        runs = []
        for number, (own, fixed) in enumerate(finals):
            runs += [speed(number, 0.1, own), speed(number, 0.1, fixed, "0.05")]
        return checked(*runs)[3]

    assert compared((0.9, 0.9), (0.9, 0.8)).holds
    assert compared((0.9, 0.9), (0.9, 0.9)).holds is False
    assert compared((0.9, 0.8), (0.8, 0.9)).holds is False
    assert compared((0.9, 0.8), (0.8, 0.9)).figures["least_lead_over_0.05"] == pytest.approx(-0.1)
    assert checked(speed(1, 0.1))[3].holds is None
