"""Whole runs of EMQ on real sockets: uploads take what power control planned."""

from collections.abc import Callable
from typing import Any

from tests.system.commands import ROOT, Ended
from tests.system.test_whole_runs import events

QUICK = ROOT / "examples" / "emq" / "quick.yaml"
_SHORTER = (
    "devices.count=6",
    "training.local_epochs=1",
    "training.growth=0",
    "training.longest=null",
    "radio.rate.bandwidth_hz=100000",
    # Downloads of a few frames at high rates say little of links on a busy machine.
    "validity.rate_ratio=[0.8, 1.1]",
)


def rounds_of(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.output
    found = ended.summary["rounds"]
    assert isinstance(found, dict)
    return found


def test_uploads_take_what_was_planned_and_the_slowest_is_the_planned_one(
    run: Callable[..., Ended],
) -> None:
    ended = run(
        "full",
        *_SHORTER,
        "max_versions=3",
        "method.power_control={kind: full}",
        "method.budget={}",
        experiment=QUICK,
    )
    rounds = rounds_of(ended)
    assert len(rounds["rounds"]) == 3
    assert rounds["largest_rate_gap"] < 1e-6
    # Rates are those of the plan in every tick of every round, on every link that sends.
    assert rounds["rates_compared"] > 3 * 6
    assert rounds["largest_rate_drift"] < 1e-6
    for one in rounds["rounds"]:
        assert one["devices"] == list(range(6))
        assert one["coefficient"] == [1.0] * 6
        planned, measured = one["planned_s"], one["measured_s"]
        # At full power devices differ by far more than a busy machine delays them.
        assert planned.index(max(planned)) == one["slowest"]
        # No upload is faster than its link, but for a burst of two frames.
        for plan_s, took_s, rate_bps in zip(planned, measured, one["rate_bps"], strict=True):
            assert took_s > plan_s - 3 * 1514 * 8 / rate_bps - 0.01
        assert max(measured) < 1.5 * max(planned) + 0.5
    assert rounds["slowest_as_planned"] == 3
    assert "3 versions are published" in ended.output


def test_a_run_ends_with_its_budget_and_says_so(run: Callable[..., Ended]) -> None:
    ended = run(
        "budget",
        *_SHORTER,
        "method.budget={energy_j: 1.0e+3, latency_s: 3}",
        experiment=QUICK,
    )
    rounds = rounds_of(ended)
    assert rounds["stop_reason"] == "the latency budget of 3 s is spent (planned)"
    costs = [one["round_planned_s"] for one in rounds["rounds"]]
    assert sum(costs) > 3 > sum(costs[:-1])
    assert ended.summary["valid"] is True
    assert (rounds["rounds_ended"], rounds["spent_budget"]) == (len(costs), "latency")
    # By the quantiser 16 bits of 32 at most; on the wire, acknowledgements of downloads come on top.
    assert rounds["nominal_share"] < rounds["wire_share"] < 0.8
    metered = events(ended.run_dir, "upload_metered")
    assert len(metered) == 6 * len(costs)
    assert all(float(str(event["upload_j"])) > 0 for event in metered)
