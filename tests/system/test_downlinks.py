"""What a downlink saves is seen on the link, and what it costs in what is learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.system.commands import Ended
from tests.system.test_whole_runs import events

from fadelab_server import checkpoint

Run = Callable[..., Ended]

VERSIONS = 5
# Two devices: whichever update comes first, their sum is the same number. How well links obey in runs
# of two seconds is not what this is about.
EXPERIMENT = """
name: downlinks
duration_s: 60
max_versions: 5
devices: {count: 2}
task: {name: digits, model: {kind: mlp, hidden: 64}}
partition: {kind: iid}
training: {local_epochs: 1, batch_size: 16, learning_rate: 0.1}
method:
  name: fedavg
  upload: {kind: topk, fraction: 0.01}
radio:
  mobility: {kind: static, placement: {kind: uniform}}
  rate: {kind: fixed, rate_up_bps: 4e+6, rate_down_bps: 4e+6}
validity: {min_saturated_bytes: 1000000000}
"""


def learned(ended: Ended) -> NDArray[np.float32]:
    _, arrays = checkpoint.load(ended.run_dir / "checkpoints")
    return arrays[f"0.vector.{VERSIONS}"].astype(np.float32)


def down_bytes(ended: Ended) -> int:
    """Return the downlink's payload after the first model; the ledger must agree."""
    models = events(ended.run_dir, "model_received")
    assert {model["version"] for model in models} == set(range(VERSIONS))
    total: dict[str, Any] = ended.summary["total"]  # type: ignore[assignment]
    partial = events(ended.run_dir, "model_partial")
    brought = sum(int(str(model["payload_bytes"])) for model in [*models, *partial])
    assert total["bytes"]["down"]["payload"] == brought
    return sum(int(str(m["payload_bytes"])) for m in models if m["version"] != 0)


def test_a_delta_learns_what_the_whole_model_does_and_takes_a_fraction_of_its_bytes(
    run: Run, tmp_path: Path
) -> None:
    experiment = tmp_path / "downlinks.yaml"
    experiment.write_text(EXPERIMENT)

    def ended(name: str, downlink: str) -> Ended:
        found = run(name, f"transport.downlink={downlink}", experiment=experiment)
        assert found.code == 0, found.output
        return found

    full = ended("full", "{kind: full}")
    delta = ended("delta", "{kind: delta}")
    steps = ended("steps", "{kind: quantised, codec: {kind: laq, bits: 4, block: 256}}")

    np.testing.assert_array_equal(learned(delta), learned(full))
    losses = [
        {event["version"]: event["loss"] for event in events(found.run_dir, "validation")}
        for found in (full, delta)
    ]
    assert losses[0] == losses[1]
    kinds = {
        found.run_dir.name: {
            str(event["kind"])
            for event in events(found.run_dir, "model_received")
            if event["version"] != 0
        }
        for found in (full, delta, steps)
    }
    assert kinds == {"full": {"full"}, "delta": {"delta"}, "steps": {"quantised"}}
    # Two devices' hundredths, each with its place, of all entries; four bits of 32, and scales.
    assert down_bytes(delta) < 0.03 * down_bytes(full)
    assert down_bytes(steps) < 0.14 * down_bytes(full)
