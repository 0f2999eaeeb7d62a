"""Which units a model needs: the arrays that its products run on, its quantizers, and the engine's energies."""

import dataclasses
from collections.abc import Mapping

from mxcompile.cost.engine import (
    BUFFER_ENERGY,
    DRAM_ENERGY,
    ON_CHIP,
    SRAM_ENERGY,
    VECTOR_ENERGY,
    Array,
    Constant,
    Engine,
)
from mxcompile.cost.unit_cost import Technology, UnitCost
from mxcompile.cost.units import Chosen, dot_unit, is_float, known_operand, quantizer
from mxcompile.cost.workload import NodeWork, Workload
from mxcompile.errors import CostModelError


@dataclasses.dataclass(frozen=True)
class UnitUse:
    """Units of one kind that the engine needs for the model.

    Attributes:
        unit: Their cost.
        used_for: Formats that run on them.
        count: How many.
        remark: What is not exact about the choice; empty if nothing.
    """

    unit: UnitCost
    used_for: tuple[str, ...]
    count: int
    remark: str

    @property
    def area_um2(self) -> float:
        """Of all of them."""
        return self.count * (self.unit.area_um2 or 0.0)

    @property
    def lanes(self) -> int:
        """Products, or elements, a clock, of all of them."""
        return self.count * (self.unit.lanes or 0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which units the nodes run on, and what the engine's figures are.

    Attributes:
        engine: The engine.
        technology: The technology.
        clock_hz: Clock of the estimate.
        constants: Energies that the engine states for the technology's node, by name.
        main: Names of the products that run on the main array.
        dots: The array that each product runs on, by node.
        quantizers: The quantizers of each format.
        resident: Whether all constants and the cache stay in SRAM from run to run.
    """

    engine: Engine
    technology: Technology
    clock_hz: float
    constants: Mapping[str, Constant]
    main: frozenset[str]
    dots: Mapping[str, UnitUse]
    quantizers: Mapping[str, UnitUse]
    resident: bool

    @property
    def arrays(self) -> tuple[UnitUse, ...]:
        """The arrays, each once."""
        return _distinct(self.dots)

    @property
    def all_quantizers(self) -> tuple[UnitUse, ...]:
        """The quantizers, each once."""
        return _distinct(self.quantizers)

    @property
    def leakage_uw(self) -> float | None:
        """Leakage of all units; None if it is not stated for each."""
        leaks = [(use.count, use.unit.leakage_uw) for use in (*self.arrays, *self.all_quantizers)]
        return None if any(leak is None for _, leak in leaks) else sum(count * (leak or 0.0) for count, leak in leaks)

    def array(self, node: str) -> Array:
        """The size of the array that a product runs on: the main one, or that for floating point."""
        return self.engine.array if node in self.main else self.engine.float_array

    @property
    def absent(self) -> dict[str, str]:
        """Parts of the energy that are not stated, with the reason."""
        parts = {"vector": VECTOR_ENERGY, "buffer": BUFFER_ENERGY, "sram": SRAM_ENERGY, "dram": DRAM_ENERGY}
        node = f" at {self.technology.node_nm:g} nm"
        absent = {
            part: f"engine {self.engine.name!r} states no {name}" + ("" if part == "dram" else node)
            for part, name in parts.items()
            if name not in self.constants
        }
        if self.leakage_uw is None:
            absent["leakage"] = f"technology {self.technology.name!r} does not state leakage_uw of every unit"
        return absent


def make_plan(workload: Workload, engine: Engine, technology: Technology, main: frozenset[str] | None = None) -> Plan:
    """Chooses the units.

    Args:
        workload: The counts, all dimensions given.
        engine: The engine.
        technology: The technology.
        main: Names of the products that run on the main array; None for those with a quantized operand (for all, if
            there is none), and those that the same units can do.

    Raises:
        CostModelError: There is no product, a unit or its cost is missing, or the engine's clock is too fast.
    """
    clock_hz = engine.clock_hz or technology.clock_hz
    if clock_hz > technology.clock_hz:
        raise CostModelError(
            f"engine {engine.name!r}: clock_hz is {clock_hz:g}, but the units of technology {technology.name!r} are "
            f"built for {technology.clock_hz:g}; lower it, or leave it out"
        )
    products = [work for work in workload.nodes if work.macs]
    if not products:
        raise CostModelError(
            f"no node of the model multiplies ({len(workload.nodes)} nodes were counted): there is nothing for an "
            "array of MACs to do; give a model with MatMul, Gemm, Conv or MatMulBlock"
        )
    dots = _assign_dots(products, engine, technology, main)
    constants = {name: engine.constant(name, technology.node_nm) for name in (*ON_CHIP, DRAM_ENERGY)}
    kept = sum(
        work.weight_code_bytes + work.weight_scale_bytes + work.cache_code_bytes + work.cache_scale_bytes
        for work in workload.nodes
    )
    return Plan(
        engine=engine,
        technology=technology,
        clock_hz=clock_hz,
        constants={name: constant for name, constant in constants.items() if constant is not None},
        main=frozenset(name for name, (_, in_main) in dots.items() if in_main),
        dots={name: use for name, (use, _) in dots.items()},
        quantizers=_assign_quantizers(workload, engine, technology),
        resident=kept <= engine.sram_bytes // 2,  # 4.1
    )


def _assign_dots(
    products: list[NodeWork], engine: Engine, technology: Technology, main: frozenset[str] | None
) -> dict[str, tuple[UnitUse, bool]]:
    """The array of every product, and whether it is the main one."""
    chosen = {work.name: _dot(work, engine) for work in products}
    if main is None:
        names = {chosen[name].name for name in _main_products(products)}
        main = frozenset(work.name for work in products if chosen[work.name].name in names)
    uses: dict[tuple[str, bool], UnitUse] = {}
    for work in products:
        pick, in_main = chosen[work.name], work.name in main
        count = (engine.array if in_main else engine.float_array).units
        pair = work.a_format if work.a_format == work.b_format else f"{work.a_format} x {work.b_format}"
        _use(uses, (pick.name, in_main), pick, pair, count, technology, work)
    return {work.name: (uses[chosen[work.name].name, work.name in main], work.name in main) for work in products}


def _assign_quantizers(workload: Workload, engine: Engine, technology: Technology) -> dict[str, UnitUse]:
    """The quantizers of every node that quantizes."""
    picks: dict[str, str] = {}
    uses: dict[tuple[str, bool], UnitUse] = {}
    for work in workload.nodes:
        if work.quantized:
            pick = quantizer(work.quantized_format, engine)
            picks[work.name] = pick.name
            _use(uses, (pick.name, True), pick, work.quantized_format, engine.quantizers, technology, work)
    return {node: uses[name, True] for node, name in picks.items()}


def _main_products(products: list[NodeWork]) -> list[str]:
    """The products that the main array is there for: those with a quantized operand, or all if there is none."""
    quantized = [work for work in products if not (is_float(work.a_format) and is_float(work.b_format))]
    return [work.name for work in quantized or products]


def _dot(work: NodeWork, engine: Engine) -> Chosen:
    where = f"{work.op_type} {work.name}"
    for name in (work.a_format, work.b_format):
        if not known_operand(name):
            raise CostModelError(f"{where}: no unit takes an operand of type {name!r}")
    try:
        return dot_unit(work.a_format, work.b_format, engine)
    except CostModelError as error:
        raise CostModelError(f"{where}: {error}") from error


def _use(
    uses: dict[tuple[str, bool], UnitUse],
    key: tuple[str, bool],
    chosen: Chosen,
    used_for: str,
    count: int,
    technology: Technology,
    work: NodeWork,
) -> None:
    """Notes that a unit is used, once for all of its nodes."""
    old = uses.get(key)
    if old is None:
        unit = technology.unit(chosen.name, f"{work.op_type} {work.name}")
        uses[key] = UnitUse(unit, (used_for,), count, chosen.remark)
    elif used_for not in old.used_for:
        remark = "; ".join(filter(None, dict.fromkeys((old.remark, chosen.remark))))
        uses[key] = dataclasses.replace(old, used_for=(*old.used_for, used_for), remark=remark)


def _distinct(uses: Mapping[str, UnitUse]) -> tuple[UnitUse, ...]:
    return tuple({(use.unit.name, use.count): use for use in uses.values()}.values())
