"""What products cost in each candidate of a search: bits of their weights, or energy."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.cost.report import report_model
from mxcompile.cost.workload import nodes_by_name
from mxcompile.evaluation.assignment import Float64
from mxcompile.evaluation.switches import Switch
from mxcompile.formats import get_format
from mxcompile.onnx_file import read_model
from mxcompile.passes import NormalizeLinears, SelectFormats
from mxcompile.passes.metadata import LAYER

FLOAT_BITS: Final = 32
"""Bits of a weight that stays in float, as the exporter writes it."""


def weight_bits(candidates: Sequence[Sequence[Switch]]) -> Float64:
    """What each product adds to the mean bits of a weight, scales included; attention products have no weights.

    Args:
        candidates: The products as each candidate quantizes them.

    Returns:
        float64 ``[products, candidates + 1]``, the last column for float.
    """
    elements = np.array([switch.elements for switch in candidates[0]], np.float64)
    bits = [[get_format(switch.weights).bits_per_element for switch in switches] for switches in candidates]
    columns = np.array([*bits, [float(FLOAT_BITS)] * len(elements)]).T
    shares: Float64 = elements[:, np.newaxis] / max(float(elements.sum()), 1.0)
    found: Float64 = shares * columns
    return found


def energies(
    plain: Path,
    candidates: Sequence[tuple[str, dict[str, Any]]],
    products: Sequence[Switch],
    tokens: int,
    *,
    engine: str,
    technology: str,
) -> Float64:
    """Energy of each product for a token of a prefill, by `mxcompile.cost`.

    Each is that in the model with every product in the candidate: quantizers, buffers and memories included.

    Args:
        plain: The float model.
        candidates: Format and further settings of `compile_model` for each.
        products: The products.
        tokens: Tokens of the prefill.
        engine: See `mxcompile.cost.report.report_model`.
        technology: The same.

    Returns:
        pJ, float64 ``[products, candidates + 1]``, the last column for float.

    Raises:
        CostModelError: There is no unit for a candidate, or a size that does not follow from the graph.
    """

    def column(model: ir.Model) -> list[float]:
        report = report_model(plain.name, model, engine=engine, technology=technology, prefill=tokens)
        nodes = nodes_by_name(model)
        sums: dict[str | None, float] = {}
        for node in report.phases[0].cost.nodes:
            layer = nodes[node.name].metadata_props.get(LAYER)
            sums[layer] = sums.get(layer, 0.0) + node.energy_pj
        return [sums[product.layer] / tokens for product in products]

    columns = []
    with tempfile.TemporaryDirectory(prefix="mxcompile-") as folder:
        for fmt, settings in candidates:
            file = Path(folder, f"{fmt}.onnx")
            compile_model(plain, output=file, format=fmt, kv_cache="float", **settings)
            columns.append(column(read_model(file, compiled=True)))
    model = read_model(plain)
    for each in (NormalizeLinears(), SelectFormats(CompileConfig.of("mxfp4", include=("*",)))):
        each(model)
    columns.append(column(model))
    return np.array(columns).T
