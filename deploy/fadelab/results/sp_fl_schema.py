"""The summary's part on SP-FL."""

from typing import Literal

from pydantic import Field

from fadelab_proto.config import StrictModel


class ClassArrivals(StrictModel):
    """Predicted against empirical arrival of one packet class, over all rounds of SP-FL."""

    packets: int = Field(description="Updates whose packets of this class were to arrive.")
    predicted: float | None = Field(
        None, description="Mean of the probabilities with which the rounds were decided."
    )
    empirical: float | None = Field(
        None, description="Mean share that arrived: of updates, or with datagrams of coordinates."
    )
    low: float | None = Field(
        None, description="Where 95 % of so many independent trials with these probabilities lie."
    )
    high: float | None = None
    inside: bool | None = Field(None, description="Whether what arrived lies there.")
    carried: float | None = Field(
        None,
        description="Share that the links' programmed rates carry from the rounds' beginnings to "
        "their ends. It differs from predicted by the fades that happened to come, what arrived "
        "differs from it by what transport makes of rates. Null where no deadline decides.",
    )


class SpFlRounds(StrictModel):
    """What arrived of signs and moduli, where they travel apart."""

    loss: Literal["deadline", "datagram", "bernoulli", "error_free"] = Field(
        description="How packets got lost: by the deadline, by the links, drawn at the receiver "
        "from the formula, or not at all."
    )
    rounds: int
    updates: int = Field(description="Updates that were to be sent in these rounds.")
    both: int = Field(description="Of which signs and moduli arrived, at least in part.")
    signs_alone: int
    none: int = Field(description="Of which not even signs arrived.")
    sign: ClassArrivals
    modulus: ClassArrivals = Field(description="Of updates whose signs arrived.")
    mean_sign_power: float | None = Field(description="Share of power for signs.")
    last_kappa: float | None = Field(
        description="How errors of compensation add up, as it was estimated last."
    )
