"""Smooth convex programs by sequential quadratic programming, with proof of how good the result is.

The method is scipy's SLSQP (D. Kraft, "A software package for sequential quadratic programming",
DFVLR-FB 88-28, 1988): a quadratic program per step, the Hessian of the Lagrangian built up by BFGS
updates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fadelab_server.allocator.log_airtime import LOWEST, Valued
from fadelab_server.allocator.uplink import F64

MOST_STEPS = 300
_STARTS = 5
_WANTED_RESIDUAL = 1e-6
_SLACK = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Minimise ``objective(x)`` subject to ``constraints(x) <= 0`` and ``y <= 0``.

    ``x`` holds ``y = ln p``, which is bounded, and after it one number that is free.
    """

    objective: Callable[[F64], tuple[float, F64]]
    """Value and gradient."""
    constraints: Callable[[F64], Valued]
    """Values, at most 0 where allowed, and their derivatives."""


def _bounds(variables: int) -> tuple[F64, F64]:
    lower, upper = np.full(variables, LOWEST), np.zeros(variables)
    lower[-1], upper[-1] = -np.inf, np.inf
    return lower, upper


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """Where the search ended."""

    point: F64
    iterations: int
    residual: float
    """The largest violation of the optimality conditions of Karush, Kuhn and Tucker: the gradient
    that multipliers cannot balance, or a violated constraint."""


def solve(program: Program, start: F64) -> Optimum:
    """Return the optimum of a convex program.

    A search that stalls is started anew from where it stopped, with a fresh Hessian.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 -- see load_solvers

    constraints = _remembered(program.constraints)
    described: dict[str, Any] = {
        "type": "ineq",
        "fun": lambda x: -constraints(x)[0],
        "jac": lambda x: -constraints(x)[1],
    }
    lower, upper = _bounds(len(start))
    point, iterations, residual = start, 0, np.inf
    for _ in range(_STARTS):
        found = minimize(
            program.objective,
            point,
            jac=True,
            method="SLSQP",
            bounds=np.column_stack([lower, upper]),
            constraints=described,
            options={"maxiter": MOST_STEPS, "ftol": 1e-13},
        )
        iterations += int(found.nit)
        there = np.clip(found.x, lower, upper)
        left = kkt_residual(program, there)
        if not left < residual:
            break
        point, residual = there, left
        if residual < _WANTED_RESIDUAL:
            break
    return Optimum(point, iterations, residual)


def kkt_residual(program: Program, point: F64) -> float:
    """Return how far a point is from the optimality conditions; see :class:`Optimum`.

    The multipliers are those that balance the gradient best (non-negative least squares), so
    nothing that a solver says of itself is believed. In a convex program 0 means the global
    optimum.
    """
    from scipy.optimize import nnls  # noqa: PLC0415 -- see load_solvers

    _, gradient = program.objective(point)
    value, derivative = program.constraints(point)
    identity, (lower, upper) = np.eye(len(point)), _bounds(len(point))
    forces = np.vstack(
        [
            derivative[value > -_SLACK],
            -identity[point < lower + _SLACK],
            identity[point > upper - _SLACK],
        ]
    )
    unbalanced = gradient
    if len(forces):
        multipliers, _ = nnls(forces.T, -gradient)
        unbalanced = gradient + forces.T @ multipliers
    return float(max(np.abs(unbalanced).max(), value.max(initial=0.0)))


def load_solvers() -> None:
    """Import what programs are solved with, so that the first round need not wait.

    scipy takes half a second of processor time, which a server that solves none need not pay.
    """
    import scipy.optimize  # noqa: PLC0415, F401


def _remembered(function: Callable[[F64], Valued]) -> Callable[[F64], Valued]:
    """Evaluate once where values and derivatives are asked for one after the other."""
    last: list[tuple[F64, Valued]] = []

    def evaluate(x: F64) -> Valued:
        if not (last and np.array_equal(last[0][0], x)):
            last[:] = [(x.copy(), function(x))]
        return last[0][1]

    return evaluate
