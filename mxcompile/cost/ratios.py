"""Areas and energies relative to one unit, as ranges over technologies: what can be said without naming a node."""

import dataclasses
from collections.abc import Sequence
from typing import Final

from mxcompile.cost.unit_cost import Technology

REFERENCE: Final = "int8_int8"


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A unit over the reference unit: least and greatest of the technologies.

    Attributes:
        area: Of the cells' areas.
        energy: Of the energies an operation on the model's operands.
        energy_random: Of those on random codes.
    """

    area: tuple[float, float]
    energy: tuple[float, float]
    energy_random: tuple[float, float]


def ratios(technologies: Sequence[Technology], reference: str = REFERENCE) -> dict[str, Ratio]:
    """Every unit that all technologies have, relative to one of them.

    Args:
        technologies: Such as those of both cell libraries; ratios of absolute figures never cross them.
        reference: The unit that is 1.

    Raises:
        CostModelError: A technology lacks the reference.
    """
    bases = [technology.unit(reference, "ratios") for technology in technologies]

    def span(name: str, figure: str) -> tuple[float, float]:
        values = [
            getattr(technology.units[name], figure) / getattr(base, figure)
            for technology, base in zip(technologies, bases, strict=True)
        ]
        return min(values), max(values)

    shared = [name for name in technologies[0].units if all(name in each.units for each in technologies)]
    figures = ("area_um2", "energy_pj_per_op", "energy_random_pj_per_op")
    return {name: Ratio(*(span(name, figure) for figure in figures)) for name in shared}
