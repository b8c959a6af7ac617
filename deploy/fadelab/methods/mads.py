"""MADS (Yan et al., arXiv 2506.07328): keep as many entries as each contact is worth.

What it computes stands in docs/methods/mads.md. Baselines are the methods ``afl`` (dense, or with a
fixed share of entries), ``fedbuff`` and ``fedasync``; the oracle is ``radio.prediction: {kind:
oracle}``. Ablations are settings of ``decision``, ``staleness``, ``error_memory`` and
``partial_credit``; ``decision: {contact: mean, power: full, staleness: off}`` is the policy that sends
the same k in every contact.
"""

from typing import Literal

from pydantic import Field

from fadelab.methods.base import MethodPieces
from fadelab_agent.contact_config import ContactConfig
from fadelab_agent.policy import MadsConfig
from fadelab_proto.config import StrictModel
from fadelab_server.config import AflConfig, ConstantStaleness, StalenessConfig

ALLOWANCE_J = 0.1
"""Per device and round in the simulations of FedPGT, by the same authors: 0.05 to 0.1 J."""


class MadsMethod(StrictModel):
    """Devices train between contacts; in each they decide how much to send and at which power."""

    name: Literal["mads"]
    decision: MadsConfig = Field(MadsConfig(), description="What devices do with a contact.")
    contacts: ContactConfig = Field(
        ContactConfig(allowance_j=ALLOWANCE_J),
        description="How long devices train, and what contacts may cost.",
    )
    staleness: StalenessConfig = Field(
        ConstantStaleness(), description="How the server weighs stale updates; g in the paper."
    )
    server_rate: float = Field(1.0, gt=0, description="What the server multiplies updates by.")
    error_memory: bool = Field(
        default=True, description="Keep what was not sent for the next update."
    )
    partial_credit: bool = Field(
        default=False,
        description="Whether the packets that were acknowledged before a contact ended count; "
        "they are sent in the order of magnitude.",
    )

    def pieces(self) -> MethodPieces:
        """Return the server's and the devices' parts."""
        fits = self.decision.form == "power_law"
        return MethodPieces(
            AflConfig(staleness=self.staleness, server_rate=self.server_rate),
            self.decision,
            self.error_memory,
            cut_updates="keep" if self.partial_credit else "discard",
            contacts=self.contacts.model_copy(update={"fits_magnitudes": fits}),
        )
