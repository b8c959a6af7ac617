"""What devices say of their local periods, as it comes over the wire and as the scheduler takes it."""

import math
from dataclasses import dataclass

from fadelab_proto import schedule_pb2 as pb
from fadelab_proto.period_report import DriftReport, PeriodReport

_LARGEST = 1e12
"""No figure of a period is beyond it, so that products of a few stay finite."""
_MOST_STRETCHES = 8


class FiguresError(ValueError):
    """Figures that no period has; the message says which."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a device measured in a local period whose training is over."""

    samples: int
    """D when training began."""
    report: PeriodReport
    drift: tuple[DriftReport, ...]
    download_s: float
    download_j: float
    compute_j: float

    @property
    def loss(self) -> float:
        """Return the local loss of the version that training began with."""
        return self.drift[0].loss_after


def figures_of(message: pb.PeriodFigures) -> Figures:
    """Return a message's figures.

    Raises:
        FiguresError: if they are none.

    """
    if not (message.samples >= 1 and 1 <= len(message.drift) <= _MOST_STRETCHES):
        raise FiguresError("a period has samples, and stretches of time in which they changed")
    losses = [loss for one in message.drift for loss in (one.loss_before, one.loss_after)]
    checked(*losses, *(one.elapsed_s for one in message.drift))
    try:
        report = PeriodReport(
            *checked(
                message.variability,
                message.data_variance,
                message.gradient_sq,
                message.regularised_gradient_sq,
                message.smoothness,
            )
        )
        drift = tuple(
            DriftReport(one.loss_before, one.loss_after, one.elapsed_s, one.active)
            for one in message.drift
        )
    except ValueError as error:
        raise FiguresError(str(error)) from None
    spent = checked(message.download_s, message.download_j, message.compute_j)
    return Figures(message.samples, report, drift, *spent)


def checked(*numbers: float) -> tuple[float, ...]:
    """Return times, energies and losses as they are.

    Raises:
        FiguresError: if one is negative, not finite or absurdly large.

    """
    for number in numbers:
        if not (math.isfinite(number) and 0 <= number <= _LARGEST):
            raise FiguresError(f"{number} is no figure of a local period")
    return numbers
