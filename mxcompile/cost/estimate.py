"""The estimate: counted work times unit costs on an engine, per node and for one run of the model.

The numbers in the comments are those of the formulas in docs/cost-model.md.
"""

import dataclasses
import math
from typing import Final, Literal

from mxcompile.cost.engine import BUFFER_ENERGY, DRAM_ENERGY, SRAM_ENERGY, VECTOR_ENERGY, Array, Engine
from mxcompile.cost.plan import Plan, UnitUse, make_plan
from mxcompile.cost.unit_cost import Technology, UnitCost
from mxcompile.cost.units import OPS_PER_INTEGER_SUM, has_tensor_scale, integer_sums, quantizer_reads, row_bytes
from mxcompile.cost.workload import NodeWork, Uncovered, Workload

Bound = Literal["compute", "memory", "none"]
"""What a node waits for: units, DRAM, or neither, as it takes no time."""

ENERGIES: Final = ("mac", "quantize", "vector", "buffer", "sram", "dram", "leakage")
"""The parts of an energy, in the order in which they are shown."""


@dataclasses.dataclass(frozen=True)
class NodeCost:
    """What one node costs in one run. An energy that the engine or the technology does not state is None.

    Attributes:
        name: The node, as in `NodeWork`.
        op_type: Its operator.
        kind: Its kind, as in `NodeWork`.
        a_format: Format of the activations of a product; empty elsewhere.
        b_format: Format of its other operand.
        unit: The dot unit that it runs on; empty if it has no product.
        macs: Multiply-accumulates.
        quantized: Elements that are quantized on the fly.
        vector_ops: Scalar operations outside the array.
        cycles: Clocks that array, quantizers or vector unit are busy, whichever is longest.
        utilization: Share of the array's multipliers that work during these; None without a product.
        latency_us: Time, DRAM included.
        bound: What it waits for.
        mac_energy_pj: Of the array.
        quantize_energy_pj: Of the quantizers.
        vector_energy_pj: Of the vector unit.
        buffer_energy_pj: Of reads and writes of the operand buffers at the array.
        sram_energy_pj: Of reads and writes of SRAM.
        dram_energy_pj: Of reads and writes of DRAM.
        leakage_energy_pj: Of arrays and quantizers while it runs.
        weight_bytes: Codes of constant operands, or the numbers themselves.
        scale_bytes: Scales of constants and of the cache.
        cache_bytes: Codes of the key-value cache.
        activation_bytes: Activations read and written.
        buffer_bytes: Bytes read and written in the operand buffers.
        sram_bytes: Bytes read and written in SRAM.
        dram_bytes: Bytes read and written in DRAM.
        area_um2: Of the array and the quantizers that it runs on, which it shares with other nodes.
    """

    name: str
    op_type: str
    kind: str
    a_format: str
    b_format: str
    unit: str
    macs: int
    quantized: int
    vector_ops: int
    cycles: int
    utilization: float | None
    latency_us: float
    bound: Bound
    mac_energy_pj: float
    quantize_energy_pj: float
    vector_energy_pj: float | None
    buffer_energy_pj: float | None
    sram_energy_pj: float | None
    dram_energy_pj: float | None
    leakage_energy_pj: float | None
    weight_bytes: int
    scale_bytes: int
    cache_bytes: int
    activation_bytes: int
    buffer_bytes: int
    sram_bytes: int
    dram_bytes: int
    area_um2: float

    @property
    def energy_pj(self) -> float:
        """All parts that are stated."""
        return sum(getattr(self, f"{part}_energy_pj") or 0.0 for part in ENERGIES)

    @property
    def intensity_macs_per_byte(self) -> float | None:
        """MACs for each byte of DRAM; None if it needs none."""
        return self.macs / self.dram_bytes if self.dram_bytes else None


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What one run of a model costs.

    Attributes:
        plan: The units, and what the estimate rests on.
        nodes: Every counted node.
        uncovered: Nodes without a formula, which are in no figure.
        tokens: Tokens, or samples, of the run.
        elements: Elements that the counted nodes give.
    """

    plan: Plan
    nodes: tuple[NodeCost, ...]
    uncovered: tuple[Uncovered, ...]
    tokens: int
    elements: int

    @property
    def area_um2(self) -> float:
        """Of all arrays and quantizers; memories, vector unit and control are not in it."""
        return sum(use.area_um2 for use in (*self.plan.arrays, *self.plan.all_quantizers))


def estimate(
    workload: Workload, engine: Engine, technology: Technology, *, tokens: int, main: frozenset[str] | None = None
) -> ModelCost:
    """Combines work, engine and technology.

    Args:
        workload: The counts, all dimensions given (`Workload.at`).
        engine: The engine.
        technology: The technology.
        tokens: Tokens, or samples, of the run.
        main: Names of the products for the main array, as in `make_plan`.

    Raises:
        CostModelError: A unit cost is missing, the model has no product, or the engine's clock is too fast.
    """
    plan = make_plan(workload, engine, technology, main)
    leakage_uw = plan.leakage_uw
    nodes = tuple(_node_cost(work, plan, leakage_uw) for work in workload.nodes)
    return ModelCost(plan, nodes, workload.uncovered, tokens, sum(work.elements for work in workload.nodes))


def _node_cost(work: NodeWork, plan: Plan, leakage_uw: float | None) -> NodeCost:
    dot, quantize, array = plan.dots.get(work.name), plan.quantizers.get(work.name), plan.array(work.name)
    vector_ops, reads = _vector_ops(work), quantizer_reads(work.quantized_format)
    cycles = max(  # 2.4
        _array_cycles(work, array, dot.unit) if dot is not None else 0,
        math.ceil(reads * work.quantized / quantize.lanes) if quantize is not None else 0,
        math.ceil(vector_ops / plan.engine.vector_lanes),
    )
    dram_bytes = _dram_bytes(work, plan)
    sram_bytes, buffer_bytes = _on_chip_bytes(work, array, plan.engine, dram_bytes)
    compute_us = 1e6 * cycles / plan.clock_hz
    memory_us = 1e6 * dram_bytes / plan.engine.dram_bandwidth_bytes_per_s
    latency_us = max(compute_us, memory_us)  # 2.5
    return NodeCost(
        name=work.name,
        op_type=work.op_type,
        kind=work.kind,
        a_format=work.a_format,
        b_format=work.b_format,
        unit=dot.unit.name if dot is not None else "",
        macs=work.macs,
        quantized=work.quantized,
        vector_ops=vector_ops,
        cycles=cycles,
        utilization=work.macs / (cycles * dot.lanes) if dot is not None else None,  # 2.6
        latency_us=latency_us,
        bound="none" if not latency_us else "memory" if memory_us > compute_us else "compute",
        mac_energy_pj=_unit_energy(work.macs, dot),  # 3.1
        quantize_energy_pj=_unit_energy(work.quantized, quantize),  # 3.2
        vector_energy_pj=_energy(vector_ops, VECTOR_ENERGY, plan),  # 3.3
        buffer_energy_pj=_energy(buffer_bytes, BUFFER_ENERGY, plan),  # 3.4
        sram_energy_pj=_energy(sram_bytes, SRAM_ENERGY, plan),
        dram_energy_pj=_energy(dram_bytes, DRAM_ENERGY, plan),
        leakage_energy_pj=None if leakage_uw is None else leakage_uw * latency_us,  # 3.5; uW us = pJ
        weight_bytes=work.weight_code_bytes,
        scale_bytes=work.weight_scale_bytes + work.cache_scale_bytes,
        cache_bytes=work.cache_code_bytes,
        activation_bytes=work.input_bytes + work.output_bytes,
        buffer_bytes=buffer_bytes,
        sram_bytes=sram_bytes,
        dram_bytes=dram_bytes,
        area_um2=sum(use.area_um2 for use in (dot, quantize) if use is not None),
    )


def _unit_energy(operations: int, use: UnitUse | None) -> float:
    return 0.0 if use is None else operations * (use.unit.energy_pj_per_op or 0.0)


def _energy(amount: int, name: str, plan: Plan) -> float | None:
    constant = plan.constants.get(name)
    return None if constant is None else amount * constant.value


def _vector_ops(work: NodeWork) -> int:
    """Counted operations, and those that quantizers and units leave to the vector unit (1.2, 1.3)."""
    outputs = work.batch * work.m * work.n
    found = work.vector_ops + has_tensor_scale(work.quantized_format) * work.quantized
    found += (has_tensor_scale(work.a_format) or has_tensor_scale(work.b_format)) * outputs
    if work.macs and (sums := integer_sums(work.a_format, work.b_format, work.k)):
        rows = work.m + (0 if work.weight_code_bytes else work.n)  # of constants the sums of codes are known
        found += OPS_PER_INTEGER_SUM * sums * outputs + work.batch * rows * work.k
    return int(found)


def _array_cycles(work: NodeWork, array: Array, unit: UnitCost) -> int:
    """Tiles of outputs, each of which takes the steps of its sums and the way through the array (2.1)."""
    tiles = math.ceil(work.m / array.rows) * math.ceil(work.n / array.columns)
    steps = math.ceil(work.k / (unit.lanes or 1)) + array.rows + array.columns - 2
    return int(work.batch * tiles * steps)


def _kept_bytes(work: NodeWork) -> tuple[int, int]:
    """Bytes of constants, and of the cache."""
    return work.weight_code_bytes + work.weight_scale_bytes, work.cache_code_bytes + work.cache_scale_bytes


def _dram_bytes(work: NodeWork, plan: Plan) -> int:
    """Weights, cache, and activations that do not fit (4.1 to 4.4)."""
    weights, cache = _kept_bytes(work)
    activations = work.input_bytes + work.output_bytes
    spilled = activations if activations > plan.engine.sram_bytes else 0
    if plan.resident:
        return int(spilled)
    operand = work.batch * work.m * sum(row_bytes(work.a_format, work.k)) if work.macs else 0
    passes = max(1, math.ceil(2 * operand / plan.engine.sram_bytes))
    return int(weights * passes + cache + spilled)


def _on_chip_bytes(work: NodeWork, array: Array, engine: Engine, dram_bytes: int) -> tuple[int, int]:
    """Bytes through SRAM and through the operand buffers; those from DRAM are written to SRAM first (5.1 to 5.5)."""
    if not work.macs:
        reads = quantizer_reads(work.quantized_format) if work.quantized else 1
        return int(reads * work.input_bytes + work.output_bytes + sum(_kept_bytes(work)) + dram_bytes), 0
    a, b = sum(row_bytes(work.a_format, work.k)), sum(row_bytes(work.b_format, work.k))
    tiles = math.ceil(work.m / array.rows), math.ceil(work.n / array.columns)
    every_tile = work.m * a * tiles[1] + work.n * b * tiles[0]
    operands = every_tile
    if (held := engine.buffer_bytes // (array.rows * a)) > 0:  # row tiles of A that fit
        operands = min(operands, work.m * a + work.n * b * math.ceil(tiles[0] / held))
    if (held := engine.buffer_bytes // (array.columns * b)) > 0:
        operands = min(operands, work.n * b + work.m * a * math.ceil(tiles[1] / held))
    reads = quantizer_reads(work.quantized_format)
    quantized = reads * work.input_bytes + work.batch * work.m * a if work.quantized else 0
    sram = work.batch * operands + quantized + work.output_bytes + dram_bytes
    return int(sram), int(work.batch * (every_tile + operands))
