"""Whole runs of SP-FL on real sockets: starved moduli, and losses drawn from the formula."""

from collections.abc import Callable

import pytest
from tests.system.commands import ROOT, Ended
from tests.system.test_whole_runs import events

Run = Callable[..., Ended]
QUICK = ROOT / "examples" / "sp_fl" / "quick.yaml"
_SMALL = (
    "devices.count=4",
    "partition={kind: iid}",
    "radio.area_m=[300, 300]",
    # On a busy machine fast downlinks are not always kept full.
    "validity.rate_ratio=[0.5, 1.1]",
)


def test_with_moduli_starved_learning_goes_on_by_signs_alone(run: Run) -> None:
    ended = run(
        "starved",
        *_SMALL,
        "duration_s=60",  # eight rounds take 20, unless others keep the machine busy
        "max_versions=8",
        "method.allocation=signs_first",
        "method.compensation={kind: constant, modulus: 0.01}",
        experiment=QUICK,
    )
    assert ended.code == 0, ended.output
    found = ended.summary["sp_fl"]
    assert isinstance(found, dict)
    assert found["loss"] == "deadline"
    # 230 kbit of moduli do not fit into 0.8 s at the least rate of a link, which is what is left.
    assert found["both"] == 0
    assert found["signs_alone"] > found["updates"] / 3
    tasks = ended.summary["tasks"]
    assert isinstance(tasks, dict)
    assert tasks["digits"]["final"] > 0.3
    # The link treats the classes apart: each queue has counted what went through it.
    devices = ended.summary["devices"]
    assert isinstance(devices, dict)
    for device in devices.values():
        sent = {own["name"]: own["bytes"] for own in device["up"]["classes"]}
        assert sent["sign"] > 0
        assert sent["modulus"] < 3 * sent["sign"]
        # The queues' counters add up to the interface's, but for what waited at the end.
        assert abs(sum(sent.values()) - device["bytes"]["up"]["wire"]) <= 8 * 1514
    total = ended.summary["total"]
    assert isinstance(total, dict)
    # Connections are broken off in the midst of their moduli, after each round: what a queue still
    # lets through of these, nobody counts any more.
    up = total["bytes"]["up"]
    assert abs(up["residual"]) <= max(0.08 * up["wire"], 4 * 1514)
    plans = events(ended.run_dir, "round_plan")
    assert {plan["status"] for plan in plans} == {"ROUND_STATUS_SEND"}
    assert "loss deadline" in ended.output
    assert "Signs and moduli" in (ended.run_dir / "report.html").read_text()


@pytest.mark.parametrize(("access", "fading"), [("tdm", "independent"), ("parallel", "common")])
def test_other_ways_of_sharing_reach_the_links(run: Run, access: str, fading: str) -> None:
    ended = run(
        "shared", *_SMALL, "duration_s=60", "max_versions=3", f"method.access={access}",
        f"method.fading={fading}", experiment=QUICK,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    found = ended.summary["sp_fl"]
    assert isinstance(found, dict)
    assert found["rounds"] >= 2
    # Rates that the division gave sufficed for signs, and some of them came.
    assert found["sign"]["carried"] > 0.25
    assert found["both"] + found["signs_alone"] > 0


def test_losses_drawn_from_the_formula_leave_nothing_on_the_way(run: Run) -> None:
    ended = run(
        "drawn", *_SMALL, "duration_s=60", "max_versions=3", "method.loss=bernoulli",
        experiment=QUICK,
    )  # fmt: skip
    assert ended.code == 0, ended.output
    found = ended.summary["sp_fl"]
    assert isinstance(found, dict)
    assert found["rounds"] == 3
    assert found["loss"] == "bernoulli"
    # What was drawn away had arrived all the same.
    taken = events(ended.run_dir, "upload_complete")
    assert len(taken) == found["updates"]
    assert all(own["packets"] == own["packets_announced"] for own in taken)
