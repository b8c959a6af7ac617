"""What a run directory amounts to, by what it holds itself."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fadelab.experiment import Experiment
from fadelab.results.schema import Summary
from fadelab.sweep.plan import digest_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found in a run directory."""

    experiment: Experiment | None = None
    """None if there is no run."""
    summary: Summary | None = None
    """None if the run was ended before it could sum up."""
    failure: str | None = None
    """What the manifest says of a run that ended early."""
    problem: str | None = None
    """Why the run cannot be read, in a sentence."""

    @property
    def is_valid(self) -> bool:
        """Whether the run is finished and valid."""
        return self.summary is not None and self.summary.valid and self.failure is None

    @property
    def reasons(self) -> list[str]:
        """Why it is not."""
        if self.is_valid:
            return []
        if self.problem is not None:
            return [self.problem]
        if self.summary is None:
            return ["it was ended before it could sum up"]
        return self.summary.invalid_reasons or [self.failure or "no reason was recorded"]

    def is_of(self, digest: str) -> bool:
        """Say whether it is a run of the experiment with that digest."""
        return self.experiment is not None and digest_of(self.experiment) == digest


def judge(run_dir: Path) -> Verdict:
    """Look at a run directory; whatever it holds, this raises nothing."""
    try:
        manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        experiment = Experiment.model_validate(manifest["experiment"])
    except FileNotFoundError:
        return Verdict(problem="there is no run")
    except (OSError, ValueError, KeyError, TypeError):
        return Verdict(problem="its manifest.json cannot be read, or is of another version")
    failure = manifest.get("failure")
    failure = None if failure is None else str(failure)
    path = run_dir / "summary.json"
    try:
        return Verdict(experiment, Summary.model_validate_json(path.read_bytes()), failure)
    except FileNotFoundError:
        return Verdict(experiment, None, failure, failure)
    except (OSError, ValidationError):
        return Verdict(
            experiment,
            None,
            failure,
            f"its summary.json is damaged or of another version: `fadelab report {run_dir}` "
            "computes it again",
        )
