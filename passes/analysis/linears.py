"""Finds the linear layers of a model, and says why the other matrix products are none."""

import collections
import dataclasses
import re
from typing import Final

import onnx_ir as ir

from mxcompile.passes.analysis.attention import find_unrecognized
from mxcompile.passes.analysis.roles import find_rotary
from mxcompile.passes.metadata import LAYER
from mxcompile.passes.rewriting import all_graphs, is_constant, swaps_axes

FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
"""Types that a linear layer's weight may have."""

ACTIVATIONS_ONLY: Final = "both operands are activations (an attention product)"
ROTARY: Final = "rotary angles: positions times frequencies must stay exact"
CONSTANT_LEFT: Final = "the constant operand is on the left; only x @ weight is a linear layer"

_OP_SUFFIX: Final = re.compile(r"(?<=[^/])/(?:MatMul|Gemm)(?:_\d+)?$")
_DECODERS: Final = frozenset(
    {"Cast", "DequantizeLinear", "Mul", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze", "Transpose"}
)


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear layer: MatMul of activations with a constant matrix.

    Attributes:
        node: The MatMul.
        layer: Its path in the model, such as ``/model/layers.0/self_attn/q_proj``; one layer a graph has it, but both
            branches of an ``If`` may hold the same layer.
        weight: The initializer, ``[k, n]``, or ``[n, k]`` if ``transposed``; it may be registered in an outer graph.
        transposed: Whether the MatMul reads the weight through a Transpose.
        k: Length of the reduction.
        n: Output features.
    """

    node: ir.Node
    layer: str
    weight: ir.Value
    transposed: bool
    k: int
    n: int


@dataclasses.dataclass(frozen=True)
class OtherMatMul:
    """A MatMul or Gemm that is no linear layer, or another operator that multiplies activations.

    Attributes:
        node: The node.
        reason: Why it is none, in words for the user.
    """

    node: ir.Node
    reason: str


def find_linears(model: ir.Model) -> list[Linear]:
    """The linear layers of the main graph and its subgraphs, in graph order; functions hold none.

    A linear layer's weight is a float matrix among the initializers, directly, or through Identity or Transpose. A
    Gemm is not yet one: normalize-linears turns it into a MatMul.
    """
    return classify(model)[0]


def find_other_matmuls(model: ir.Model) -> list[OtherMatMul]:
    """Every MatMul and Gemm that `find_linears` does not give, each with the reason; attention products too.

    Behind them the other operators that multiply activations (see `find_unrecognized`).
    """
    return classify(model)[1]


def classify(model: ir.Model) -> tuple[list[Linear], list[OtherMatMul]]:
    """Both `find_linears` and `find_other_matmuls` in one walk."""
    rotary = find_rotary(model)
    no_attention = {each.node: each.reason for each in find_unrecognized(model)}
    linears: list[Linear] = []
    others: list[OtherMatMul] = []
    for graph in all_graphs(model):
        products = [node for node in graph if node.op_type in ("MatMul", "Gemm") and node.domain == ""]
        for node, layer in zip(products, _layer_names(products), strict=True):
            reason = ROTARY if node in rotary else obstacle(node) or _gemm_form(node)
            if reason is not None:
                reason = no_attention.get(node, reason) if reason == ACTIVATIONS_ONLY else reason
                others.append(OtherMatMul(node, reason))
            elif (found := resolve_weight(node.inputs[1])) is not None:
                weight, transposed = found
                k, n = _dims(weight)[::-1] if transposed else _dims(weight)
                linears.append(Linear(node, layer, weight, transposed, k, n))
    seen = {other.node for other in others}
    others += [OtherMatMul(node, reason) for node, reason in no_attention.items() if node not in seen]
    return linears, others


def obstacle(node: ir.Node) -> str | None:
    """Why a MatMul or Gemm cannot be a linear layer; None if it can."""
    found = resolve_weight(node.inputs[1])
    if found is None:
        return _no_weight(node)
    weight, _ = found
    dtype, dims = weight.dtype, _dims(weight)
    if weight.is_graph_input():
        return f"the weight {weight.name} is also a graph input, so it may change at run time"
    if dtype not in FLOATS:
        return f"the weight {weight.name} is {dtype}; only float weights are quantized"
    if len(dims) != 2 or 0 in dims:
        return f"the weight {weight.name} has shape {list(dims)}; only a matrix makes a linear layer"
    return None


def resolve_weight(value: ir.Value | None) -> tuple[ir.Value, bool] | None:
    """The initializer behind Identity and Transpose nodes, and whether it is transposed; None if there is none."""
    transposed = False
    while value is not None and (node := value.producer()) is not None:
        if node.domain != "" or node.op_type not in ("Identity", "Transpose"):
            return None
        if node.op_type == "Transpose":
            if not swaps_axes(node):
                return None
            transposed = not transposed
        value = node.inputs[0]
    return (value, transposed) if value is not None and value.is_initializer() else None


def _no_weight(node: ir.Node) -> str:
    """Why there is no weight on the right."""
    value, steps = node.inputs[1], list[str]()
    while value is not None and (maker := value.producer()) is not None and maker.op_type in _DECODERS:
        steps.append(maker.op_type)
        # Of a product with a scale on the left, the other operand tells.
        value = maker.inputs[1] if maker.op_type == "Mul" and is_constant(maker.inputs[0]) else maker.inputs[0]
    maker = value.producer() if value is not None else None
    if is_constant(value) or (maker is not None and maker.op_type == "Constant"):
        return f"the weight is computed by {', '.join(steps[::-1]) or 'Constant'}; only initializers are quantized"
    left = node.inputs[0]
    return CONSTANT_LEFT if is_constant(left) else ACTIVATIONS_ONLY


def gemm_obstacle(node: ir.Node) -> str | None:
    """Why a Gemm is more than a linear layer; None if it is ``x @ weight + bias``."""
    attributes = node.attributes
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    form = {"alpha": attributes.get_float("alpha", 1.0), "transA": attributes.get_int("transA", 0)}
    if has_bias:
        form["beta"] = attributes.get_float("beta", 1.0)
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    odd = [f"{key} = {value:g}" for key, value in form.items() if value != plain[key]]
    return f"Gemm with {', '.join(odd)}; only alpha = beta = 1, transA = 0 is a linear layer" if odd else None


def _gemm_form(node: ir.Node) -> str | None:
    if node.op_type != "Gemm":
        return None
    return gemm_obstacle(node) or "a Gemm that normalize-linears has not seen"


def _layer_names(nodes: list[ir.Node]) -> list[str]:
    """A name for each node of one graph: its path without the operator, else its own name, else its output's.

    The first of these that no other node of the graph shares; value names are unique.
    """
    paths = [node.metadata_props.get(LAYER) or _OP_SUFFIX.sub("", node.name or "") for node in nodes]
    names = [node.name or "" for node in nodes]
    path_counts, name_counts = collections.Counter(paths), collections.Counter(names)
    chosen = []
    for node, path, name in zip(nodes, paths, names, strict=True):
        fallback = name if name and name_counts[name] == 1 else node.outputs[0].name or ""
        chosen.append(path if path and path_counts[path] == 1 else fallback)
    return chosen


def _dims(weight: ir.Value) -> tuple[int, ...]:
    return tuple(weight.const_value.shape.numpy()) if weight.const_value is not None else ()
