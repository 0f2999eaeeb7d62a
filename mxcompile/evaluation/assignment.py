"""Which product gets which format: the cheapest assignment whose damage stays within a budget.

Damage and cost of an assignment are the sums over its products. That is a knapsack problem with several choices for
each item, solved exactly as a mixed-integer program.
"""

import dataclasses
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile.errors import ConfigError

Float64 = npt.NDArray[np.float64]
Assignment = npt.NDArray[np.int64]
"""The format of each product, int64 ``[products]``."""

_STEPS: Final = 16
"""Budgets of a front."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One assignment of a front.

    Attributes:
        cost: Its cost.
        damage: Its damage.
        assignment: The format of each product.
    """

    cost: float
    damage: float
    assignment: tuple[int, ...]


def assign(damages: Float64, costs: Float64, budget: float) -> Assignment:
    """The cheapest assignment whose damages sum to no more than the budget.

    Args:
        damages: float64 ``[products, formats]``, finite and not negative.
        costs: float64 of the same shape.
        budget: What the damages may sum to.

    Raises:
        ConfigError: Even the least damage is above the budget.
    """
    least = math.fsum(damages.min(axis=1))
    if least > budget:
        raise ConfigError(f"the least damage is {least:.6g}, above the budget of {budget:.6g}; allow more")
    if budget == least:  # A solver's tolerance may take more.
        return np.lexsort((costs, damages), axis=1)[:, 0]
    chosen = _solve(costs, damages, budget)
    # Of equally cheap assignments the best one is wanted.
    cost = total(costs, chosen)
    better = _solve(damages, costs, cost)
    return better if total(costs, better) <= cost and total(damages, better) <= total(damages, chosen) else chosen


def _solve(values: Float64, limited: Float64, limit: float) -> Assignment:
    """The assignment of least value for which what is limited sums to no more than the limit; there is one."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import eye_array, kron

    count, formats = values.shape
    # Scaled, so that the solver's tolerances mean the same whatever the units are.
    scale, unit = float(np.abs(values).max()) or 1.0, max(float(limited.max()), limit) or 1.0
    solved = milp(
        (values / scale).ravel(),
        integrality=np.ones(values.size),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(kron(eye_array(count), np.ones((1, formats))), 1, 1),
            LinearConstraint(limited.ravel()[np.newaxis] / unit, -np.inf, limit / unit),
        ],
        options={"mip_rel_gap": 0},
    )
    assert solved.x is not None, solved.message
    chosen: Assignment = solved.x.reshape(values.shape).argmax(axis=1)
    return chosen


def total(values: Float64, assignment: Assignment) -> float:
    """The sum of an assignment's damages or costs."""
    return math.fsum(np.take_along_axis(values, assignment[:, np.newaxis], axis=1)[:, 0])


def front(damages: Float64, costs: Float64) -> list[Point]:
    """Assignments of which none is both cheaper and better than another, the best first.

    For budgets between the least damage and that of the cheapest assignment.
    """
    least = math.fsum(damages.min(axis=1))
    cheapest = np.lexsort((damages, costs), axis=1)[:, 0]
    most = total(damages, cheapest)
    points: list[Point] = []
    for share in np.linspace(0, 1, _STEPS) ** 2:
        chosen = cheapest if share == 1 else assign(damages, costs, least + share * (most - least))
        point = Point(total(costs, chosen), total(damages, chosen), tuple(chosen.tolist()))
        if not points or point.cost < points[-1].cost:
            points.append(point)
    return points
