"""Codecs as an experiment file names them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fadelab_proto.codecs import (
    Aquila,
    Codec,
    CodecError,
    DenseF16,
    DenseF32,
    EmqAdaptive,
    EmqFixed,
    Groups,
    Laq,
    Lossless,
    MixedResolution,
    Qsgd,
    SignModulus,
    SignOnly,
    TopK,
    TopQ,
    Uniform,
)
from fadelab_proto.config import StrictModel

_Bits = Annotated[int, Field(ge=1, le=16, description="Bits of each entry.")]


Layers = tuple[int, ...]
"""Parameters of each of a model's tensors, in order; empty where they are not known."""


class _Grouped(StrictModel):
    block: Annotated[int, Field(ge=1)] | Literal["per_layer"] | None = Field(
        None,
        description="Entries that share a scale: so many, or those of a layer; all of them when "
        "left out.",
    )

    def groups(self, layers: Layers) -> Groups:
        """Return which entries share a scale.

        Raises:
            CodecError: if they are those of a layer, and the layers are not known.

        """
        if self.block != "per_layer":
            return Groups(block=self.block)
        if not layers:
            raise CodecError("scales per layer need the sizes of the layers, which are not known")
        return Groups(layers=layers)


class _Scaled(_Grouped):
    order: Literal["coordinates", "planes"] = Field(
        "coordinates", description="Whether packets hold whole entries, or high bits come first."
    )


class DenseF32Config(StrictModel):
    """Every entry as float32."""

    kind: Literal["dense_f32"] = "dense_f32"

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return DenseF32()


class DenseF16Config(StrictModel):
    """Every entry as float16."""

    kind: Literal["dense_f16"]

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return DenseF16()


class UniformConfig(_Scaled):
    """Unbiased stochastic rounding to a uniform grid."""

    kind: Literal["uniform"]
    bits: _Bits

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return Uniform(self.bits, self.groups(layers), self.order)


class QsgdConfig(_Scaled):
    """QSGD: unbiased levels of the Euclidean norm."""

    kind: Literal["qsgd"]
    bits: int = Field(ge=2, le=16, description="Bits of each entry, its sign included.")

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return Qsgd(self.bits, self.groups(layers), self.order)


class LaqConfig(_Scaled):
    """LAQ's quantiser, to nearest."""

    kind: Literal["laq"]
    bits: _Bits

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return Laq(self.bits, self.groups(layers), self.order)


class AquilaConfig(StrictModel):
    """AQUILA: LAQ's quantiser with as many bits as the update asks for."""

    kind: Literal["aquila"]

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return Aquila()


class EmqConfig(StrictModel):
    """EMQ: floating-point numbers with few exponent and mantissa bits."""

    kind: Literal["emq"]
    exponent_bits: int = Field(5, ge=1, le=7)
    mantissa_bits: int = Field(10, ge=0, le=14, description="Of the largest ones, if adaptive.")
    adaptive: bool = Field(
        default=True, description="Whether small entries get fewer mantissa bits than large ones."
    )
    rounding: Literal["nearest", "stochastic"] = "nearest"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        try:
            self.build(1)
        except CodecError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        kind = EmqAdaptive if self.adaptive else EmqFixed
        return kind(self.exponent_bits, self.mantissa_bits, rounding=self.rounding)


class MixedResolutionConfig(StrictModel):
    """Many bits for large entries, one for the others."""

    kind: Literal["mixed_resolution"]
    threshold: float = Field(gt=0, lt=1, description="Share of the largest magnitude.")
    bits: _Bits

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return MixedResolution(self.threshold, self.bits)


class TopQConfig(StrictModel):
    """The largest entries, each with few bits."""

    kind: Literal["top_q"]
    fraction: float = Field(gt=0, le=1, description="Share of the entries that is kept.")
    bits: _Bits

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return TopQ(self.fraction, self.bits)


DenseCodecConfig = Annotated[
    DenseF32Config | DenseF16Config | UniformConfig | QsgdConfig | LaqConfig | EmqConfig,
    Field(discriminator="kind"),
]


class TopKConfig(StrictModel):
    """The entries of largest magnitude, with their indices."""

    kind: Literal["topk"]
    fraction: float = Field(gt=0, le=1, description="Share of the entries that is kept.")
    values: DenseCodecConfig = Field(DenseF32Config(), description="How the entries are written.")
    indices: Literal["best", "paper"] = Field(
        "best", description="The shortest code, or ceil(log2 n) bits for each as papers count."
    )

    @model_validator(mode="after")
    def _no_layers_among_kept_entries(self) -> Self:
        if isinstance(self.values, _Grouped) and self.values.block == "per_layer":
            raise ValueError(
                "block is per_layer, but the entries that topk keeps are of all layers together; "
                "a number of entries is allowed"
            )
        return self

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        keep = max(1, round(self.fraction * dimension))
        return TopK(keep, self.values.build(keep), self.indices)


PlainCodecConfig = Annotated[
    DenseF32Config
    | DenseF16Config
    | UniformConfig
    | QsgdConfig
    | LaqConfig
    | AquilaConfig
    | EmqConfig
    | MixedResolutionConfig
    | TopQConfig
    | TopKConfig,
    Field(discriminator="kind"),
]


class LosslessConfig(StrictModel):
    """Another codec's packets behind a lossless compressor."""

    kind: Literal["lossless"]
    inner: PlainCodecConfig
    stage: Literal["zlib", "zstd"] = "zlib"

    @model_validator(mode="after")
    def _installed(self) -> Self:
        try:
            self.build(1, (1,))
        except CodecError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self, dimension: int, layers: Layers = ()) -> Codec:
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return Lossless(self.inner.build(dimension, layers), self.stage)


ValueCodecConfig = Annotated[PlainCodecConfig | LosslessConfig, Field(discriminator="kind")]
"""Codecs that write entries, not signs and moduli apart."""


class SignModulusConfig(_Grouped):
    """Signs and moduli in packets of their own; moduli by unbiased stochastic rounding."""

    kind: Literal["sign_modulus"]
    bits: int = Field(ge=1, le=16, description="Bits of each modulus.")

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return SignModulus(self.bits, self.groups(layers))


class SignOnlyConfig(StrictModel):
    """Signs alone: what moduli stand in for them is the server's business."""

    kind: Literal["sign_only"]

    def build(self, dimension: int, layers: Layers = ()) -> Codec:  # noqa: ARG002
        """Return the codec for a model of ``dimension`` parameters in layers of these sizes."""
        return SignOnly()


CodecConfig = Annotated[
    ValueCodecConfig | SignModulusConfig | SignOnlyConfig, Field(discriminator="kind")
]
