"""The virtual energy queue: what was spent beyond the allowance so far.

``q <- max(q + E_used - E_allowed, 0)`` once in each contact. As long as the queue stays bounded, mean
energy approaches the allowance (M. J. Neely, Stochastic Network Optimization, 2010, chapter 4).
"""


class EnergyQueue:
    """Joules owed.

    Args:
        allowance_j: what each contact may cost on average; None for no bound: the queue stays empty.
        level_j: what is owed at the beginning.

    """

    def __init__(self, allowance_j: float | None, level_j: float = 0.0) -> None:
        self.allowance_j = allowance_j
        self.level_j = 0.0 if allowance_j is None else level_j

    def settle(self, used_j: float) -> None:
        """Book what one contact cost."""
        if self.allowance_j is not None:
            self.level_j = max(self.level_j + used_j - self.allowance_j, 0.0)
