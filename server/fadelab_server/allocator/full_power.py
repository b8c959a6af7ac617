"""Full power: everybody sends with coefficient 1.

It is what several studies of federated learning over cell-free networks compare with under the name
of the largest sum rate, which it is not; that is :mod:`fadelab_server.allocator.wmmse`.
"""

import numpy as np

from fadelab_server.allocator.round_cost import Allocation, RoundLoad, Senders
from fadelab_server.allocator.uplink import UplinkStatistics


def full_power(statistics: UplinkStatistics, load: RoundLoad) -> Allocation:
    """Return full power for all who have something to send; there is nothing to iterate."""
    senders = Senders.of(statistics, load)
    return senders.allocation(np.ones(len(senders.index)), iterations=0, residual=0.0)
