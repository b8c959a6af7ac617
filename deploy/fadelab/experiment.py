"""The experiment file: YAML in, one validated model out, errors as sentences."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.methods import MethodConfig
from fadelab_agent.config import ComputeConfig, PartitionConfig, TaskConfig, TrainingConfig
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.world import RadioWorld
from fadelab_proto.config import StrictModel


class DevicesConfig(StrictModel):
    """The devices and what they can do."""

    count: int = Field(ge=1, le=5000, description="Number of device agents.")
    compute: ComputeConfig = Field(
        ComputeConfig(),
        description="Emulated processor: its speed decides how long training takes.",
    )


class TransportConfig(StrictModel):
    """How models and updates are cut into packets."""

    max_payload_bytes: int = Field(
        16384,
        ge=512,
        le=1 << 20,
        description="Largest payload of a packet: what a broken connection may cost at most.",
    )
    stall_s: float = Field(
        10.0, gt=0, description="Seconds in contact without progress that are always tolerated."
    )


class ValidityConfig(StrictModel):
    """The bounds that a run's own measurements must keep for it to be called valid."""

    rate_ratio: tuple[float, float] = Field(
        (0.97, 1.03), description="Achieved over programmed bytes of every saturated link."
    )
    min_saturated_bytes: int = Field(
        75_700, ge=0, description="Links that were saturated for less are not judged: 50 frames."
    )
    lateness_p99_ms: float = Field(20.0, gt=0, description="Lateness of link updates.")
    resume_p95_ms: float = Field(
        50.0, gt=0, description="From a window's reopening to the first frame of a waiting uplink."
    )
    leaked_packets: int = Field(0, ge=0, description="Packets seen in closed windows, all links.")

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> Self:
        low, high = self.rate_ratio
        if not 0 < low <= 1 <= high:
            raise ValueError(f"rate_ratio is [{low:g}, {high:g}]; 1 must lie inside, above 0")
        return self


class Experiment(StrictModel):
    """One federated-learning run over emulated wireless links."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    description: str = ""
    seed: int = Field(
        0, ge=0, lt=2**63, description="The one seed that everything random hangs on."
    )
    duration_s: float = Field(gt=0, le=1e6, description="Emulated seconds.")
    max_versions: int | None = Field(
        None, ge=1, description="End the run when this many model versions are published."
    )
    devices: DevicesConfig
    task: TaskConfig
    partition: PartitionConfig
    training: TrainingConfig
    method: MethodConfig
    radio: RadioConfig
    transport: TransportConfig = TransportConfig()
    validity: ValidityConfig = ValidityConfig()


def load_experiment(
    path: Path, overrides: Sequence[str] = (), *, seed: int | None = None
) -> Experiment:
    """Read and check an experiment file.

    Args:
        path: the YAML file.
        overrides: ``key.path=value`` settings that replace or add keys; values are YAML.
        seed: replaces the file's seed.

    Raises:
        FadelabError: USAGE, naming the file, the key, what was given and what is allowed.

    """
    tree = _read(path)
    for override in overrides:
        _apply(tree, override)
    if seed is not None:
        tree["seed"] = seed
    try:
        experiment = Experiment.model_validate(tree)
        # Some settings can only be judged together, such as listed places and their number.
        RadioWorld(experiment.radio, experiment.devices.count, experiment.seed)
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, str(path))) from None
    except ValueError as error:
        raise FadelabError(ExitCode.USAGE, f"{path}: {error}.") from None
    return experiment


def describe(error: ValidationError, source: str) -> str:
    """Return one sentence for each thing that is wrong, naming source, key, value and rule."""
    sentences = []
    for item in error.errors(include_url=False):
        key = _key(item["loc"])
        given = item["input"]
        if item["type"] == "extra_forbidden":
            sentences.append(f"{source}: unknown key '{key}'.")
        elif item["type"] == "missing":
            sentences.append(f"{source}: the key '{key}' is missing.")
        elif isinstance(given, dict | list) or not key:
            place = f"'{key}': " if key else ""
            sentences.append(f"{source}: {place}{_rule(item['msg'])}.")
        else:
            sentences.append(f"{source}: '{key}' is {given!r}; {_rule(item['msg'])}.")
    return "\n".join(sentences)


def _read(path: Path) -> dict[str, object]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FadelabError(ExitCode.USAGE, f"there is no experiment file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise FadelabError(
            ExitCode.USAGE, f"{path} is not YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(tree, dict):
        raise FadelabError(ExitCode.USAGE, f"{path} must hold keys and values, not a {_name(tree)}")
    return tree


def _apply(tree: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise FadelabError(ExitCode.USAGE, f"--set {override}: expected key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise FadelabError(ExitCode.USAGE, f"--set {key}: {text!r} is not a YAML value") from None
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise FadelabError(ExitCode.USAGE, f"--set {key}: '{part}' is a value, not a section")
        node = child
    node[last] = value


def _key(location: tuple[int | str, ...]) -> str:
    """Return the key as it stands in the file: pydantic adds the names of union members."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            parts[-1:] = [f"{parts[-1]}[{part}]"] if parts else [f"[{part}]"]
        elif part not in _discriminators():
            parts.append(part)
    return ".".join(parts)


def _rule(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"it {text}" if message.startswith("Input ") else text


def _name(value: object) -> str:
    return {list: "list", str: "text", type(None): "nothing"}.get(type(value), type(value).__name__)


@cache
def _discriminators() -> frozenset[str]:
    """Return the union members' names, which pydantic puts into the location of an error."""
    found: set[str] = set()

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("discriminator"), dict):
                found.update(node["discriminator"].get("mapping", {}))
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(Experiment.model_json_schema())
    return frozenset(found)
