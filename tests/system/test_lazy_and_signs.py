"""Whole runs whose devices send little: innovations now and then, or signs alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.system.commands import Ended
from tests.system.test_whole_runs import events

Run = Callable[..., Ended]
_EXPERIMENT = """
name: little
duration_s: 60
max_versions: 16
devices: {count: 3, compute: {cpu_hz: 1.0e+9}}
task: {name: digits, model: {kind: logistic}}
partition: {kind: iid}
training: {local_steps: 3, batch_size: 2000, learning_rate: 0.5}
radio:
  mobility: {kind: static, placement: {kind: uniform}}
  rate: {kind: fixed, rate_up_bps: 5e+6, rate_down_bps: 5e+6}
method:
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[[str], Path]:
    def written(method: str) -> Path:
        path = tmp_path / "little.yaml"
        path.write_text(_EXPERIMENT + method)
        return path

    return written


def test_with_laq_devices_skip_uploads_and_the_model_learns_all_the_same(
    run: Run, experiment: Callable[[str], Path]
) -> None:
    ended = run(
        "lazy",
        experiment=experiment("""
  name: lazy
  upload: {kind: codec, codec: {kind: laq, bits: 8, block: per_layer}}
  innovation: {kind: laq}
"""),
    )
    assert ended.code == 0, ended.output
    assert ended.summary["tasks"]["digits"]["final"] > 0.85  # type: ignore[index]
    taken = events(ended.run_dir, "upload_complete")
    assert len(taken) == 3 * 16
    silent = [event for event in taken if event["packets"] == 0]
    skipped = events(ended.run_dir, "upload_skipped")
    assert 8 <= len(silent) <= len(skipped)
    # Each device says something at first, and what each says is worth its bits.
    assert {event["update_id"] for event in taken if event["packets"]} >= {1}
    bits = [int(str(event["nominal_bits"])) for event in events(ended.run_dir, "upload_ended")]
    assert bits.count(0) >= len(silent)
    assert set(bits) == {0, 2 * 32 + 8 * 650}


def test_signs_alone_learn_with_a_constant_modulus(
    run: Run, experiment: Callable[[str], Path]
) -> None:
    ended = run(
        "signs",
        experiment=experiment("""
  name: fedavg
  upload: {kind: codec, codec: {kind: sign_only}}
  substitute: {kind: constant, modulus: 0.02}
"""),
    )
    assert ended.code == 0, ended.output
    assert ended.summary["tasks"]["digits"]["final"] > 0.8  # type: ignore[index]
    uploads = events(ended.run_dir, "upload_complete")
    assert {tuple(event["classes"]) for event in uploads} == {("sign",)}  # type: ignore[arg-type]
    assert {event["payload_bytes"] for event in uploads} == {-(-650 // 8)}
