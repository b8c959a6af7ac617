"""The summary's part on methods whose devices upload once in each contact."""

from pydantic import Field

from fadelab_proto.config import StrictModel


class ContactUse(StrictModel):
    """How contacts were used, where devices upload once in each; emulated seconds."""

    used: int
    skipped: int = Field(description="Contacts in which a device decided to send nothing.")
    sent: int = Field(
        description="Contacts in which an update was sent, but for those that the end of the run "
        "cut off."
    )
    acknowledged: int = Field(description="How many of these the server acknowledged in time.")
    predicted_to_fit: int = Field(
        description="How many were to fit into what was predicted to remain of the contact."
    )
    covered: int = Field(
        description="How many of those had a contact as long as was counted on: predicted, less "
        "the method's margin."
    )
    covered_acknowledged: int
    mean_predicted_s: float | None = Field(description="Contact predicted when it began.")
    mean_kept_share: float | None = Field(description="Entries kept over entries.")
    mean_energy_j: float | None = Field(
        description="Transmit power times airtime of a contact, those without an upload included."
    )
    allowance_j: float | None = Field(description="What a contact may cost on average.")
    mean_queue_j: float | None = Field(description="Energy that a device owes at the end.")
