"""A whole run of MADS on real sockets, and what it leaves to be checked."""

import math
from collections.abc import Callable

import pytest
from tests.system.commands import ROOT, Ended
from tests.system.test_whole_runs import events

from fadelab.results.contacts import uploads
from fadelab.results.record import RunRecord
from fadelab_proto.codecs import TopK

_SHORTER = ("duration_s=60", "devices.count=6", "radio.area_m=[300, 300]")


def test_devices_send_what_their_contacts_carry(run: Callable[..., Ended]) -> None:
    ended = run("mads", *_SHORTER, experiment=ROOT / "examples" / "mads" / "quick.yaml")
    assert ended.code == 0, ended.output
    plans = events(ended.run_dir, "plan")
    assert len(plans) >= 6
    for plan in plans:
        # The decision can be made again from what it was made from.
        power_w, snr_per_w = float(str(plan["planned_power_w"])), float(str(plan["snr_per_w"]))
        rate_bps = float(str(plan["bandwidth_hz"])) * math.log2(1 + power_w * snr_per_w)
        fits = 0.9 * rate_bps * float(str(plan["safe_contact_s"])) / (32 + 15)
        assert plan["k_keep"] in (math.floor(fits * (1 - 1e-9)), math.floor(fits * (1 + 1e-9)))
        assert plan["codec"] == TopK.__name__
    sent = list(uploads(RunRecord.load(ended.run_dir)))
    assert sum(upload.acknowledged for upload in sent) >= len(sent) / 2
    uses = events(ended.run_dir, "contact_used")
    assert sum(float(str(use["airtime_s"])) > 0 for use in uses) >= len(sent)
    powers = {use["power_w"] for use in uses if use["update_id"] is not None}
    assert len(powers) > 1
    taken = events(ended.run_dir, "upload_complete")
    assert {int(str(event["packets"])) for event in taken} >= {1}
    contacts = ended.summary["contacts"]
    assert isinstance(contacts, dict)
    assert contacts["used"] == len(uses)
    assert "updates acknowledged in theirs" in ended.output
    check_twin(ended.summary["twin"], len(plans))


def check_twin(twin: object, plans: int) -> None:
    """The formula twin decides as the devices did, and comes to much the same."""
    assert isinstance(twin, dict)
    decisions = twin["decisions"]
    assert decisions["replayed"] >= plans
    assert (decisions["mismatches"], decisions["incomplete"]) == (0, 0), decisions
    # A machine that does other work besides slows uploads; none is faster than its frames.
    durations = twin["durations"]["uploads"]
    carried = [upload for upload in durations if upload["formula_s"] is not None]
    assert len(carried) >= len(durations) / 2
    for upload in carried:
        assert upload["measured_s"] > 0.8 * upload["formula_s"] - 0.5
    total = twin["run"]["total"]
    assert total["twin"]["sent"] >= total["sockets"]["sent"] / 2
    assert total["twin"]["k_keep"] == pytest.approx(total["sockets"]["k_keep"], rel=0.5)
