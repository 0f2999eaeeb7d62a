"""What the graph says about a value: its constant, its element type, its dimensions.

Exported graphs carry types and shapes of their inputs and outputs only, and onnx's own inference mixes up the branches
of an ``If`` that use the same names. What cannot be followed is None, never a guess.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes.rewriting import producer

Dims = list[int | None]
"""Dimensions, or the elements of a vector of integers; None for one that is only known at run time."""

_DEPTH: Final = 200
"""Steps that a walk goes back before it gives up, below Python's limit of recursion.

Walks follow the layers, so each stops at what an earlier one found, some 30 steps back.
"""

_SMALL: Final = 16
"""Elements of a constant that is looked into; axes, shapes and scales are no larger."""

_ALIKE: Final = frozenset(
    {
        *("Abs", "Cast", "CastLike", "Ceil", "Clip", "Cos", "CumSum", "DequantizeLinear", "Dropout", "Erf", "Exp"),
        *("Floor", "Gelu", "Identity", "IsNaN", "LayerNormalization", "Log", "Neg", "Not", "QuantizeLinear"),
        *("Reciprocal", "Relu", "ScatterElements", "ScatterND", "Sigmoid", "Sin", "Softmax", "Sqrt", "Tanh", "Trilu"),
    }
)
"""Operators whose first result has the dimensions of the first input."""

_BROADCAST: Final = frozenset(
    {
        *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod"),
        *("Mul", "Or", "Pow", "Sub", "Sum", "Where"),
    }
)
"""Operators whose inputs are broadcast to the dimensions of the result."""

_BOOLEAN: Final = frozenset({"And", "Equal", "Greater", "GreaterOrEqual", "IsNaN", "Less", "LessOrEqual", "Not", "Or"})


_INDICES: Final = frozenset({"ArgMax", "ArgMin", "NonZero", "Shape", "Size"})
"""Operators that count, whatever the type of what they look at; others do so in results after their first."""


def constant(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The elements of an initializer or a Constant, if they are few numbers that no caller can replace."""
    tensor = None if value is None or value.is_graph_input() else _tensor(value)
    return None if tensor is None or tensor.size > _SMALL else tensor.numpy()


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """The type of the value's elements."""
    seen: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.add(each)
        node, tensor = each.producer(), _tensor(each)
        if each.dtype is not None:
            return each.dtype
        if tensor is not None:
            return tensor.dtype
        if node is None or node.domain != "":
            continue
        if node.op_type in _BOOLEAN:
            return ir.DataType.BOOL
        if node.op_type in _INDICES or (node.op_type in ("MaxPool", "TopK", "Unique") and each.index()):
            return ir.DataType.INT64
        if node.op_type == "ConstantOfShape":
            fill = node.attributes.get("value")
            return ir.DataType.FLOAT if fill is None else fill.as_tensor().dtype
        if node.op_type == "Cast":
            return ir.DataType(node.attributes["to"].as_int())
        many = node.op_type in _BROADCAST or node.op_type in ("Concat", "Gemm", "MatMul")
        first = 1 if node.op_type in ("CastLike", "Where") else 0
        waiting += node.inputs[first:] if many else node.inputs[first : first + 1]
    return None


class Shapes:
    """Dimensions of values, each followed once; to be thrown away when the graph changes."""

    def __init__(self) -> None:
        self._dims: dict[ir.Value, Dims | None] = {}
        self._elements: dict[ir.Value, Dims | None] = {}
        self._depth = 0

    def dims(self, value: ir.Value | None) -> Dims | None:
        """The value's dimensions; None if not even their number is known."""
        return None if value is None else self._remember(self._dims, value, self._follow_dims)

    def elements(self, value: ir.Value | None) -> Dims | None:
        """The elements of a vector of integers, or the one of a scalar; None if not even their number is known."""
        return None if value is None else self._remember(self._elements, value, self._follow_elements)

    def is_scalar(self, value: ir.Value | None) -> bool:
        """Whether the value is a scalar, or a vector of one element."""
        return self.dims(value) in ([], [1])

    def _remember(
        self, found: dict[ir.Value, Dims | None], value: ir.Value, follow: Callable[[ir.Value], Dims | None]
    ) -> Dims | None:
        if value not in found:
            if self._depth == _DEPTH:
                return None
            self._depth += 1
            found[value] = follow(value)
            self._depth -= 1
        return found[value]

    def _follow_dims(self, value: ir.Value) -> Dims | None:
        if value.shape is not None:
            return [dim if isinstance(dim, int) else None for dim in value.shape]
        if (tensor := _tensor(value)) is not None:
            return list(tensor.shape.numpy())
        node = value.producer()
        if node is not None and (node.op_type, node.domain) == (DEQUANTIZE, DOMAIN):
            quantize = producer(node.inputs[0], QUANTIZE, DOMAIN)
            return self.dims(quantize.inputs[0]) if quantize is not None else None
        if node is None or node.domain != "":
            return None
        if node.op_type in _ALIKE:
            return self.dims(node.inputs[0])
        if node.op_type in _BROADCAST:
            return _broadcast([self.dims(each) for each in node.inputs])
        rule = _DIMS.get(node.op_type)
        return rule(node, self) if rule is not None else None

    def _follow_elements(self, value: ir.Value) -> Dims | None:
        if (array := constant(value)) is not None:
            is_vector = array.ndim <= 1 and np.issubdtype(array.dtype, np.integer)
            return [int(each) for each in array.reshape(-1)] if is_vector else None
        node = value.producer()
        if node is not None and node.domain == "" and (rule := _ELEMENTS.get(node.op_type)) is not None:
            return rule(node, self)
        shape = self.dims(value)
        length = 1 if shape == [] else shape[0] if shape is not None and len(shape) == 1 else None
        return [None] * length if length is not None and length <= _SMALL else None


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer, or of a Constant of numbers.

    Not `onnx_ir.convenience.get_const_tensor`, which gives the tensor of a Constant a name, and so changes the model.
    """
    node = value.producer()
    if node is None or (node.op_type, node.domain) != ("Constant", ""):
        return value.const_value
    for name, attribute in node.attributes.items():
        if name == "value":
            return attribute.as_tensor()
        if name.startswith(("value_float", "value_int")):
            return ir.Tensor(np.array(attribute.value, np.int64 if "int" in name else np.float32))
    return None


def _broadcast(shapes: Sequence[Dims | None]) -> Dims | None:
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes) or not known:
        return None
    rank = max(map(len, known))
    aligned = [[*[1] * (rank - len(shape)), *shape] for shape in known]
    return [_broadcast_dim(column) for column in zip(*aligned, strict=True)]


def _broadcast_dim(column: Sequence[int | None]) -> int | None:
    """One that is more than 1 in some input, is that; an unknown one may be more than 1."""
    larger = {dim for dim in column if dim is not None and dim != 1}
    if larger:
        return larger.pop() if len(larger) == 1 else None
    return None if None in column else 1


def _axes(node: ir.Node, rank: int, shapes: Shapes) -> set[int] | None:
    """The axes of a Squeeze, Unsqueeze or reduction, counted from the front of ``rank`` dimensions."""
    axes = shapes.elements(node.inputs[1]) if len(node.inputs) > 1 else None
    known = [axis for axis in axes or () if axis is not None]
    return {axis % rank for axis in known} if axes and len(known) == len(axes) else None


def _shape_dims(node: ir.Node, shapes: Shapes) -> Dims | None:
    vector = _shape_elements(node, shapes)
    return [None] if vector is None else [len(vector)]


def _transposed(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    perm = node.attributes.get_ints("perm", ())
    if shape is None:
        return [None] * len(perm) or None
    return [shape[axis] for axis in perm] if perm else shape[::-1]


def _reshaped(node: ir.Node, shapes: Shapes) -> Dims | None:
    wanted, old = shapes.elements(node.inputs[1]), shapes.dims(node.inputs[0]) or []
    if wanted is None:
        return None
    if wanted == [-1] and (vector := shapes.elements(node.inputs[0])) is not None:
        return [len(vector)]
    copies = not node.attributes.get_int("allowzero", 0)
    kept = [old[axis] if dim == 0 and copies and axis < len(old) else dim for axis, dim in enumerate(wanted)]
    return [None if dim is None or dim < 0 or (dim == 0 and copies) else dim for dim in kept]


def _expanded(node: ir.Node, shapes: Shapes) -> Dims | None:
    return _broadcast([shapes.dims(node.inputs[0]), shapes.elements(node.inputs[1])])


def _unsqueezed(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    count = len(shapes.elements(node.inputs[1]) or ())
    if shape is None or not count:
        return None
    axes = _axes(node, len(shape) + count, shapes)
    rest = iter(shape)
    return None if axes is None else [1 if axis in axes else next(rest) for axis in range(len(shape) + count)]


def _squeezed(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    axes = _axes(node, len(shape), shapes) if shape else None
    return None if shape is None or axes is None else [dim for axis, dim in enumerate(shape) if axis not in axes]


def _concatenated(node: ir.Node, shapes: Shapes) -> Dims | None:
    parts = [shape for each in node.inputs if (shape := shapes.dims(each)) is not None]
    if not parts:
        return None
    axis = node.attributes["axis"].as_int() % len(parts[0])
    known = [shape[axis] for shape in parts if shape[axis] is not None]
    total = sum(dim for dim in known if dim is not None) if len(known) == len(node.inputs) else None
    columns = zip(*parts, strict=True)
    alike = [next((dim for dim in column if dim is not None), None) for column in columns]
    return [*alike[:axis], total, *alike[axis + 1 :]]


def _sliced(node: ir.Node, shapes: Shapes) -> Dims | None:
    """The axes that are cut are unknown, except of vectors whose elements are known."""
    shape = shapes.dims(node.inputs[0])
    axes = shapes.elements(node.inputs[3]) if len(node.inputs) > 3 else None
    if shape is None:
        return None
    if len(shape) == 1:
        vector = shapes.elements(node.outputs[0])
        return [None] if vector is None else [len(vector)]
    cut = {axis if axis is None else axis % len(shape) for axis in axes or [None]}
    return [None if axis in cut or None in cut else dim for axis, dim in enumerate(shape)]


def _split(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    if shape is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    return [*shape[:axis], None, *shape[axis + 1 :]]


def _gathered(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape, picked = shapes.dims(node.inputs[0]), shapes.dims(node.inputs[1])
    if shape is None or picked is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    return [*shape[:axis], *picked, *shape[axis + 1 :]]


def _reduced(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    axes = _axes(node, len(shape), shapes) if shape else None
    if shape is None or axes is None or not node.attributes.get_int("keepdims", 1):
        return None
    return [1 if axis in axes else dim for axis, dim in enumerate(shape)]


def _multiplied(node: ir.Node, shapes: Shapes) -> Dims | None:
    a, b = (shapes.dims(each) for each in node.inputs[:2])
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    return [*(_broadcast([a[:-2], b[:-2]]) or []), a[-2], b[-1]]


_DIMS: Final[Mapping[str, Callable[[ir.Node, Shapes], Dims | None]]] = {
    "Concat": _concatenated,
    "ConstantOfShape": lambda node, shapes: shapes.elements(node.inputs[0]),
    "Expand": _expanded,
    "Flatten": lambda node, shapes: [None, None],
    "Gather": _gathered,
    "MatMul": _multiplied,
    "Range": lambda node, shapes: [None],
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Reshape": _reshaped,
    "Shape": _shape_dims,
    "Slice": _sliced,
    "Split": _split,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}


def _shape_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.inputs[0])
    end = node.attributes.get("end")
    return None if shape is None else shape[node.attributes.get_int("start", 0) : end.as_int() if end else None]


def _joined_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    joined: Dims = []
    for each in node.inputs:
        part = shapes.elements(each)
        if part is None:
            return None
        joined += part
    return joined


def _picked_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    positions, shape = shapes.elements(node.inputs[1]), shapes.dims(node.inputs[0])
    if positions is None or shape is None or len(shape) != 1:
        return None
    source = shapes.elements(node.inputs[0]) or []
    inside = range(-len(source), len(source))
    return [source[each] if each is not None and each in inside else None for each in positions]


def _sliced_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    source = shapes.elements(node.inputs[0])
    start, end, *rest = (shapes.elements(each) or [None] for each in node.inputs[1:])
    step = rest[1][0] if len(rest) > 1 else 1
    if source is None or start[0] is None or end[0] is None or step is None:
        return None
    return source[start[0] : end[0] : step]


def _filled_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    length = shapes.elements(node.inputs[0])
    value = node.attributes.get("value")
    if length is None or len(length) != 1 or length[0] is None or length[0] > _SMALL:
        return None
    array = value.as_tensor().numpy() if value is not None else np.zeros(1)
    return [int(array.item()) if np.issubdtype(array.dtype, np.integer) else None] * length[0]


def _same_elements(node: ir.Node, shapes: Shapes) -> Dims | None:
    shape = shapes.dims(node.outputs[0])
    return shapes.elements(node.inputs[0]) if shape is not None and len(shape) <= 1 else None


def _elementwise(combine: Callable[..., int | None]) -> Callable[[ir.Node, Shapes], Dims | None]:
    """The rule of an operator on vectors of one length, or scalars with them."""

    def rule(node: ir.Node, shapes: Shapes) -> Dims | None:
        operands = [each for value in node.inputs if (each := shapes.elements(value)) is not None]
        length = max(map(len, operands), default=0)
        if len(operands) != len(node.inputs) or any(len(each) not in (1, length) for each in operands):
            return None
        columns = zip(*(each if len(each) == length else each * length for each in operands), strict=True)
        return [combine(*column) for column in columns]

    return rule


def _if_known(function: Callable[[int, int], int]) -> Callable[[int | None, int | None], int | None]:
    return lambda a, b: None if a is None or b is None else function(a, b)


def _chosen(condition: int | None, then: int | None, otherwise: int | None) -> int | None:
    if condition is None:
        return then if then == otherwise else None
    return then if condition else otherwise


_ELEMENTS: Final[Mapping[str, Callable[[ir.Node, Shapes], Dims | None]]] = {
    "Add": _elementwise(_if_known(operator.add)),
    "Cast": _same_elements,
    "Concat": _joined_elements,
    "ConstantOfShape": _filled_elements,
    "Equal": _elementwise(_if_known(lambda a, b: int(a == b))),
    "Gather": _picked_elements,
    "Identity": _same_elements,
    "Mul": _elementwise(_if_known(operator.mul)),
    "Reshape": _same_elements,
    "Shape": _shape_elements,
    "Slice": _sliced_elements,
    "Squeeze": _same_elements,
    "Sub": _elementwise(_if_known(operator.sub)),
    "Unsqueeze": _same_elements,
    "Where": _elementwise(_chosen),
}
