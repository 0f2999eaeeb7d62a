"""What the nodes of a model cost together."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from mxcompile.cost.estimate import ENERGIES, Bound, ModelCost, NodeCost


@dataclasses.dataclass(frozen=True)
class Total:
    """Sums over the nodes of one run, and what follows from them. What is not stated anywhere is None.

    Attributes:
        macs: Multiply-accumulates.
        quantized: Elements that are quantized on the fly.
        vector_ops: Scalar operations outside the arrays.
        cycles: Clocks that the units are busy, node after node.
        utilization: Share of the multipliers that work while the nodes with a product run, DRAM included.
        latency_us: Time of the run, node after node.
        bound: What most of the time is waited for.
        memory_bound_share: Share of the time in nodes that wait for DRAM.
        energy_pj: All parts that are stated; `Plan.absent` tells the others.
        mac_energy_pj: Of the arrays.
        quantize_energy_pj: Of the quantizers.
        vector_energy_pj: Of the vector unit.
        buffer_energy_pj: Of the operand buffers.
        sram_energy_pj: Of SRAM.
        dram_energy_pj: Of DRAM.
        leakage_energy_pj: Of arrays and quantizers over the whole time.
        weight_bytes: Codes of constant operands, or the numbers themselves.
        scale_bytes: Scales of constants and of the cache.
        cache_bytes: Codes of the key-value cache.
        activation_bytes: Activations read and written.
        buffer_bytes: Bytes read and written in the operand buffers.
        sram_bytes: Bytes read and written in SRAM.
        dram_bytes: Bytes read and written in DRAM.
        intensity_macs_per_byte: MACs for each byte of DRAM; None if there is none.
        tokens: Tokens, or samples, of the run.
        energy_pj_per_token: Energy over tokens.
        tokens_per_second: Upper bound: tokens over the time.
        power_w: Energy over time.
        area_um2: Of arrays and quantizers.
    """

    macs: int
    quantized: int
    vector_ops: int
    cycles: int
    utilization: float
    latency_us: float
    bound: Bound
    memory_bound_share: float
    energy_pj: float
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
    intensity_macs_per_byte: float | None
    tokens: int
    energy_pj_per_token: float
    tokens_per_second: float
    power_w: float
    area_um2: float


def total(cost: ModelCost) -> Total:
    """The sums of a model's nodes."""
    nodes = cost.nodes
    latency_us = sum(node.latency_us for node in nodes)
    memory_us = sum(node.latency_us for node in nodes if node.bound == "memory")
    energies = {part: _sum_stated([getattr(node, f"{part}_energy_pj") for node in nodes]) for part in ENERGIES}
    energy_pj = sum(value for value in energies.values() if value is not None)
    macs, dram_bytes = _sum(nodes, "macs"), _sum(nodes, "dram_bytes")
    return Total(
        macs=macs,
        quantized=_sum(nodes, "quantized"),
        vector_ops=_sum(nodes, "vector_ops"),
        cycles=_sum(nodes, "cycles"),
        utilization=_utilization(cost),
        latency_us=latency_us,
        bound="none" if not latency_us else "memory" if 2 * memory_us > latency_us else "compute",
        memory_bound_share=memory_us / latency_us if latency_us else 0.0,
        energy_pj=energy_pj,
        mac_energy_pj=energies["mac"] or 0.0,
        quantize_energy_pj=energies["quantize"] or 0.0,
        vector_energy_pj=energies["vector"],
        buffer_energy_pj=energies["buffer"],
        sram_energy_pj=energies["sram"],
        dram_energy_pj=energies["dram"],
        leakage_energy_pj=energies["leakage"],
        weight_bytes=_sum(nodes, "weight_bytes"),
        scale_bytes=_sum(nodes, "scale_bytes"),
        cache_bytes=_sum(nodes, "cache_bytes"),
        activation_bytes=_sum(nodes, "activation_bytes"),
        buffer_bytes=_sum(nodes, "buffer_bytes"),
        sram_bytes=_sum(nodes, "sram_bytes"),
        dram_bytes=dram_bytes,
        intensity_macs_per_byte=macs / dram_bytes if dram_bytes else None,
        tokens=cost.tokens,
        energy_pj_per_token=energy_pj / cost.tokens if cost.tokens else 0.0,
        tokens_per_second=1e6 * cost.tokens / latency_us if latency_us else math.inf,
        power_w=1e-6 * energy_pj / latency_us if latency_us else 0.0,  # pJ / us = uW
        area_um2=cost.area_um2,
    )


def _utilization(cost: ModelCost) -> float:
    """MACs over those that the arrays could do while nodes with a product run, each on its own array."""
    able = 0.0
    for node in cost.nodes:
        if (dot := cost.plan.dots.get(node.name)) is not None:
            able += 1e-6 * node.latency_us * cost.plan.clock_hz * dot.lanes
    return sum(node.macs for node in cost.nodes) / able


def _sum(nodes: Iterable[NodeCost], field: str) -> Any:
    return sum(getattr(node, field) for node in nodes)


def _sum_stated(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) else sum(value or 0.0 for value in values)
