"""What a node is for, by its operator and by where it stands: the kinds that a cost is summed up by."""

from collections.abc import Iterator
from typing import Final, Literal

import onnx_ir as ir

from mxcompile.cost.shapes import Visit
from mxcompile.ops import DEQUANTIZE, MATMUL, QUANTIZE
from mxcompile.passes.analysis import find_attention
from mxcompile.passes.metadata import ATTENTION

Kind = Literal[
    "linear", "attention", "softmax", "norm", "elementwise", "quantize", "dequantize", "embedding", "movement"
]

PRODUCTS: Final = frozenset({"Conv", "Einsum", "Gemm", "MatMul", MATMUL})
"""Operators of the array of multipliers."""

VIEWS: Final = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"})
"""Operators that neither compute nor move anything: their result lies where their input does, or is known of it."""

_MOVES: Final = VIEWS | {
    *("Concat", "ConstantOfShape", "Dropout", "Expand", "Gather", "GatherElements", "GatherND", "Pad"),
    *("ScatterElements", "ScatterND", "Slice", "Split", "Tile", "Transpose"),
}
_NORMS: Final = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
        "SkipSimplifiedLayerNormalization",
    }
)
_MATRIX: Final = 2


def attention_products(model: ir.Model) -> set[ir.Node]:
    """The products of queries and keys, and of probabilities and values; compiled ones say so in their metadata."""
    found = {node for each in find_attention(model) for node in (each.qk, each.pv)}
    marked = (node for node in model.graph.all_nodes() if ATTENTION in node.metadata_props)
    return found | {node for node in marked if node.op_type in PRODUCTS}


def norm_parts(model: ir.Model) -> set[ir.Node]:
    """The nodes of norms that are written out: around each root of a mean of squares.

    Behind it the mean, the squares and what is subtracted before; ahead the division or the product with the inverse,
    and the scale and shift by constants.
    """
    parts: set[ir.Node] = set()
    for root in (node for node in model.graph.all_nodes() if (node.op_type, node.domain) == ("Sqrt", "")):
        behind = list(_behind(root))
        if any(node.op_type == "ReduceMean" for node in behind):
            parts.update(behind, _ahead(root))
    return parts


def _behind(root: ir.Node) -> Iterator[ir.Node]:
    yield root
    wanted = ["Add", "ReduceMean", "Pow", "Mul", "Sub", "ReduceMean"]
    value = root.inputs[0]
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == "Cast":
            pass
        elif node.op_type in wanted:
            del wanted[: wanted.index(node.op_type) + 1]
        else:
            return
        if node.op_type == "Mul" and node.inputs[0] is not node.inputs[1]:
            return
        yield node
        if node.op_type == "Sub":
            mean = node.inputs[1].producer() if node.inputs[1] is not None else None
            if mean is not None and mean.op_type == "ReduceMean":
                yield mean
            return
        value = node.inputs[0]


def _ahead(root: ir.Node) -> Iterator[ir.Node]:
    """Through the product or quotient of two activations, then at most one scale and one shift by constants."""
    waiting: list[tuple[ir.Value, tuple[str, ...]]] = [(root.outputs[0], ("inverse", "norm", "scale", "shift"))]
    while waiting:
        value, steps = waiting.pop()
        for node, _ in value.uses():
            constant = any(map(_is_constant, node.inputs))
            if node.op_type in ("Cast", "Reciprocal"):
                step = steps[0] if steps else ""
            elif node.op_type in ("Div", "Mul"):
                step = "norm" if not constant else "inverse" if steps[:1] == ("inverse",) else "scale"
            else:
                step = "shift" if node.op_type == "Add" and constant else ""
            if step not in steps or (step in ("scale", "shift") and "norm" in steps):
                continue
            yield node
            kept = steps if node.op_type in ("Cast", "Reciprocal") else steps[steps.index(step) + 1 :]
            waiting.append((node.outputs[0], kept))


def _is_constant(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    if maker is not None:
        return maker.op_type == "Constant" or (maker.op_type in ("Cast", "Identity") and _is_constant(maker.inputs[0]))
    return value is not None and value.const_value is not None


def kind_of(visit: Visit, attention: set[ir.Node], norms: set[ir.Node]) -> Kind:
    """The kind of a node. Every product that is not attention's is ``linear``, Conv and rotary angles included."""
    op_type = visit.call.op_type
    if op_type in PRODUCTS:
        return "attention" if visit.node in attention else "linear"
    if op_type in (QUANTIZE, "QuantizeLinear"):
        return "quantize"
    if op_type in (DEQUANTIZE, "DequantizeLinear"):
        return "dequantize"
    if op_type in ("Softmax", "LogSoftmax"):
        return "softmax"
    if op_type in _NORMS or visit.node in norms:
        return "norm"
    if op_type == "Gather" and _is_table(visit):
        return "embedding"
    return "movement" if op_type in _MOVES else "elementwise"


def _is_table(visit: Visit) -> bool:
    """Whether a Gather looks rows of weights up by numbers that come from outside."""
    table, rows = visit.call.inputs[:2]
    if table is None or rows is None or table.dims is None or table.dtype is None:
        return False
    outside = table.origin == "constant" and rows.origin != "constant"
    return outside and len(table.dims) >= _MATRIX and table.dtype.is_floating_point()
