"""Attention products by the definition of their formats: what goes in and comes out in a model, and what should.

`observe` notes the operands of every attention of a graph before the passes change it, `expose` makes them outputs of
the compiled model, and `Observed.check` compares its products with those of the NumPy formats in float64.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from models import UNIT_ROUNDOFF, UNIT_ROUNDOFF_HALF

from mxcompile.config import CompileConfig
from mxcompile.formats import NONE, get_format
from mxcompile.passes import (
    AttachFunctions,
    FuseMatMulBlock,
    InsertAttention,
    InsertQuantize,
    NormalizeLinears,
    PackWeights,
    SelectFormats,
)
from mxcompile.passes.analysis import Attention, find_attention
from mxcompile.passes.analysis.values import constant

Array = npt.NDArray[Any]
Values = Mapping[str, Array]

PRODUCTS_ONLY = ("*/qk", "*/pv")
"""Patterns of the settings that select attention products and nothing else."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """What to look at in one attention: names of values in the graph."""

    graph: ir.Graph
    index: int
    values: Mapping[str, str]
    perm: tuple[int, ...] | None
    scales: Sequence[tuple[float | str, bool]]

    @property
    def outputs(self) -> dict[str, str]:
        """Names of the outputs that show the values, by their roles."""
        return {role: f"attention{self.index}.{role}" for role in self.values}

    def check(self, run: Values, formats: Mapping[str, str], blocking: str = "sequence") -> None:
        """Asserts that both products are what the formats say, each element within the error of float32.

        A sum of n products is off by at most ``n * u`` times the sum of their magnitudes, in any order of summation
        (Higham 2002, (3.5)), and each product that underflows by one subnormal; each factor of the scale adds its own
        rounding and that of a multiplication, and float16 results are rounded once more. (Decoding rounds elements of
        nvfp4 twice each, which their product leaves out; it rounds once for 16 of them, so less often in all.) Of
        float16 nodes, which it computes in float32, onnxruntime may leave out the rounding between two: of scales that
        are computed, and of an operand that no quantizer reads.
        """
        seen = {role: run[name] for role, name in self.outputs.items()}
        half = UNIT_ROUNDOFF_HALF / UNIT_ROUNDOFF if seen["q"].dtype == np.float16 else 0.0
        scale, roundings = 1.0, 2.0
        for factor, divides in self.scales:
            number = float(seen[factor].item()) if isinstance(factor, str) else factor
            scale = scale / number if divides else scale * number
            roundings += 2 + half * isinstance(factor, str)
        rounded = half > 0 and formats["q"] == NONE
        k = seen["k"] if self.perm is None else seen["k"].transpose(self.perm)
        q_hat, k_hat = fake(seen["q"], formats["q"]), fake(k, formats["k"])
        assert_product(seen["scores"], q_hat, np.swapaxes(k_hat, -1, -2), scale, roundings, rounded)
        axis = -2 if blocking == "sequence" else -1
        p_hat, v_hat = fake(seen["p"], formats["p"]), fake(seen["v"], formats["v"], axis)
        assert_product(seen["context"], p_hat, v_hat, 1.0, 2.0, rounded)


def fake(x: Array, fmt: str, axis: int = -1) -> npt.NDArray[np.float64]:
    """What is left of x in the format."""
    x = x.astype(np.float32)
    return (x if fmt == NONE else get_format(fmt).fake_quantize(x, axis=axis)).astype(np.float64)


def assert_product(actual: Array, a: Array, b: Array, scale: float, roundings: float, rounded: bool) -> None:
    """Compares with ``scale * a @ b``; heads of b stand for groups of a's.

    Args:
        actual: What the model gives.
        a: The left operand.
        b: The right operand.
        scale: The factor.
        roundings: How many roundings of float32 there are besides those of the sum.
        rounded: Whether the left operand was rounded to float16 for being shown, and only then.
    """
    half = np.finfo(np.float16)
    if a.ndim == 4 and b.shape[1] != a.shape[1]:
        b = np.repeat(b, a.shape[1] // b.shape[1], axis=1)
    exact = scale * (a @ b)
    underflow = a.shape[-1] * float(np.finfo(np.float32).smallest_subnormal)
    bound = abs(scale) * ((a.shape[-1] + roundings) * UNIT_ROUNDOFF * (np.abs(a) @ np.abs(b)) + underflow)
    if rounded:
        bound = bound + abs(scale) * ((np.abs(a) * half.eps + half.smallest_subnormal) / 2 @ np.abs(b))
    if actual.dtype == np.float16:
        bound = bound + (np.abs(exact) + bound) * half.eps / 2 + half.smallest_subnormal
    assert actual.shape == exact.shape
    assert actual.size > 0
    assert (np.abs(actual - exact) <= bound).all()


def observe(model: ir.Model) -> list[Observed]:
    """Notes the attentions of the model, in the order of each graph."""
    found: list[Observed] = []
    for each in find_attention(model):
        graph = each.softmax.graph
        assert isinstance(graph, ir.Graph)
        found.append(_observed(each, graph, sum(other.graph is graph for other in found)))
    return found


def _observed(each: Attention, graph: ir.Graph, index: int) -> Observed:
    values = {"q": each.q, "k": each.k.source, "p": each.p, "v": each.v.source}
    values |= {"scores": each.qk.outputs[0], "context": each.pv.outputs[0]}
    scales: list[tuple[float | str, bool]] = []
    for scale in each.scales:
        array = constant(scale.value)
        if array is None:
            role = f"scale{len(scales)}"
            values[role] = scale.value
            scales.append((role, scale.divides))
        else:
            scales.append((float(array.item()), scale.divides))
    return Observed(graph, index, {role: str(value.name) for role, value in values.items()}, each.k.perm, scales)


def expose(model: ir.Model, observed: Sequence[Observed], dtype: ir.DataType = ir.DataType.FLOAT) -> None:
    """Makes the values outputs of the model, of both branches if they are in those of an If."""
    for each in observed:
        for role, name in each.outputs.items():
            value = _find(model, each.graph, each.values[role])
            shown = ir.node("Identity", [value], num_outputs=1)
            shown.outputs[0].name = name if each.graph is model.graph else f"{each.graph.name}.{name}"
            shown.outputs[0].dtype = dtype
            each.graph.append(shown)
            each.graph.outputs.append(shown.outputs[0])
            holder = next((node for node in model.graph if each.graph in _branches(node)), None)
            if holder is not None and len(holder.outputs) < len(each.graph.outputs):
                holder.resize_outputs(len(each.graph.outputs))
                holder.outputs[-1].name, holder.outputs[-1].dtype = name, dtype
                model.graph.outputs.append(holder.outputs[-1])


def _branches(node: ir.Node) -> list[ir.Graph]:
    return [each.as_graph() for each in node.attributes.values() if each.type is ir.AttributeType.GRAPH]


def _find(model: ir.Model, graph: ir.Graph, name: str) -> ir.Value:
    """The value of that name: of the graph, or of the main graph outside."""
    for each in (graph, model.graph):
        values = [*each.inputs, *(output for node in each for output in node.outputs)]
        for value in values:
            if value.name == name:
                return value
    raise AssertionError(f"{name} is gone")


def compiled(
    model: ir.Model,
    config: CompileConfig,
    *,
    fuse: bool = True,
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> list[Observed]:
    """Runs the passes over the model, and makes the operands and results of its attentions outputs."""
    NormalizeLinears()(model)
    SelectFormats(config, partial=True)(model)
    InsertQuantize()(model)
    observed = observe(model)
    InsertAttention(config.kv_blocking)(model)
    PackWeights()(model)
    for each in [*([FuseMatMulBlock()] if fuse else []), AttachFunctions()]:
        each(model)
    expose(model, observed, dtype)
    return observed


def formats_of(config: CompileConfig) -> dict[str, str]:
    """The formats of the four operands."""
    return {"q": config.attention, "k": config.keys, "p": config.attention, "v": config.values}
