"""The solver of mixed-precision assignments against all assignments, and against a greedy one."""

import itertools

import numpy as np
import pytest

from mxcompile.errors import ConfigError
from mxcompile.evaluation.assignment import Assignment, Float64, assign, front, total

FEASIBLE = 1e-6
"""By what share of the budget a solution of HiGHS may be above it: its feasibility tolerance."""


def problem(seed: int, count: int, formats: int) -> tuple[Float64, Float64]:
    """Formats that damage less cost more; the last one costs most and damages nothing."""
    rng = np.random.default_rng(seed)
    damages = np.sort(rng.exponential(1.0, (count, formats)), axis=1)[:, ::-1].copy()
    damages[:, -1] = 0
    costs = np.sort(rng.uniform(1, 10, (count, formats)), axis=1)
    return damages, costs


def greedy(damages: Float64, costs: Float64, budget: float) -> Assignment:
    """From the least damage on, the move that saves most for its damage, as long as one fits."""
    chosen = damages.argmin(axis=1)
    while True:
        now = total(damages, chosen)
        moves = [
            ((costs[p, chosen[p]] - costs[p, f]) / max(damages[p, f] - damages[p, chosen[p]], 1e-300), p, f)
            for p, f in itertools.product(*map(range, damages.shape))
            if costs[p, f] < costs[p, chosen[p]] and now + damages[p, f] - damages[p, chosen[p]] <= budget
        ]
        if not moves:
            return chosen
        _, product, fmt = max(moves)
        chosen[product] = fmt


@pytest.mark.parametrize("seed", range(6))
def test_no_assignment_within_the_budget_is_cheaper(seed: int) -> None:
    damages, costs = problem(seed, 6, 3)
    every = [np.array(each) for each in itertools.product(range(3), repeat=6)]
    for budget in (0.0, 0.5, 2.0, 100.0):
        chosen = assign(damages, costs, budget)
        assert total(damages, chosen) <= budget * (1 + FEASIBLE)
        best = min(total(costs, each) for each in every if total(damages, each) <= budget)
        assert total(costs, chosen) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_greed_is_never_cheaper(seed: int) -> None:
    damages, costs = problem(seed, 40, 4)
    for budget in (1.0, 5.0, 20.0):
        chosen, other = assign(damages, costs, budget), greedy(damages, costs, budget)
        assert total(damages, other) <= budget
        assert total(costs, chosen) <= total(costs, other) * (1 + 1e-9)


def test_greed_is_sometimes_dearer() -> None:
    # The move with the best ratio leaves no room for the two others, which save more together.
    damages = np.array([[6.0, 0.0], [5.0, 0.0], [5.0, 0.0]])
    costs = np.array([[0.0, 7.0], [0.0, 5.0], [0.0, 5.0]])
    assert greedy(damages, costs, 10.0).tolist() == [0, 1, 1]
    assert assign(damages, costs, 10.0).tolist() == [1, 0, 0]


def test_of_equally_cheap_assignments_the_best_one_is_taken() -> None:
    damages = np.array([[0.3, 0.1, 0.2], [0.5, 0.4, 0.0]])
    costs = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 2.0]])
    assert assign(damages, costs, 1.0).tolist() == [1, 1]


def test_without_a_budget_nothing_is_damaged() -> None:
    damages, costs = problem(0, 5, 3)
    assert assign(damages, costs, 0.0).tolist() == [2] * 5
    with pytest.raises(ConfigError, match=r"the least damage is 5, above the budget of 4; allow more"):
        assign(damages + 1, costs, 4.0)


def test_a_front_leads_from_the_best_to_the_cheapest_and_every_point_has_its_use() -> None:
    damages, costs = problem(1, 20, 3)
    points = front(damages, costs)
    assert len(points) > 5
    assert points[0].damage == 0
    assert points[-1].cost == pytest.approx(float(costs.min(axis=1).sum()), rel=1e-12)
    for better, cheaper in itertools.pairwise(points):
        assert better.cost > cheaper.cost
        assert better.damage < cheaper.damage
    for point in points:
        chosen = np.array(point.assignment)
        assert (point.cost, point.damage) == (total(costs, chosen), total(damages, chosen))
