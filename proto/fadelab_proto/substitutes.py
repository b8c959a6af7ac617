"""What stands in for the modulus of an entry of which only the sign arrived.

SP-FL (Yue, Yao, Xu, Yang, Karagiannidis and Niyato, arXiv 2603.10763) sends signs and moduli of
gradients in packets of their own; where a modulus is lost, the server goes on with the sign and a
compensatory modulus that it has at hand.
"""

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fadelab_proto.config import StrictModel

F32 = NDArray[np.float32]
ModulusOf = Callable[[int, int], F32]
"""Returns the moduli that stand in for those of coordinates ``first`` .. ``last - 1``."""


class MeanModulus(StrictModel):
    """The mean of the moduli of the same update that did arrive; without any, signs do not count."""

    kind: Literal["mean_modulus"] = "mean_modulus"


class LastStep(StrictModel):
    """By coordinate, how far the last version of the global model lies from the one before it.

    This is the modulus of the previous global gradient. Before the first step, signs alone do not
    count.
    """

    kind: Literal["last_step"] = "last_step"


class ConstantModulus(StrictModel):
    """The same number for all entries, as in signSGD (Bernstein et al., ICML 2018)."""

    kind: Literal["constant"] = "constant"
    modulus: float = Field(gt=0, le=1e30, description="Of every entry.")


SubstituteConfig = Annotated[MeanModulus | LastStep | ConstantModulus, Field(discriminator="kind")]
