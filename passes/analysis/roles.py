"""Which matrix products are output heads, routers, or rotary angles, by where their results go.

Names are no proof: an output head is the product whose result becomes the logits, whatever it is called. The walk
goes backwards from the tell-tale place through operators that only move or scale elements, up to the first products.
"""

from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

_RESHAPES: Final = {"Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
_PICKS: Final = {"Gather", "GatherElements", "GatherND", "Slice", "Split"}
_MOVES: Final = _RESHAPES | _PICKS | {"Cast", "Identity"}
"""Operators whose first input holds the elements; the others are positions and shapes."""

_ARITHMETIC: Final = {"Add", "Div", "Max", "Min", "Mul", "Neg", "Sqrt", "Sub", "Sum"}
_FUNCTIONS: Final = {"Clip", "Exp", "LogSoftmax", "Relu", "Sigmoid", "Softmax", "Softplus", "Tanh"}
_MIXES: Final = _ARITHMETIC | _FUNCTIONS | {"Concat", "ScatterElements", "ScatterND", "Where"}
"""Operators that combine their inputs element by element, or along one row of scores."""

_PRODUCTS: Final = {"MatMul", "Gemm"}


def products_behind(values: Iterable[ir.Value | None]) -> dict[ir.Node, None]:
    """The MatMul and Gemm nodes whose results reach the values unmixed with other layers, as an ordered set.

    An ``If`` is followed into both branches.
    """
    found: dict[ir.Node, None] = {}
    seen: set[ir.Value] = set()
    waiting = [value for value in values if value is not None]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value in seen or node is None or node.domain != "":
            continue
        seen.add(value)
        if node.op_type in _PRODUCTS:
            found[node] = None
        elif node.op_type == "If":
            branches = [each.as_graph() for each in node.attributes.values() if each.type is ir.AttributeType.GRAPH]
            waiting += [branch.outputs[value.index() or 0] for branch in branches]
        else:
            count = 1 if node.op_type in _MOVES else len(node.inputs) if node.op_type in _MIXES else 0
            waiting += [each for each in node.inputs[:count] if each is not None]
    return found


def find_heads(model: ir.Model) -> dict[ir.Node, None]:
    """Products whose results become a graph output ``logits`` or ``..._logits``."""
    outputs = [value for value in model.graph.outputs if f"_{value.name}".endswith("_logits")]
    return products_behind(outputs)


def find_routers(model: ir.Model) -> dict[ir.Node, None]:
    """Products whose results are ranked by TopK: the gates of mixtures of experts."""
    return products_behind(_readers(model, "TopK"))


def find_rotary(model: ir.Model) -> dict[ir.Node, None]:
    """Products whose results are angles, of which both cosine and sine are taken."""
    sines = products_behind(_readers(model, "Sin"))
    return {node: None for node in products_behind(_readers(model, "Cos")) if node in sines}


def _readers(model: ir.Model, op_type: str) -> list[ir.Value | None]:
    return [node.inputs[0] for node in model.graph.all_nodes() if (node.op_type, node.domain) == (op_type, "")]
