"""What a device may know of its remaining contact: a forecast with error, or the true future."""

from collections import deque
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from fadelab_emulation.contact.base import ContactState
from fadelab_emulation.link_state import BoolArray, FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_proto.config import StrictModel
from fadelab_proto.seeds import Stream, generator


class ForecastConfig(StrictModel):
    """The contact model's own forecast, from position and velocity, times a random factor."""

    kind: Literal["forecast"] = "forecast"
    error_std: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Standard deviation of the relative error, drawn anew for each window.",
    )
    bias: float = Field(
        default=0.0, ge=-1, le=10, description="Mean relative error; 0.2 forecasts 20 % too long."
    )


class OracleConfig(StrictModel):
    """The true future, which no device can know: for comparisons, and marked in the results."""

    kind: Literal["oracle"] = "oracle"
    horizon_s: float = Field(default=120.0, gt=0, le=3600, description="How far the oracle sees.")


AnyPrediction = Annotated[ForecastConfig | OracleConfig, Field(discriminator="kind")]


class _LookAhead(Protocol):
    """A world without rates, as :class:`fadelab_emulation.world.ContactWorld` is."""

    def step(self) -> "_Instant": ...


class _Instant(Protocol):
    @property
    def contact(self) -> ContactState: ...


class Forecast:
    """The contact model's forecast times ``1 + bias + error``, never below 0."""

    def __init__(self, config: ForecastConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._was_open: BoolArray | None = None
        self._factor: FloatArray = np.zeros(0)
        self._windows = np.zeros(0, dtype=np.int64)

    def predict(self, contact: ContactState) -> FloatArray:
        """Return predicted remaining seconds, shape ``(devices,)``; called once per tick."""
        if self._was_open is None:
            self._was_open = np.zeros_like(contact.is_open)
            self._factor = np.ones(len(contact.is_open))
            self._windows = np.zeros(len(contact.is_open), dtype=np.int64)
        for device in np.flatnonzero(contact.is_open & ~self._was_open).tolist():
            self._windows[device] += 1
            self._factor[device] = self._draw(device)
        self._was_open = contact.is_open.copy()
        predicted_s: FloatArray = contact.predicted_s * self._factor
        return predicted_s

    def _draw(self, device: int) -> float:
        keys = (ChannelDraw.PREDICTION, device, int(self._windows[device]))
        error = generator(self._seed, Stream.CHANNEL, *keys).standard_normal()
        return max(0.0, 1 + self._config.bias + self._config.error_std * float(error))


class Oracle:
    """The remaining contact as it will be, up to a horizon, by running a second world ahead."""

    def __init__(self, horizon_ticks: int, tick_s: float, world: _LookAhead) -> None:
        self._tick_s = tick_s
        self._world = world
        self._ahead: deque[BoolArray] = deque(
            world.step().contact.is_open.copy() for _ in range(horizon_ticks)
        )
        self._now = -1
        self._closes_at = np.full(len(self._ahead[0]), -1)

    def predict(self, contact: ContactState) -> FloatArray:
        """Return true remaining seconds, shape ``(devices,)``, at most the horizon."""
        self._now += 1
        unknown = np.flatnonzero(contact.is_open & (self._closes_at <= self._now))
        if unknown.size:
            future = np.stack([is_open[unknown] for is_open in self._ahead])
            closed = ~future
            first = np.where(closed.any(axis=0), closed.argmax(axis=0), -1)
            self._closes_at[unknown] = np.where(first > 0, self._now + first, -1)
        horizon = len(self._ahead)
        self._ahead.popleft()
        self._ahead.append(self._world.step().contact.is_open.copy())
        left = np.where(self._closes_at < 0, horizon, self._closes_at - self._now)
        remaining_s: FloatArray = np.where(contact.is_open, left * self._tick_s, 0.0)
        return remaining_s


class Predictor:
    """The configured one of the two; the world ahead is built only for the oracle."""

    def __init__(
        self,
        config: AnyPrediction,
        tick_s: float,
        seed: int,
        world_ahead: Callable[[], _LookAhead],
    ) -> None:
        self._predictor: Forecast | Oracle
        if isinstance(config, OracleConfig):
            ticks = max(1, round(config.horizon_s / tick_s))
            self._predictor = Oracle(ticks, tick_s, world_ahead())
        else:
            self._predictor = Forecast(config, seed)

    def predict(self, contact: ContactState) -> FloatArray:
        """Return the remaining seconds to tell each device, 0 while closed."""
        return self._predictor.predict(contact)
