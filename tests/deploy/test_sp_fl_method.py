"""SP-FL and its baselines as experiments name them, and what a summary says of rounds."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from tests.deploy.run_record import QUICKSTART

from fadelab.exit_codes import FadelabError
from fadelab.experiment import load_experiment
from fadelab.methods import MethodConfig
from fadelab.methods.sp_fl import check_one_machine
from fadelab.results.record import RunRecord
from fadelab.results.sp_fl import sp_fl_rounds
from fadelab.sweep.plan import load_plan
from fadelab_agent.policy import FixedCodecConfig
from fadelab_emulation.schedule import ScheduleReader, ScheduleWriter
from fadelab_emulation.world import RadioWorld
from fadelab_proto.codecs.config import SignModulusConfig, SignOnlyConfig
from fadelab_server.sp_fl_config import RunningMean, SpFlConfig

QUICK = QUICKSTART.parent / "sp_fl" / "quick.yaml"
CONSTANT = {"kind": "constant", "modulus": 0.01}


def method(**settings: Any) -> MethodConfig:
    found: MethodConfig = TypeAdapter(MethodConfig).validate_python({"name": "sp_fl"} | settings)
    return found


def test_sp_fl_is_its_rule_the_codec_and_reports() -> None:
    pieces = method(modulus_bits=4).pieces()
    assert pieces.aggregation == SpFlConfig(modulus_bits=4, compensation=RunningMean())
    assert pieces.policy == FixedCodecConfig(codec=SignModulusConfig(kind="sign_modulus", bits=4))
    assert (pieces.reports, pieces.divides_radio, pieces.error_memory) == (True, True, False)


def test_signs_alone_are_sent_where_no_moduli_are_wanted() -> None:
    own = method(packets="signs", allocation="equal", compensation=CONSTANT, vote="majority")
    assert own.pieces().policy == FixedCodecConfig(codec=SignOnlyConfig(kind="sign_only"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("radio.classes=[]",), "needs a class 'sign' with a dscp"),
        (("radio.rate={kind: fixed, rate_up_bps: 1e6, rate_down_bps: 1e6}",), "kind shannon"),
        (("method.loss=datagram",), "must be of kind datagrams"),
        (("transport.classes.sign={kind: datagrams}",), "of kind datagrams: take loss: datagram"),
        (
            (
                "method.loss=datagram",
                *(f"transport.classes.{name}={{kind: datagrams}}" for name in ("sign", "modulus")),
            ),
            "packet_loss_up above 0",
        ),
        (("method.allocation=none",), "method.allocation"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    settings: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(FadelabError, match=sentence):
        load_experiment(QUICK, settings)


def test_without_losses_any_links_will_do() -> None:
    load_experiment(QUICK, ("method.loss=error_free", "radio.classes=[]"))


def test_between_machines_nothing_is_divided() -> None:
    with pytest.raises(FadelabError, match="one machine only"):
        check_one_machine(method())
    check_one_machine(method(loss="error_free"))


def test_settings_of_a_baseline_are_checked() -> None:
    with pytest.raises(ValidationError, match="no moduli ever arrive"):
        method(packets="signs", allocation="equal")


@pytest.mark.parametrize("name", ["deadlines.yaml", "parts.yaml", "modes.yaml", "cifar10.yaml"])
def test_sweeps_plan_without_a_mistake(name: str) -> None:
    assert len(load_plan(QUICK.parent / name).runs) > 10


def record(events: list[dict[str, Any]]) -> RunRecord:
    own: dict[tuple[str, str], list[Any]] = {("server", "sp_fl_round"): list(events)}
    return RunRecord({}, load_experiment(QUICK), 0.0, own, None, None)


def round_event(sign: list[float], modulus: list[float], predicted: float) -> dict[str, Any]:
    return {
        "event": "sp_fl_round",
        "predicted_sign": [predicted] * len(sign),
        "predicted_modulus": [predicted] * len(sign),
        "arrived_sign": sign,
        "arrived_modulus": modulus,
        "power": [0.5] * len(sign),
        "kappa": 0.25,
    }


def test_arrivals_are_held_against_what_was_predicted() -> None:
    found = sp_fl_rounds(record([round_event([1, 1, 1, 0], [1, 0, 0, 0], 0.75)] * 25))
    assert found is not None
    assert (found.rounds, found.updates) == (25, 100)
    assert (found.both, found.signs_alone, found.none) == (25, 50, 25)
    assert found.sign.empirical == 0.75
    assert found.sign.inside
    # 1.96 standard deviations of 100 trials, and half of one.
    assert found.sign.low == pytest.approx(0.75 - 1.96 * (0.75 * 0.25 / 100) ** 0.5 - 0.005)
    assert found.modulus.packets == 75
    assert found.modulus.empirical == pytest.approx(1 / 3)
    assert found.modulus.inside is False


def test_what_links_carry_by_their_rates_is_told_apart_from_what_arrived(tmp_path: Path) -> None:
    given = ("devices.count=2", "radio.rate.bandwidth_hz=2e5")
    experiment = load_experiment(QUICK, given)
    world = RadioWorld(experiment.radio, 2, 1)
    path, lanes = tmp_path / "links.schedule", experiment.radio.lane_names
    writer = ScheduleWriter(path, 2, experiment.radio.tick_s, 1, lanes)
    for _ in range(40):
        writer.write(world.step())
    writer.close()
    schedule = ScheduleReader(path)
    rate_bps = schedule.lane_rate_bps(1, uplink=True)
    # From the middle of the third tick to the end of the fifth.
    bits = float(rate_bps[2:5, 0].astype(float) @ (0.025, 0.05, 0.05))
    own: dict[tuple[str, str], list[Any]] = {
        ("server", "run_started"): [{"start_mono_s": 50.0}],
        ("server", "sp_fl_round"): [
            round_event([1, 1], [0, 0], 0.5)
            | {
                "devices": [0, 1],
                "begin_mono_s": 50.125,
                "end_mono_s": 50.25,
                "sign_bits": factor * bits,
                "modulus_bits": 1e9,
            }
            for factor in (0.999, 1.001)
        ],
    }
    found = sp_fl_rounds(RunRecord({}, experiment, 0.0, own, schedule, None))
    assert found is not None
    other = rate_bps[2:5, 1].astype(float) @ (0.025, 0.05, 0.05)
    assert found.sign.carried == (1 + 2 * (other > bits)) / 4
    assert found.modulus.carried == 0
    assert found.sign.empirical == 1


def test_without_rounds_nothing_is_claimed() -> None:
    found = sp_fl_rounds(record([]))
    assert found is not None
    assert found.rounds == 0
    assert found.sign.inside is None
