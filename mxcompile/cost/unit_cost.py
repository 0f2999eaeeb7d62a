"""Unit costs: what one hardware unit takes in area, time and energy, from data files that name their source.

A technology file (`Technology`) holds the units of one cell library, as ``make characterize`` measured them. Its
absolute figures belong to its node alone: nothing here scales them to another one. ``published.toml`` holds figures
of publications in the same rows (`load_published`), for comparison.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mxcompile.cost.data_files import DATA, Status, build, find_file, read_toml
from mxcompile.errors import CostModelError


@dataclasses.dataclass(frozen=True)
class UnitCost:
    """The cost of one unit. What a source does not state is None.

    Attributes:
        name: The unit, such as ``mxfp4`` or ``quantize_mxfp4``; that of its Verilog module where it was measured.
        kind: ``dot`` multiplies two operands and accumulates; ``quantize`` makes codes and scales of numbers.
        status: Where the figures come from.
        a_format: Format of the activations' operand; of what a quantizer makes.
        b_format: Format of the weights' operand; empty for a quantizer.
        architecture: How the unit is built, in words.
        lanes: Products, or elements, a clock.
        area_um2: Area of the cells, in um2.
        sequential_area_um2: That of the flip-flops among them.
        delay_ns: Longest path from register to register.
        latency_cycles: Clocks from the operands to the result.
        energy_pj_per_op: pJ a multiply-accumulate, or a quantized element, on operands of a real model.
        energy_random_pj_per_op: The same on uniform random codes.
        leakage_uw: Power without a clock, in uW.
        power_uw: Power where a source states that and no energy.
        relative_area: Area over that of the unit `relative_to`, where a source states only that.
        relative_energy: Energy over that of the unit `relative_to`.
        relative_to: Name of that unit.
        node_nm: Node of a published figure; a technology's own units leave it out.
        rtl_sha256: Digest of the Verilog that was synthesized.
        source: The publication.
        notes: Anything one must know to read the figures right.
    """

    name: str
    kind: Literal["dot", "quantize"]
    status: Status
    a_format: str = ""
    b_format: str = ""
    architecture: str = ""
    lanes: int | None = None
    area_um2: float | None = None
    sequential_area_um2: float | None = None
    delay_ns: float | None = None
    latency_cycles: int | None = None
    energy_pj_per_op: float | None = None
    energy_random_pj_per_op: float | None = None
    leakage_uw: float | None = None
    power_uw: float | None = None
    relative_area: float | None = None
    relative_energy: float | None = None
    relative_to: str = ""
    node_nm: float | None = None
    rtl_sha256: str = ""
    source: str = ""
    notes: str = ""


@dataclasses.dataclass(frozen=True)
class Technology:
    """A cell library and the units that were characterized in it.

    Attributes:
        name: Such as ``freepdk45``.
        node_nm: Feature size that the library stands for, in nm.
        clock_hz: The clock that every unit meets.
        status: Where the figures come from.
        source: Where the library comes from.
        voltage_v: Supply.
        temperature_c: Junction temperature.
        corner: Process corner.
        library: The library's name.
        library_sha256: Digest of the Liberty file.
        tools: Versions by tool.
        script_sha256: Digest of the synthesis script.
        stimuli_sha256: Digest of the operands that the energy was measured on.
        notes: Anything one must know to read the figures right.
        units: The units by name.
    """

    name: str
    node_nm: float
    clock_hz: float
    status: Status
    source: str
    voltage_v: float | None = None
    temperature_c: float | None = None
    corner: str = ""
    library: str = ""
    library_sha256: str = ""
    tools: Mapping[str, str] = dataclasses.field(default_factory=dict)
    script_sha256: str = ""
    stimuli_sha256: str = ""
    notes: str = ""
    units: Mapping[str, UnitCost] = dataclasses.field(default_factory=dict)

    def unit(self, name: str, wanted_by: str) -> UnitCost:
        """The unit of that name, with everything that an estimate needs.

        Args:
            name: The unit.
            wanted_by: What needs it, for the message.

        Raises:
            CostModelError: It is missing, or its lanes, area or energy are not stated.
        """
        if name not in self.units:
            known = ", ".join(sorted(self.units)) or "no unit"
            raise CostModelError(
                f"{wanted_by}: needs the unit {name!r}, whose cost technology {self.name!r} does not state; it has "
                f"{known}; characterize the unit, or name another one under [units] in the engine file"
            )
        unit = self.units[name]
        for key in ("lanes", "area_um2", "energy_pj_per_op"):
            if not getattr(unit, key):
                raise CostModelError(
                    f"{wanted_by}: technology {self.name!r} states no {key} of the unit {name!r}; add it"
                )
        return unit

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything but the units, as JSON-ready values."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "units"}
        return {**fields, "tools": dict(self.tools)}


def load_technology(name: str) -> Technology:
    """The technology of a file.

    Args:
        name: Of a shipped one, or the path of a .toml file: a table ``[technology]`` and rows ``[[unit]]``, with the
            fields of `Technology` and `UnitCost` as keys.

    Raises:
        CostModelError: No such file, an unknown or missing key, or a value that cannot be.
    """
    path = find_file("technology", name)
    content = read_toml(path, ("technology", "unit"))
    technology = build(Technology, f"{path}: [technology]", {**_table(path, content), "units": {}})
    if not technology.clock_hz or not technology.node_nm:
        raise CostModelError(f"{path}: [technology]: clock_hz and node_nm must be above 0")
    return dataclasses.replace(technology, units=_units(path, content))


def load_published() -> tuple[UnitCost, ...]:
    """The figures of publications, each with its source and, where it has one, its node."""
    path = DATA / "published.toml"
    return tuple(_units(path, read_toml(path, ("unit",))).values())


def _table(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    table = content.get("technology")
    if not isinstance(table, Mapping):
        raise CostModelError(f"{path}: has no table [technology]; add it")
    return table


def _units(path: Path, content: Mapping[str, Any]) -> dict[str, UnitCost]:
    units: dict[str, UnitCost] = {}
    for index, row in enumerate(content.get("unit", ()), start=1):
        unit = build(UnitCost, f"{path}: [[unit]] {index}", row)
        if unit.name in units:
            raise CostModelError(f"{path}: [[unit]] {index}: there are two units {unit.name!r}; leave one out")
        units[unit.name] = unit
    return units
