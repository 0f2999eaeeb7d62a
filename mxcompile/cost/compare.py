"""The same work in another format: what a model would cost, and what quantizers and second scales add to its cost."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mxcompile.config import CompileConfig
from mxcompile.cost.estimate import ModelCost, estimate
from mxcompile.cost.totals import Total, total
from mxcompile.cost.units import SYMMETRIC_TWINS, base_format, is_float, row_bytes
from mxcompile.cost.workload import NodeWork, Workload
from mxcompile.errors import CostModelError
from mxcompile.formats import get_format

FLOAT16 = "float16"
"""Stands for no quantization, where a format is named."""


@dataclasses.dataclass(frozen=True)
class Alternative:
    """A model's cost with its quantized products in another format.

    Attributes:
        format: The format, as `--format` of the compiler understands it, or FLOAT16.
        total: The sums.
        cost: Everything.
    """

    format: str
    total: Total
    cost: ModelCost


@dataclasses.dataclass(frozen=True)
class Overhead:
    """What the quantizers and second scales add; None where the unit to compare with is not characterized.

    Attributes:
        quantizer_area_um2: Area of the quantizers.
        quantizer_area_share: Of the whole area.
        quantizer_energy_pj: Energy of the quantizers.
        quantizer_energy_share: Of the whole energy.
        asymmetric_area_um2: Area less that of an engine whose formats have one scale a block.
        asymmetric_area_share: Of the whole area.
        asymmetric_energy_pj: Energy less that on such an engine, with one scale less to move for each block.
        asymmetric_energy_share: Of the whole energy.
        twins: Formats with two scales, and the unit for one scale that stands for them in the comparison.
    """

    quantizer_area_um2: float
    quantizer_area_share: float
    quantizer_energy_pj: float
    quantizer_energy_share: float
    asymmetric_area_um2: float | None
    asymmetric_area_share: float | None
    asymmetric_energy_pj: float | None
    asymmetric_energy_share: float | None
    twins: Mapping[str, str]


def compare(workload: Workload, cost: ModelCost, formats: Sequence[str]) -> list[Alternative]:
    """What the model would cost if its quantized products ran in other formats.

    Weights take the format, activations its pair; the attention products take the activations' format. Bytes follow
    from the bits of an element. What is in floating point stays, and where it is.

    Args:
        workload: The counts that `cost` is of.
        cost: The estimate.
        formats: Formats, or FLOAT16.

    Raises:
        FormatError: An unknown format.
        CostModelError: A unit cost is missing, or nothing is quantized.
    """
    plan = cost.plan
    quantized = {work.name for work in workload.nodes if work.macs and not is_float(work.b_format)}
    if not quantized:
        raise CostModelError(
            "no product of the model is quantized: there is nothing to put into another format; compile it first"
        )
    found = []
    for name in formats:
        nodes = tuple(_in_format(work, name, work.name in quantized) for work in workload.nodes)
        changed = dataclasses.replace(workload, nodes=nodes)
        other = estimate(changed, plan.engine, plan.technology, tokens=cost.tokens, main=plan.main)
        found.append(Alternative(name, total(other), other))
    return found


def overhead(workload: Workload, cost: ModelCost) -> Overhead:
    """What quantizers and second scales have in a cost (formulas 8.1 and 8.2).

    Args:
        workload: The counts that `cost` is of.
        cost: The estimate.
    """
    whole = total(cost)
    area, energy = sum(use.area_um2 for use in cost.plan.all_quantizers), whole.quantize_energy_pj
    used = {base_format(name) for work in workload.nodes for name in (work.a_format, work.b_format)}
    twins = {name: twin for name, twin in SYMMETRIC_TWINS.items() if name in used}
    extra = _asymmetric(workload, cost, twins, whole)
    return Overhead(
        quantizer_area_um2=area,
        quantizer_area_share=area / whole.area_um2,
        quantizer_energy_pj=energy,
        quantizer_energy_share=energy / whole.energy_pj if whole.energy_pj else 0.0,
        asymmetric_area_um2=extra[0] if extra else None,
        asymmetric_area_share=extra[0] / whole.area_um2 if extra else None,
        asymmetric_energy_pj=extra[1] if extra else None,
        asymmetric_energy_share=extra[1] / whole.energy_pj if extra and whole.energy_pj else None,
        twins=twins,
    )


def _asymmetric(
    workload: Workload, cost: ModelCost, twins: Mapping[str, str], whole: Total
) -> tuple[float, float] | None:
    """Area and energy that one scale a block would save, everything else being the same."""
    if any(twin not in cost.plan.technology.units for twin in twins.values()):
        return None
    # One scale takes mxfp4's bytes. The twin's MACs and the format's own quantizer stand in for mxfp4's.
    saved = (0.0, 0.0)
    for name, twin in twins.items():
        units = {"mxfp4": twin, "quantize_mxfp4": _own_quantizer(cost, name)}
        engine = dataclasses.replace(cost.plan.engine, units={**cost.plan.engine.units, **units})
        nodes = tuple(_renamed(work, name, "mxfp4") for work in workload.nodes)
        changed = dataclasses.replace(workload, nodes=nodes)
        other = total(estimate(changed, engine, cost.plan.technology, tokens=cost.tokens, main=cost.plan.main))
        saved = (saved[0] + whole.area_um2 - other.area_um2, saved[1] + whole.energy_pj - other.energy_pj)
    return saved


def _own_quantizer(cost: ModelCost, name: str) -> str:
    for use in cost.plan.all_quantizers:
        if any(base_format(each) == name for each in use.used_for):
            return use.unit.name
    return "quantize_mxfp4"  # nothing is quantized on the fly


def _renamed(work: NodeWork, old: str, new: str) -> NodeWork:
    """The node with one format in place of another, bytes included."""

    def rename(name: str) -> str:
        return new if base_format(name) == old else name

    renamed = rename(work.quantized_format)
    if not work.macs:
        return dataclasses.replace(work, quantized_format=renamed)
    return _replaced(work, rename(work.a_format), rename(work.b_format), renamed)


def _in_format(work: NodeWork, name: str, quantized: bool) -> NodeWork:
    """The node with its quantized operands in a format."""
    if name == FLOAT16:
        a = b = quantizes = FLOAT16
    else:
        config = CompileConfig.of(name)
        a, b, quantizes = config.activations, config.weights, config.activations
        if work.kind == "attention":
            a, b = config.attention, config.keys
        elif work.kind == "quantize":
            quantizes = config.keys
    if work.macs and quantized:
        return _replaced(work, a, b, quantizes)
    if work.kind == "quantize" and work.quantized:
        if quantizes == FLOAT16:
            return dataclasses.replace(work, quantized=0, quantized_format="", input_bytes=0, output_bytes=0)
        written = math.ceil(work.quantized * get_format(quantizes).bits_per_element / 8)
        return dataclasses.replace(work, quantized_format=quantizes, output_bytes=written)
    return work


def _replaced(work: NodeWork, a: str, b: str, quantizes: str) -> NodeWork:
    """The product with other formats and the bytes that follow; nothing is quantized to floating point."""
    elements = work.quantized
    if not elements and is_float(work.a_format) and not is_float(a):
        elements = work.batch * work.m * work.k
    elements = 0 if is_float(a) else elements
    weights = _bytes(work, b, work.weight_code_bytes, work.weight_scale_bytes)
    cache = _bytes(work, b, work.cache_code_bytes, work.cache_scale_bytes)
    return dataclasses.replace(
        work,
        a_format=a,
        b_format=b,
        quantized=elements,
        quantized_format=quantizes if elements else "",
        weight_code_bytes=weights[0],
        weight_scale_bytes=weights[1],
        cache_code_bytes=cache[0],
        cache_scale_bytes=cache[1],
    )


def _bytes(work: NodeWork, new: str, codes: int, scales: int) -> tuple[int, int]:
    """Bytes of the right operand in another format: as many rows as now; what is more, a bias, stays as it is."""
    if new == work.b_format or not codes:
        return codes, scales
    old_row, new_row = row_bytes(work.b_format, work.k), row_bytes(new, work.k)
    rows = min(codes / old_row[0], work.batch * work.n)
    return math.ceil(codes - rows * old_row[0] + rows * new_row[0]), math.ceil(rows * new_row[1])
