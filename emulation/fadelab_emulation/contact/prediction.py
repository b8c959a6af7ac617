"""What a device is told of its remaining contact: a forecast with error, or the true future."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import numpy as np
from pydantic import Field

from fadelab_emulation.contact.base import CONTACT_HORIZON_S, ContactState
from fadelab_emulation.link_state import FloatArray
from fadelab_emulation.propagation.base import ChannelDraw
from fadelab_proto.config import StrictModel
from fadelab_proto.seeds import Stream, generator


class Predictor(Protocol):
    """Tells devices how long their contact will last."""

    def predict(self, contact: ContactState) -> FloatArray:
        """Return remaining seconds, shape ``(devices,)``, 0 while closed; once per tick."""
        ...


class LookAhead(Protocol):
    """The same world, to be run ahead of the present."""

    def next_contact(self) -> ContactState:
        """Return the contact at the next instant, from index 0 on."""
        ...


class PredictionConfig(StrictModel, ABC):
    """The base of every kind of prediction's settings."""

    @abstractmethod
    def build(
        self, devices: int, seed: int, tick_s: float, look_ahead: Callable[[], LookAhead]
    ) -> Predictor:
        """Return the predictor; ``look_ahead`` makes a second world, in its initial state."""


class ForecastConfig(PredictionConfig):
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

    def build(
        self, devices: int, seed: int, tick_s: float, look_ahead: Callable[[], LookAhead]
    ) -> "Forecast":
        """Return the forecast, which needs no second world."""
        del tick_s, look_ahead
        return Forecast(self, devices, seed)


class OracleConfig(PredictionConfig):
    """The true future, which no device can know: for comparisons, and marked in the results."""

    kind: Literal["oracle"] = "oracle"
    horizon_s: float = Field(
        default=120.0, gt=0, le=CONTACT_HORIZON_S, description="How far the oracle sees."
    )

    def build(
        self, devices: int, seed: int, tick_s: float, look_ahead: Callable[[], LookAhead]
    ) -> "Oracle":
        """Return the oracle, its world as far ahead as the horizon."""
        del seed
        return Oracle(max(1, round(self.horizon_s / tick_s)), tick_s, look_ahead(), devices)


AnyPrediction = Annotated[ForecastConfig | OracleConfig, Field(discriminator="kind")]


class Forecast:
    """The contact model's forecast times ``1 + bias + error``, never below 0.

    The error is normal, one for each device and window. An announced outage ends every forecast:
    its time is known and not estimated.
    """

    def __init__(self, config: ForecastConfig, devices: int, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._was_open = np.zeros(devices, dtype=np.bool_)
        self._windows = np.zeros(devices, dtype=np.int64)
        self._factor = np.full(devices, 1 + config.bias)

    def predict(self, contact: ContactState) -> FloatArray:
        """Return predicted remaining seconds, shape ``(devices,)``; called once per tick."""
        if self._config.error_std:
            for device in np.flatnonzero(contact.is_open & ~self._was_open).tolist():
                self._factor[device] = self._draw(device)
        self._was_open = contact.is_open
        forecast_s: FloatArray = np.minimum(contact.predicted_s * self._factor, CONTACT_HORIZON_S)
        if contact.announced_s is not None:
            forecast_s = np.minimum(forecast_s, contact.announced_s)
        return forecast_s

    def _draw(self, device: int) -> float:
        keys = (ChannelDraw.PREDICTION, device, int(self._windows[device]))
        self._windows[device] += 1
        error = generator(self._seed, Stream.CHANNEL, *keys).standard_normal()
        return max(0.0, 1 + self._config.bias + self._config.error_std * float(error))


class Oracle:
    """The remaining contact as it will be, up to a horizon, by running a second world ahead."""

    def __init__(self, horizon: int, tick_s: float, ahead: LookAhead, devices: int) -> None:
        """Run the world ahead by ``horizon`` ticks, at least 1."""
        self._tick_s = tick_s
        self._ahead = ahead
        self._horizon = horizon
        self._now = -1
        self._seen = 0  # ticks of the world ahead
        self._was_open = np.zeros(devices, dtype=np.bool_)  # at the last of them
        self._closings: list[deque[int]] = [deque() for _ in range(devices)]
        self._closes_at = np.full(devices, np.iinfo(np.int64).max)  # first of each, or never
        for _ in range(horizon):
            self._look_further()

    def predict(self, contact: ContactState) -> FloatArray:
        """Return true remaining seconds, shape ``(devices,)``, at most the horizon."""
        self._now += 1
        for device in np.flatnonzero(self._closes_at <= self._now).tolist():
            self._closings[device].popleft()
            self._set_next(device)
        left = np.minimum(self._closes_at - self._now, self._horizon)
        self._look_further()
        return np.where(contact.is_open, left * self._tick_s, 0.0)

    def _look_further(self) -> None:
        is_open = self._ahead.next_contact().is_open
        for device in np.flatnonzero(self._was_open & ~is_open).tolist():
            self._closings[device].append(self._seen)
            self._set_next(device)
        self._was_open = is_open
        self._seen += 1

    def _set_next(self, device: int) -> None:
        closings = self._closings[device]
        self._closes_at[device] = closings[0] if closings else np.iinfo(np.int64).max
