"""The experiment file: YAML in, one validated model out, errors as sentences."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, ValidationError, model_validator

from fadelab.allocations import check_allocation
from fadelab.class_routes import check_losses, marked_routes
from fadelab.exit_codes import ExitCode, FadelabError
from fadelab.learning_tasks import LearningTask, TaskKey, check_tasks
from fadelab.methods import DmaFlMethod, MethodConfig, SpFlMethod
from fadelab.methods.sp_fl import check_links
from fadelab.mistakes import describe
from fadelab.periods import check_periods
from fadelab_agent.config import ComputeConfig, PartitionConfig, TaskConfig, TrainingConfig
from fadelab_agent.routes import ClassRoutes, MtuBytes
from fadelab_emulation.config import RadioConfig
from fadelab_emulation.contact.always import AlwaysConfig
from fadelab_emulation.sources import AnyRadio, link_source
from fadelab_proto.config import StrictModel
from fadelab_proto.datagram import ETHERNET_MTU_BYTES
from fadelab_server.config import (
    AflConfig,
    DmaFlConfig,
    DownlinkConfig,
    FedAsyncConfig,
    FedBuffConfig,
    FullDownlink,
)
from fadelab_server.sp_fl_config import SpFlConfig


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
    classes: ClassRoutes = Field(
        ClassRoutes(),
        description="How the packets of each class travel to the server. A class of radio.classes "
        "with the same name gives it its dscp.",
    )
    mtu_bytes: MtuBytes = ETHERNET_MTU_BYTES
    downlink: DownlinkConfig = Field(
        FullDownlink(), description="What is sent to a device that holds an earlier model."
    )
    accelerate: bool = Field(
        default=False,
        description="Decode and add up with compiled kernels, which give the same bytes; needs "
        "the extra 'accelerate'.",
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
    passed_while_closed: int = Field(
        0,
        ge=0,
        description="Intervals between readings in which packets passed a closed link, all links.",
    )
    stuck_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of intervals between readings in which packets waited at an open link "
        "and none passed; of all in which that can be told.",
    )
    loss_z: float = Field(
        5.0,
        gt=0,
        description="Lost packets of every link, in standard deviations from what was expected.",
    )
    min_losses: float = Field(
        20.0, ge=0, description="Links of fewer expected and fewer lost packets are not judged."
    )
    delay_error_share: float = Field(
        0.01, ge=0, description="Error of every link's median delay, relative to the delay."
    )
    delay_error_ms: float = Field(
        0.5, ge=0, description="What it may err besides, in milliseconds of the wall clock."
    )
    min_delay_probes: int = Field(
        5, ge=1, description="Delays of links with fewer probes are not judged."
    )
    calibration_rate_error: float = Field(
        0.02,
        ge=0,
        description="Relative error of the rate of every link that was measured before the run; "
        "two packets of the measurement are always forgiven.",
    )

    compute_late_share: float = Field(
        0.02,
        ge=0,
        description="By how much scheduled trainings may really take longer than their emulated time, "
        "together, as a share of all emulated computing.",
    )

    @model_validator(mode="after")
    def _ratio_is_a_range(self) -> Self:
        low, high = self.rate_ratio
        if not 0 < low <= 1 <= high:
            raise ValueError(f"rate_ratio is [{low:g}, {high:g}]; 1 must lie inside, above 0")
        return self


class Experiment(StrictModel):
    """One federated-learning run over emulated wireless links."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="at most 64 letters, digits, '_', '.' and '-'; a letter or digit first.",
    )
    description: str = ""
    seed: int = Field(
        0, ge=0, lt=2**63, description="The one seed that everything random hangs on."
    )
    duration_s: float = Field(gt=0, le=1e6, description="Emulated seconds.")
    max_versions: int | None = Field(
        None,
        ge=1,
        description="End the run when this many versions of the first task's model are published.",
    )
    devices: DevicesConfig
    task: TaskConfig | None = None
    partition: PartitionConfig | None = None
    training: TrainingConfig | None = None
    tasks: dict[TaskKey, LearningTask] | None = Field(
        None,
        min_length=1,
        max_length=255,
        description="Several tasks by their names, in the place of task, partition and training.",
    )
    method: MethodConfig
    radio: AnyRadio
    transport: TransportConfig = TransportConfig()
    validity: ValidityConfig = ValidityConfig()

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        one = {"task": self.task, "partition": self.partition, "training": self.training}
        if self.tasks is None:
            for name, part in one.items():
                if part is None:
                    raise ValueError(f"the key '{name}' is missing")
        for name, part in one.items():
            if self.tasks is not None and part is not None:
                raise ValueError(
                    f"'{name}' and 'tasks' exclude each other: with several tasks, each has its own"
                )
        check_tasks(self.learning, self.method)
        if isinstance(self.method, DmaFlMethod):
            check_periods(self.method, self.learning, self.devices.compute)
        return self

    @property
    def learning(self) -> dict[str, LearningTask]:
        """Return the tasks by their names, in the order in which the server counts them."""
        if self.tasks is not None:
            return dict(self.tasks)
        assert self.task is not None
        assert self.partition is not None
        assert self.training is not None
        only = LearningTask(task=self.task, partition=self.partition, training=self.training)
        return {self.task.name: only}

    @property
    def first(self) -> LearningTask:
        """Return the only task, or the first of several."""
        return next(iter(self.learning.values()))

    @model_validator(mode="after")
    def _rounds_can_end(self) -> Self:
        aggregation = self.method.pieces().aggregation
        if isinstance(
            aggregation, FedAsyncConfig | AflConfig | FedBuffConfig | SpFlConfig | DmaFlConfig
        ):
            return self
        if (aggregation.quorum or 0) > self.devices.count:
            raise ValueError(
                f"method.quorum is {aggregation.quorum}, but there are only "
                f"{self.devices.count} devices: no round would ever end"
            )
        return self

    @model_validator(mode="after")
    def _contacts_end(self) -> Self:
        contacts = self.method.pieces().contacts
        if contacts is not None and self.first.training.growth:
            raise ValueError(
                "training.growth is for methods with rounds; with contacts, devices train as long "
                "as there is none"
            )
        endless = isinstance(self.radio, RadioConfig) and isinstance(
            self.radio.contact, AlwaysConfig
        )
        if contacts is not None and endless and contacts.again_after_steps is None:
            raise ValueError(
                f"with method {self.method.name} a device uploads once in each contact, but "
                "radio.contact is of kind always: give method.contacts.again_after_steps, or "
                "another kind of contact"
            )
        return self

    @model_validator(mode="after")
    def _classes_can_travel(self) -> Self:
        marked_routes(self.transport.classes, self.radio.classes)
        check_losses(self.transport.classes, self.method.pieces())
        if isinstance(self.method, SpFlMethod):
            check_links(self.method, self.radio, self.transport.classes)
        check_allocation(self.method.pieces(), self.radio, self.devices.count)
        return self


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
    tree = read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    if seed is not None:
        tree["seed"] = seed
    return check_experiment(tree, str(path))


def check_experiment(tree: Mapping[str, object], source: str) -> Experiment:
    """Check an experiment's keys and values.

    Args:
        tree: as in an experiment file.
        source: what the sentences about mistakes begin with.

    Raises:
        FadelabError: USAGE, naming the key, what was given and what is allowed.

    """
    try:
        experiment = Experiment.model_validate(tree)
        # Some settings can only be judged together, such as listed places and their number.
        link_source(experiment.radio, experiment.devices.count, experiment.seed)
    except ValidationError as error:
        raise FadelabError(ExitCode.USAGE, describe(error, source, Experiment)) from None
    except OSError as error:
        raise FadelabError(
            ExitCode.USAGE, f"{source}: cannot read {error.filename}: {error.strerror}."
        ) from None
    except ValueError as error:
        raise FadelabError(ExitCode.USAGE, f"{source}: {error}.") from None
    return experiment


def read_yaml(path: Path, kind: str = "experiment") -> dict[str, object]:
    """Return the keys and values of a configuration file of that kind.

    Raises:
        FadelabError: USAGE, if it cannot be read or is not YAML with keys and values.

    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 -- a SafeLoader
    except FileNotFoundError:
        raise FadelabError(ExitCode.USAGE, f"there is no {kind} file {path}") from None
    except OSError as error:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FadelabError(ExitCode.USAGE, f"cannot read {path}: it is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError) as error:
        raise FadelabError(ExitCode.USAGE, f"{path} is not YAML: {_yaml_problem(error)}") from None
    if not isinstance(tree, dict):
        raise FadelabError(ExitCode.USAGE, f"{path} must hold keys and values, not {_name(tree)}")
    return tree


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is a mistake, not a silent replacement."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 (the base class's signature)
    ) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value}' stands there twice",
                        problem_mark=key.start_mark,
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1}: {error.reason}"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _apply(tree: dict[str, object], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise FadelabError(ExitCode.USAGE, f"--set {override}: expected key.path=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise FadelabError(ExitCode.USAGE, f"--set {key}: {text!r} is not a YAML value") from None
    put_setting(tree, key, value, f"--set {key}")


def put_setting(tree: dict[str, object], key: str, value: object, source: str) -> None:
    """Replace or add one setting of an experiment; ``key`` is its path with dots.

    Raises:
        FadelabError: USAGE, beginning with ``source``, if the path leads through a value.

    """
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise FadelabError(ExitCode.USAGE, f"{source}: '{part}' is a value, not a section")
        node = child
    node[last] = value


def _name(value: object) -> str:
    names = {list: "a list", str: "text", type(None): "nothing: it is empty"}
    return names.get(type(value), "a single value")
