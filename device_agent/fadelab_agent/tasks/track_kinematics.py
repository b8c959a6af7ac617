"""How the vehicles of the synthetic tracks move.

Each vehicle is a point with a speed, a longitudinal acceleration and a path curvature (the
kinematic unicycle). A manoeuvre of constant acceleration or turn rate, begun at a random moment
with random strength, is laid over small disturbances of acceleration and steering that follow
first-order Gauss-Markov processes, as in Gauss-Markov mobility (Camp, Boleng and Davies, 2002).
Steering eases in and out along clothoids, as road design does.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MANOEUVRES = ("cruising", "accelerating", "braking", "stopping", "turning", "lane_changing")
"""The kinds; a track's label is the position in this list."""

MAX_SPEED_MPS = 35.0
MAX_DRIVE_MPS2 = 3.5
MAX_BRAKE_MPS2 = 6.0
MAX_LATERAL_MPS2 = 4.0
MAX_CURVATURE_PER_M = 0.2
"""A circle of 5 m, the tightest that cars drive."""

_STEP_S = 0.02
_STEPS_PER_SAMPLE = 5
_ONSET_S = (-0.5, 1.5)
"""When manoeuvres begin: some before the first observed position, all before the last, at 1.9 s."""
_EASE_S = 0.5
_WANDER_S = 1.0
_ACCELERATION_WANDER_MPS2 = 0.3
_LATERAL_WANDER_MPS2 = 0.15
# Below this speed disturbances fade, so that who stands still stays where it is.
_SLOW_MPS = 2.0
_LANE_M = 3.5


@dataclass(frozen=True, slots=True, eq=False)
class _Plans:
    """What every vehicle means to do; all arrays have shape ``(vehicles,)``."""

    speed_mps: Floats
    """At time 0."""
    onset_s: Floats
    acceleration_mps2: Floats
    """From the onset on, for ``acceleration_s``."""
    acceleration_s: Floats
    curvature_per_m: Floats
    """From the onset on, for ``curvature_s``; left is positive."""
    curvature_s: Floats
    sway_mps2: Floats
    """Amplitude of one sine period of lateral acceleration, for ``sway_s`` from the onset on."""
    sway_s: Floats


def drive(kinds: NDArray[np.int64], samples: int, rng: np.random.Generator) -> Floats:
    """Let one vehicle after another of the kinds named drive, each from a place of its own.

    Args:
        kinds: positions in :data:`MANOEUVRES`, shape ``(vehicles,)``.
        samples: positions of each track, 0.1 s apart.
        rng: where chances come from.

    Returns:
        positions in metres, shape ``(vehicles, samples, 2)``. Speeds, accelerations and curvatures
        keep the limits of this module at every moment.

    """
    plans = _draw(kinds, rng)
    vehicles = len(kinds)
    positions = np.empty((vehicles, samples, 2))
    place = rng.uniform(-500.0, 500.0, (vehicles, 2))
    heading = rng.uniform(-np.pi, np.pi, vehicles)
    speed = plans.speed_mps
    wander = rng.standard_normal((2, vehicles))
    keep = np.exp(-_STEP_S / _WANDER_S)
    for step in range(samples * _STEPS_PER_SAMPLE):
        if step % _STEPS_PER_SAMPLE == 0:
            positions[:, step // _STEPS_PER_SAMPLE] = place
        since_s = step * _STEP_S - plans.onset_s
        acceleration, curvature = _controls(plans, since_s, speed, wander)
        faster = np.clip(speed + acceleration * _STEP_S, 0.0, MAX_SPEED_MPS)
        distance = (speed + faster) / 2 * _STEP_S
        # Along the chord of the arc, whose direction is the heading half-way.
        middle = heading + curvature * distance / 2
        place = place + distance[:, None] * np.stack([np.cos(middle), np.sin(middle)], axis=1)
        heading = heading + curvature * distance
        speed = faster
        fresh = rng.standard_normal((2, vehicles))
        wander = keep * wander + np.sqrt(1 - keep**2) * fresh
    return positions


def _controls(
    plans: _Plans, since_s: Floats, speed: Floats, wander: Floats
) -> tuple[Floats, Floats]:
    """Return acceleration (m/s^2) and curvature (1/m) of every vehicle, within the limits."""
    steady = np.minimum(speed / _SLOW_MPS, 1.0)
    accelerating = (since_s >= 0) & (since_s < plans.acceleration_s)
    acceleration = accelerating * plans.acceleration_mps2
    acceleration += steady * _ACCELERATION_WANDER_MPS2 * wander[0]
    turn = plans.curvature_per_m * _eased(since_s, plans.curvature_s)
    swaying = (since_s >= 0) & (since_s < plans.sway_s)
    sway = swaying * plans.sway_mps2 * np.sin(2 * np.pi * since_s / plans.sway_s)
    lateral = sway + steady * _LATERAL_WANDER_MPS2 * wander[1]
    squared = np.maximum(speed, _SLOW_MPS) ** 2
    limit = np.minimum(MAX_CURVATURE_PER_M, MAX_LATERAL_MPS2 / squared)
    return (
        np.clip(acceleration, -MAX_BRAKE_MPS2, MAX_DRIVE_MPS2),
        np.clip(turn + lateral / squared, -limit, limit),
    )


def _eased(since_s: Floats, lasts_s: Floats) -> Floats:
    """Return 1 within ``lasts_s`` of the onset, 0 outside, with linear flanks on both sides."""
    return np.clip(np.minimum(since_s, lasts_s - since_s) / _EASE_S, 0.0, 1.0)


def _draw(kinds: NDArray[np.int64], rng: np.random.Generator) -> _Plans:
    vehicles = len(kinds)
    accelerating, braking, stopping, turning, changing = (
        kinds == MANOEUVRES.index(name) for name in MANOEUVRES[1:]
    )

    def between(low: float | Floats, high: float | Floats) -> Floats:
        # Drawn for every vehicle, whatever it does, so that no draw depends on another's kind.
        return rng.uniform(low, high, vehicles)

    def chosen(*cases: tuple[NDArray[np.bool_], Floats], default: Floats) -> Floats:
        masks, values = zip(*cases, strict=True)
        return np.select(masks, values, default)

    nothing = np.zeros(vehicles)
    radius_m, side = between(8.0, 30.0), np.where(rng.random(vehicles) < 0.5, -1.0, 1.0)
    speed = chosen(
        (accelerating, between(0.0, 12.0)),
        (braking, between(10.0, 30.0)),
        (stopping, between(4.0, 14.0)),
        # Slow enough for three quarters of the lateral limit.
        (turning, between(4.0, np.sqrt(0.75 * MAX_LATERAL_MPS2 * radius_m))),
        (changing, between(10.0, 30.0)),
        default=between(4.0, 30.0),
    )
    deceleration = between(1.5, 5.0)
    turn_rad, lost_share, change_s = between(0.8, 1.8), between(0.4, 0.8), between(3.0, 6.0)
    return _Plans(
        speed_mps=speed,
        onset_s=between(*_ONSET_S),
        acceleration_mps2=chosen(
            (accelerating, between(1.0, 3.0)), (braking | stopping, -deceleration), default=nothing
        ),
        acceleration_s=chosen(
            (accelerating, between(2.0, 5.0)),
            (braking, lost_share * speed / deceleration),
            (stopping, np.full(vehicles, np.inf)),
            default=nothing,
        ),
        curvature_per_m=np.where(turning, side / radius_m, 0.0),
        # The flanks of a turn count half each.
        curvature_s=np.where(turning, turn_rad * radius_m / speed + _EASE_S, 0.0),
        # Twice integrated, a sine of this amplitude moves a vehicle sideways by one lane.
        sway_mps2=np.where(changing, side * 2 * np.pi * _LANE_M / change_s**2, 0.0),
        sway_s=change_s,
    )
