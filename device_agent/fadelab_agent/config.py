"""What an experiment says about learning on devices: task, model, data split, training, computing.

This module imports neither torch nor the data sets, so that an experiment can be read and checked
in milliseconds.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from fadelab_agent.metric import ACCURACY, DISPLACEMENT, Metric
from fadelab_proto.config import StrictModel


class LogisticModel(StrictModel):
    """Multinomial logistic regression: 7 850 parameters on 28x28 pixels and 10 classes."""

    kind: Literal["logistic"] = "logistic"


class MlpModel(StrictModel):
    """A perceptron with one hidden ReLU layer of ``hidden`` units."""

    kind: Literal["mlp"] = "mlp"
    hidden: PositiveInt = Field(default=256, le=65536)


class Cnn462kModel(StrictModel):
    """The CNN of the mixed-resolution papers: 462 410 parameters on CIFAR-10."""

    kind: Literal["cnn_462k"] = "cnn_462k"


class Cnn466kModel(StrictModel):
    """The CNN of DMA-FL: 466 122 parameters on SVHN."""

    kind: Literal["cnn_466k"] = "cnn_466k"


class Cnn6ConvModel(StrictModel):
    """Six convolutions with group normalisation and pooling, and one dense layer.

    The layers that the mobility papers name for CIFAR-10. They give no widths: here the pairs of
    convolutions have ``channels``, twice and four times as many, 308 394 parameters on CIFAR-10
    with 32.
    """

    kind: Literal["cnn_6conv"] = "cnn_6conv"
    channels: int = Field(default=32, ge=8, le=256, multiple_of=8)


class TrackMlpModel(StrictModel):
    """A perceptron with two hidden ReLU layers that corrects motion at constant velocity."""

    kind: Literal["track_mlp"] = "track_mlp"
    hidden: PositiveInt = Field(default=128, le=4096)


class TrackLstmModel(StrictModel):
    """An LSTM of ``hidden`` units that corrects motion at constant velocity."""

    kind: Literal["track_lstm"] = "track_lstm"
    hidden: PositiveInt = Field(default=64, le=1024)


PictureModel = LogisticModel | MlpModel | Cnn462kModel | Cnn466kModel | Cnn6ConvModel
TrackModel = TrackMlpModel | TrackLstmModel
ModelConfig = Annotated[PictureModel | TrackModel, Field(discriminator="kind")]

TaskName = Literal[
    "digits", "mnist", "fashion_mnist", "cifar10", "svhn", "synthetic_tracks", "argoverse"
]
_TRACK_TASKS: frozenset[TaskName] = frozenset({"synthetic_tracks", "argoverse"})
_TASKS_WITHOUT_FILES: frozenset[TaskName] = frozenset({"digits", "synthetic_tracks"})


class TaskConfig(StrictModel):
    """What is learned: a data set and the model that is fitted to it.

    ``data_dir`` holds your own copies of the data sets; ``digits`` comes with scikit-learn,
    ``synthetic_tracks`` is drawn, and both need none. ``train_samples`` and ``test_samples`` limit
    how many samples are used, by a random choice that is the same in every run.
    """

    name: TaskName = "digits"
    model: ModelConfig = MlpModel()
    data_dir: Path = Path("data")
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None

    @model_validator(mode="after")
    def _model_fits_the_task(self) -> Self:
        if (self.name in _TRACK_TASKS) != isinstance(self.model, TrackModel):
            what, fitting = (
                ("tracks", TrackModel) if self.name in _TRACK_TASKS else ("pictures", PictureModel)
            )
            kinds = ", ".join(model.model_fields["kind"].default for model in get_args(fitting))
            raise ValueError(
                f"{self.name} consists of {what}, which a model of kind {self.model.kind} cannot "
                f"take; allowed are {kinds}"
            )
        if self.name == "digits" and isinstance(self.model, Cnn466kModel):
            raise ValueError("cnn_466k needs pictures of at least 16x16 pixels; digits has 8x8")
        return self

    @property
    def metric(self) -> Metric:
        """Return what the quality of the task's models is measured in."""
        return DISPLACEMENT if self.name in _TRACK_TASKS else ACCURACY

    @property
    def needs_files(self) -> bool:
        """Return whether the task reads files from ``data_dir``."""
        return self.name not in _TASKS_WITHOUT_FILES


class IidPartition(StrictModel):
    """Samples are dealt to the devices at random, in equal numbers give or take one.

    With ``equal_sizes`` the few samples that cannot be dealt evenly are left out.
    """

    kind: Literal["iid"] = "iid"
    equal_sizes: bool = False


class LabelsPerDevicePartition(StrictModel):
    """Every device holds samples of ``labels`` classes; the classes are spread evenly."""

    kind: Literal["labels_per_device"] = "labels_per_device"
    labels: PositiveInt = 2
    equal_sizes: bool = False


class ClassesPerDevicePartition(StrictModel):
    """Devices hold different numbers of classes.

    ``counts`` lists the number of classes of device 0, 1, ... and starts over when there are more
    devices than entries; ``varied`` stands for 1, 2, ... up to the number of classes, so the n-th
    device has n classes.
    """

    kind: Literal["classes_per_device"] = "classes_per_device"
    counts: Literal["varied"] | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = "varied"
    equal_sizes: bool = False


class DirichletPartition(StrictModel):
    """Class shares are drawn from a symmetric Dirichlet law; a small ``beta`` means high skew."""

    kind: Literal["dirichlet"] = "dirichlet"
    beta: float = Field(default=0.5, ge=1e-3, le=1e6)
    equal_sizes: bool = False


PartitionConfig = Annotated[
    IidPartition | LabelsPerDevicePartition | ClassesPerDevicePartition | DirichletPartition,
    Field(discriminator="kind"),
]


OptimiserName = Literal["sgd", "adadelta", "adam", "rmsprop", "adagrad"]


class TrainingConfig(StrictModel):
    """How a device trains before it uploads: give ``local_steps`` or ``local_epochs``.

    ``proximal`` is mu in the term mu/2 ||w - w0||^2 that ties the device to the model it
    downloaded (FedProx; DMA-FL equation 3, where it is called rho). ``weight_decay`` adds
    weight_decay/2 ||w||^2. A batch is never larger than what the device holds.

    ``decay`` is that of the mean of squares and ``epsilon`` what is added to it (0.95 and 1e-6 for
    AdaDelta, 0.999 and 1e-8 for Adam, 0.99 and 1e-8 for RMSProp; Adagrad has 1e-10 alone, and SGD
    neither). With ``optimiser_state: keep`` a device goes on with what its optimiser knew when the
    last update ended; its means then belong to another model. ``growth`` is added to the local
    steps or epochs with every update, up to ``longest``.
    """

    optimiser: OptimiserName = "sgd"
    decay: float | None = Field(default=None, gt=0, lt=1)
    epsilon: PositiveFloat | None = None
    optimiser_state: Literal["reset", "keep"] = "reset"
    growth: int = Field(default=0, ge=0)
    longest: PositiveInt | None = None
    local_steps: PositiveInt | None = None
    local_epochs: PositiveInt | None = None
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    proximal: float = Field(default=0.0, ge=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("give either local_steps or local_epochs, not both and not neither")
        return self

    @model_validator(mode="after")
    def _settings_have_an_effect(self) -> Self:
        takes = {
            "momentum": ("sgd", "adam"),
            "decay": ("adadelta", "adam", "rmsprop"),
            "epsilon": ("adadelta", "adam", "rmsprop", "adagrad"),
        }
        for name, optimisers in takes.items():
            if getattr(self, name) and self.optimiser not in optimisers:
                raise ValueError(
                    f"{name} has no effect with the optimiser {self.optimiser}; it is for "
                    f"{', '.join(optimisers)}"
                )
        if (self.growth > 0) != (self.longest is not None):
            raise ValueError("give growth and longest together, or neither")
        return self

    def decay_or(self, usual: float) -> float:
        """Return the decay of the mean of squares, the usual one if none is given."""
        return usual if self.decay is None else self.decay

    def epsilon_or(self, usual: float) -> float:
        """Return what is added to the mean of squares, the usual number if none is given."""
        return usual if self.epsilon is None else self.epsilon

    def _length(self, first: int, update: int) -> int:
        """Return the steps or epochs of update 1, 2, ... that begin with ``first``."""
        if self.longest is None:
            return first
        return max(first, min(self.longest, first + self.growth * max(0, update - 1)))

    def batch_for(self, samples: int) -> int:
        """Return the batch size of a device that holds ``samples`` samples."""
        return min(self.batch_size, samples)

    def steps_for(self, samples: int, update: int = 1) -> int:
        """Return the local steps of one update on a device that holds ``samples`` samples.

        An epoch has as many steps as there are whole batches, at least one.

        Args:
            samples: that the device holds.
            update: the device's count of its updates, from 1.

        """
        if self.local_steps is not None:
            return self._length(self.local_steps, update)
        assert self.local_epochs is not None
        return self._length(self.local_epochs, update) * max(1, samples // self.batch_for(samples))


class ComputeConfig(StrictModel):
    """The processor that a device is said to have; its time and energy follow from formulas.

    Cycles per sample and effective capacitance lie in the middle of the ranges of DMA-FL's
    simulations (2023, section VI: 500 to 5 000 cycles, 2e-22 to 2e-19, geometric middle). The
    paper gives no clock frequency; 10 MHz makes the processor draw ``capacitance * f^3`` = 6 W,
    which is what a small single-board computer draws.
    """

    cycles_per_sample: PositiveFloat = 2500.0
    cpu_hz: PositiveFloat = 1e7
    capacitance_j_s2: PositiveFloat = 6e-21
