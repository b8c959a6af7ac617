"""Successive convex approximation: algorithm 1 of DMA-FL (arXiv 2305.13503, equations 35 to 39).

At each point the objective is replaced by its linearisation plus ``lambda/2 ||v - v_m||^2`` (36), each
constraint that is not convex by its own plus ``L/2 ||v - v_m||^2`` (37), and the convex program that
results is solved; the next point lies on the way to its solution (35). Equality constraints that are
not linear, which (38) bounds from above only, are for the caller to eliminate. lambda and L are found
by trying: larger, until the point that comes out is feasible and better.

Needs cvxpy (extra ``solver``); a cross-check for small instances, not for a running server.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

from fadelab_server.scheduler.tensors import F64

_STEP = 1e-30
_LARGEST_CURVATURE = 1e10
_LEAST_CURVATURE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SmoothProblem:
    """Minimise ``objective(v)`` subject to ``constraints(v) <= 0`` and what is linear.

    Objective and constraints are analytic functions that take complex numbers, too: derivatives are
    imaginary parts (W. Squire and G. Trapp, SIAM Review 40(1), 1998), exact to rounding.
    """

    objective: Callable[[F64], complex]
    constraints: Callable[[F64], F64]
    """At most 0 where allowed, each of the size of 1."""
    lower: F64
    upper: F64
    equal: tuple[F64, F64]
    """A and b of ``A v = b``."""
    most: tuple[F64, F64]
    """A and b of ``A v <= b``."""


@dataclass(frozen=True, slots=True, eq=False)
class StationaryPoint:
    """Where the iteration ended."""

    point: F64
    value: float
    iterations: int
    moved: float
    """Largest change of a variable in the last step; 0 at a stationary point."""


def minimise(
    problem: SmoothProblem,
    start: F64,
    *,
    step: float = 1.0,
    iterations: int = 200,
    close: float = 1e-6,
    tolerance: float = 1e-7,
) -> StationaryPoint:
    """Return a stationary point; objective values never rise on the way.

    Args:
        problem: what to minimise.
        start: a feasible point.
        step: epsilon in (0, 1], how far to go towards each solution (35).
        iterations: at most so many.
        close: ends when no variable moves further.
        tolerance: how far a constraint may be missed.

    Raises:
        ValueError: if the start is not feasible.

    """
    missed = float(problem.constraints(start).max(initial=0.0))
    if missed > tolerance:
        raise ValueError(f"the start misses a constraint by {missed}")
    surrogate = _Surrogate(problem)
    point, value = start, float(np.real(problem.objective(start)))
    rows = len(problem.constraints(start))
    objective, constraints, moved, done = 1.0, np.zeros(rows), np.inf, 0
    while done < iterations and moved > close:
        done += 1
        surrogate.set_point(point)
        while True:
            solution = surrogate.solve(objective, constraints)
            candidate = point if solution is None else point + step * (solution - point)
            missed_by = problem.constraints(candidate)
            reached = float(np.real(problem.objective(candidate)))
            worse = solution is None or reached > value
            if not worse and float(missed_by.max(initial=0.0)) <= tolerance:
                break
            # lambda and each L grow for themselves: a constraint that bends little leaves room.
            objective *= 4 if worse else 1
            bent = missed_by > tolerance
            constraints[bent] = np.maximum(4 * constraints[bent], 0.1)
            if max(objective, constraints.max(initial=0.0)) > _LARGEST_CURVATURE:
                return StationaryPoint(point, value, done, 0.0)
        moved = float(np.abs(candidate - point).max())
        point, value = candidate, reached
        objective, constraints = max(objective / 3, _LEAST_CURVATURE), constraints / 3
    return StationaryPoint(point, value, done, moved)


class _Surrogate:
    """The convex program of (36), (37) and (39), compiled once."""

    def __init__(self, problem: SmoothProblem) -> None:
        self._problem = problem
        size, rows = len(problem.lower), len(problem.constraints(problem.lower))
        self._step = cp.Variable(size)
        square = cp.Variable(nonneg=True)
        self._slope = cp.Parameter(size)
        self._jacobian = cp.Parameter((rows, size))
        self._value = cp.Parameter(rows)
        self._objective_curvature = cp.Parameter(nonneg=True)
        self._constraint_curvature = cp.Parameter(rows, nonneg=True)
        self._lower, self._upper = cp.Parameter(size), cp.Parameter(size)
        self._equal_rest = cp.Parameter(len(problem.equal[1]))
        self._most_rest = cp.Parameter(len(problem.most[1]))
        self._program = cp.Problem(
            cp.Minimize(self._slope @ self._step + self._objective_curvature * square / 2),
            [
                cp.sum_squares(self._step) <= square,
                self._value + self._jacobian @ self._step + self._constraint_curvature * square / 2
                <= 0,
                self._step >= self._lower,
                self._step <= self._upper,
                problem.equal[0] @ self._step == self._equal_rest,
                problem.most[0] @ self._step <= self._most_rest,
            ],
        )
        self._point = problem.lower

    def set_point(self, point: F64) -> None:
        problem, self._point = self._problem, point
        moved = point + 1j * _STEP * np.eye(len(point))
        slope = np.array([problem.objective(one).imag for one in moved]) / _STEP
        slope[problem.lower == problem.upper] = 0.0
        # The size of the objective must not decide about curvature.
        self._slope.value = slope / max(float(np.abs(slope).max()), 1e-300)
        self._jacobian.value = (
            np.stack([problem.constraints(one).imag for one in moved], axis=1) / _STEP
        )
        self._value.value = np.minimum(problem.constraints(point), 0.0)
        self._lower.value = np.minimum(problem.lower - point, 0.0)
        self._upper.value = np.maximum(problem.upper - point, 0.0)
        self._equal_rest.value = np.zeros(len(problem.equal[1]))
        self._most_rest.value = np.maximum(problem.most[1] - problem.most[0] @ point, 0.0)

    def solve(self, objective: float, constraints: F64) -> F64 | None:
        """Return the solution for these curvatures, lambda and L; None if the solver has none."""
        self._objective_curvature.value = objective
        self._constraint_curvature.value = constraints
        with warnings.catch_warnings():
            # Whoever asks looks at the point that comes out in any case.
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")
            try:
                self._program.solve(solver=cp.CLARABEL)
            except cp.error.SolverError:
                return None
        if self._step.value is None:
            return None
        reached: F64 = np.clip(
            self._point + self._step.value, self._problem.lower, self._problem.upper
        )
        return reached
