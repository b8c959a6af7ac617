"""How a device behaves that trains between contacts and uploads once in each."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from fadelab_proto.config import StrictModel


class ContactConfig(StrictModel):
    """Local steps go on until a contact begins; in it the device uploads and gets a new model."""

    max_local_steps: PositiveInt | None = Field(
        None,
        description="Steps after which a device waits for its next contact; when left out it goes "
        "on for as long as its processor takes.",
    )
    again_after_steps: PositiveInt | None = Field(
        None,
        description="Steps after which a device uses a contact that has not ended once more; once "
        "in each contact when left out.",
    )
    allowance_j: float | None = Field(
        None,
        gt=0,
        description="Transmit energy that a contact may cost on average; no bound when left out.",
    )
    initial_queue_j: float = Field(
        0.0, ge=0, description="Energy that the device owes at the beginning."
    )
    fits_magnitudes: bool = Field(
        default=False, description="Whether to look at how fast the magnitudes of updates fall."
    )

    @model_validator(mode="after")
    def _steps_can_be_reached(self) -> Self:
        most, again = self.max_local_steps, self.again_after_steps
        if most is not None and again is not None and again > most:
            raise ValueError(
                f"again_after_steps is {again}, but a device stops after max_local_steps, "
                f"which is {most}: it would never be reached"
            )
        return self
