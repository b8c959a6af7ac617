"""Method emq: what it is made of, what it refuses, and what becomes of planned rounds in a summary."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from tests.deploy.report_outline import text_of
from tests.deploy.report_runs import change, make_run
from tests.deploy.run_record import START_S, RunWriter
from tests.deploy.sweep_runs import summary_of

from fadelab.allocations import check_one_emulator
from fadelab.compare.measures import measures_of
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.experiment import check_experiment, load_experiment
from fadelab.methods import EmqMethod, MethodConfig, MethodPieces
from fadelab.report.rounds import round_plans as report_rounds
from fadelab.results.record import RunRecord
from fadelab.results.rounds import round_plans
from fadelab.sweep.plan import load_plan
from fadelab_agent.lazy_config import AquilaRuleConfig
from fadelab_agent.policy import DenseConfig
from fadelab_agent.wire_size import full_precision_wire_bits
from fadelab_server.config import FedAvgConfig, LazyConfig
from fadelab_server.rounds.config import CellFreeAllocationConfig, MinMaxConfig, WmmseConfig

QUICK = Path(__file__).parents[2] / "examples" / "emq" / "quick.yaml"


def pieces(**settings: Any) -> MethodPieces:
    method: MethodConfig = TypeAdapter(MethodConfig).validate_python({"name": "emq"} | settings)
    assert isinstance(method, EmqMethod)
    return method.pieces()


def test_pieces_carry_every_setting() -> None:
    made = pieces()
    assert made.aggregation == FedAvgConfig(missing="zero")
    assert made.allocation == CellFreeAllocationConfig(power_control=MinMaxConfig(kind="min_max"))
    assert made.innovation is None
    assert not made.error_memory
    lazy = pieces(
        upload={"kind": "dense"},
        innovation={"kind": "aquila", "beta": 0.25},
        error_memory=True,
        power_control={"kind": "wmmse"},
        budget={"energy_j": 2, "counts": "measured"},
        during_round="recompute",
    )
    assert lazy.aggregation == LazyConfig()
    assert lazy.policy == DenseConfig()
    assert lazy.innovation == AquilaRuleConfig(kind="aquila", beta=0.25)
    assert not lazy.error_memory  # what is not sent stays in the difference to the reference
    allocation = lazy.allocation
    assert isinstance(allocation, CellFreeAllocationConfig)
    assert allocation.power_control == WmmseConfig(kind="wmmse")
    assert (allocation.budget.energy_j, allocation.budget.counts) == (2, "measured")
    assert allocation.during_round == "recompute"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("method.budget={}", "power_control is sqp_budget"),
        ("radio.rate={kind: shannon, bandwidth_hz: 1000}", "radio.rate must be of kind cell_free"),
        ("radio.rate.combining=lp_mmse", "combining mr"),
        ("devices.count=301", "at most 300"),
        ("training.growth=0", "growth and longest together"),
    ],
)
def test_experiments_that_cannot_be_are_refused_in_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(FadelabError, match=sentence) as caught:
        load_experiment(QUICK, [setting])
    assert caught.value.code == ExitCode.USAGE


def test_a_deployment_of_several_emulators_is_refused() -> None:
    experiment = check_experiment(yaml.safe_load(QUICK.read_text()), "quick")
    with pytest.raises(FadelabError, match="a cluster has several"):
        check_one_emulator(experiment.method.pieces(), "a cluster")


PLAN = {
    "again": False,
    "power_control": "min_max",
    "devices": [0, 1],
    "coefficient": [0.5, 1.0],
    "rate_bps": [1e6, 2e6],
    "upload_s": [0.8, 1.0],
    "upload_j": [0.04, 0.1],
    "entries": 100_000,
    "bits": [7e5, 1.9e6],
    "wire_bits": [8e5, 2e6],
    "round_s": 1.1,
    "round_j": 0.2,
    "iterations": 3,
    "residual": 0.0,
    "solve_s": 0.01,
    "largest_rate_gap": 1e-9,
}


def planned_run(folder: Path) -> RunRecord:
    """Write a round of two uploads, and one in which device 1 was silenced and nothing arrived."""
    run = RunWriter(folder)
    run.write("server", 0.0, "run_started", start_mono_s=START_S)
    run.write("server", 1.0, "round_planned", version=0, update_ids=[1, 1], **PLAN)
    for device, last_s in ((0, 2.2), (1, 2.0)):
        run.write(f"agent-{device}", 1.0, "allotted", task="digits", update_id=1)
        run.upload("upload_complete", 2.3, device, update_id=1, last_mono_s=START_S + last_s)
        run.write("server", 2.3, "upload_metered", device=device, version=0, upload_j=0.06)
    totals = {
        "planned_s": 1.1,
        "planned_j": 0.2,
        "measured_s": 1.3,
        "measured_j": 0.15,
    }
    sums = {f"{name[:-2]}_total{name[-2:]}": value for name, value in totals.items()}
    run.write("server", 2.4, "round_cost", version=1, **totals, **sums)
    silent = PLAN | {"coefficient": [0.5, 0.0], "upload_s": [0.8, 0.0], "upload_j": [0.04, 0.0]}
    run.write("server", 3.0, "round_planned", version=1, update_ids=[2, 2], **silent)
    run.write("server", 3.5, "run_stopped", reason="the energy budget of 1 J is spent (planned)")
    return RunRecord.load(folder)


def test_planned_and_measured_stand_side_by_side(tmp_path: Path) -> None:
    plans = round_plans(planned_run(tmp_path), 300_000)
    assert plans is not None
    assert plans.stop_reason == "the energy budget of 1 J is spent (planned)"
    first, second = plans.rounds
    assert first.measured_s == pytest.approx([1.2, 1.0])
    assert first.measured_j == [0.06, 0.06]
    assert (first.slowest, first.slowest_as_planned) == (0, False)
    assert (first.round_measured_s, first.round_planned_s) == (1.3, 1.1)
    assert second.silenced == [1]
    assert second.measured_s == [None, None]
    assert second.slowest_as_planned is None
    assert second.round_measured_s is None
    # 1.2 / 0.8 and 1.0 / 1.0, both longer than 50 frames
    assert plans.median_ratio == pytest.approx(1.25)
    assert plans.long_uploads == 2
    assert (plans.slowest_judged, plans.slowest_as_planned, plans.silenced) == (1, 0, 1)
    assert (plans.planned_j, plans.measured_j) == (0.2, 0.15)
    assert (plans.rounds_ended, plans.spent_budget) == (1, None)
    # Three updates were due: the fourth device had no power.
    assert plans.nominal_share == pytest.approx((7e5 + 1.9e6 + 7e5) / (3 * 32 * 1e5))
    full_bits = full_precision_wire_bits(100_000, max_payload_bytes=16384)
    assert plans.wire_share == pytest.approx(8 * 300_000 / (3 * full_bits))
    assert plans.largest_rate_drift is None  # no timeline was recorded


def test_the_report_shows_every_upload(tmp_path: Path) -> None:
    assert report_rounds(make_run(2)) == ""
    run = change(make_run(2), rounds=round_plans(planned_run(tmp_path), 300_000))
    text = text_of(report_rounds(run))
    assert "Rounds planned by power control min_max" in text
    assert "1.5" in text  # measured over planned of device 0
    assert "the energy budget of 1 J is spent (planned)" in text


def test_comparisons_count_rounds_and_what_ended_them(tmp_path: Path) -> None:
    plans = round_plans(planned_run(tmp_path), 300_000)
    assert plans is not None
    summary = summary_of({0.0: 0.1}).model_copy(update={"rounds": plans})
    names = ("rounds", "planned_s", "measured_j", "energy_ends", "straggler", "silenced")
    values = {}
    for name in names:
        (measure,) = measures_of(name, summary.tasks)
        values[name] = measure.of(summary)
        assert measure.of(summary_of({0.0: 0.1})) is None
    assert values == {
        "rounds": 1,
        "planned_s": 1.1,
        "measured_j": 0.15,
        "energy_ends": 0,
        "straggler": 0,
        "silenced": 1,
    }
    (ratio,), (share,) = (
        list(measures_of(name, summary.tasks)) for name in ("upload_ratio", "wire_share")
    )
    assert ratio.of(summary) == pytest.approx(1.25)
    assert (share.of(summary), share.higher_is_better) == (plans.wire_share, False)


def test_runs_without_planned_rounds_have_no_such_part(tmp_path: Path) -> None:
    run = RunWriter(tmp_path)
    run.write("server", 0.0, "run_started", start_mono_s=START_S)
    assert round_plans(RunRecord.load(tmp_path), 0) is None


def test_the_sweeps_of_the_examples_are_sound() -> None:
    assert len(load_plan(QUICK.with_name("sweep-main-pairs.yaml")).runs) == 3 * 3 * 2 * 5
    assert len(load_plan(QUICK.with_name("cifar10.yaml")).runs) == 3 * 3 * 2 * 3
    full = load_plan(QUICK.with_name("sweep-power-control.yaml")).runs
    assert len(full) == 7 * 11 * 2 * 5
    # Every quantiser under every power control, with the same optimiser.
    chosen = {(run.experiment.method.pieces().allocation, run.point) for run in full}
    assert len(chosen) == 7 * 11 * 2
    assert {run.experiment.training.optimiser for run in full} == {"adadelta"}
