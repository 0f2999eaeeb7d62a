"""The dimensions of what each operator gives, from those of what it reads.

Source: the operators' definitions in the ONNX standard; for the three operators of this project `mxcompile.ops`.
Slices are taken to lie inside what they cut where their bounds are only known as expressions.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Final

from mxcompile.cost.quantities import (
    Quantity,
    add,
    broadcast,
    ceil_divide,
    divide_exactly,
    floor_divide,
    multiply,
    product,
    smaller,
    subtract,
    symbol,
    total,
)
from mxcompile.cost.tensors import LAST, Call, Dims, UnknownError, from_front
from mxcompile.formats import Format, get_format
from mxcompile.ops import DEQUANTIZE, MATMUL, QUANTIZE

Rule = Callable[[Call], list[Dims]]


def scale_groups(fmt: Format, size: Quantity) -> Quantity:
    """`Format.scale_groups` of a size that may depend on dimensions."""
    rows = ceil_divide(size, fmt.block_size) if fmt.block_size else smaller(size, 1)
    return add(fmt.scale_groups(0), rows)


def packed_size(fmt: Format, size: Quantity) -> Quantity:
    """Bytes of the codes of a row of a size that may depend on dimensions."""
    return ceil_divide(multiply(size, fmt.element.bits), 8)


def broadcast_dims(*shapes: Dims) -> Dims:
    """The dimensions of tensors broadcast to each other, by the rules of NumPy."""
    aligned = itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return tuple(functools.reduce(broadcast, column) for column in aligned)[::-1]


def _alike(call: Call) -> list[Dims]:
    return [call.dims(0)] * call.outputs


def _broadcast(call: Call) -> list[Dims]:
    return [broadcast_dims(*(call.dims(index) for index in range(len(call.inputs)) if call.has(index)))]


def _shape(call: Call) -> list[Dims]:
    rank = len(call.dims(0))
    return [(len(range(rank)[call.value("start", 0) : call.value("end", rank)]),)]


def _transpose(call: Call) -> list[Dims]:
    dims = call.dims(0)
    return [tuple(dims[axis] for axis in call.value("perm", range(len(dims))[::-1]))]


def _reshape(call: Call) -> list[Dims]:
    old, wanted = call.dims(0), call.elements(1)
    copies = not call.value("allowzero", 0)
    dims = [old[axis] if dim == 0 and copies and axis < len(old) else dim for axis, dim in enumerate(wanted)]
    unknown = [axis for axis, dim in enumerate(dims) if dim is None or dim == -1]
    if len(unknown) > 1:
        raise UnknownError(f"more than one dimension of what {call.name} gives is known at run time only")
    for axis in unknown:
        known = product(dim for dim in dims if dim is not None and dim != -1)
        dims[axis] = divide_exactly(product(old), known)
    return [tuple(dim for dim in dims if dim is not None)]


def _flatten(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.value("axis", 1)
    return [(product(dims[:axis]), product(dims[axis:]))]


def _expand(call: Call) -> list[Dims]:
    return [broadcast_dims(call.dims(0), call.numbers(1))]


def _unsqueeze(call: Call) -> list[Dims]:
    dims, axes = call.dims(0), call.axes(1)
    if axes is None:
        raise UnknownError("an Unsqueeze without axes")
    rank = len(dims) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(dims)
    return [tuple(1 if axis in new else next(rest) for axis in range(rank))]


def _squeeze(call: Call) -> list[Dims]:
    dims, axes = call.dims(0), call.axes(1)
    gone = {i for i, dim in enumerate(dims) if dim == 1} if axes is None else {axis % len(dims) for axis in axes}
    return [tuple(dim for axis, dim in enumerate(dims) if axis not in gone)]


def _concat(call: Call) -> list[Dims]:
    shapes = [call.dims(index) for index in range(len(call.inputs))]
    axis = call.axis(0, len(shapes[0]))
    # All other dimensions are the same; a number says most.
    dims = [next((dim for dim in column if isinstance(dim, int)), column[0]) for column in zip(*shapes, strict=True)]
    dims[axis] = total(shape[axis] for shape in shapes)
    return [tuple(dims)]


def sliced_size(size: Quantity, start: Quantity, end: Quantity, step: int) -> Quantity:
    """How many of ``size`` positions a Slice keeps."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(size)[start : end if step > 0 or end >= -size else None : step])
    if step < 0:
        if start != -1 or (isinstance(end, int) and end > -LAST):
            raise UnknownError("a Slice that goes backwards through part of a dimension")
        return ceil_divide(size, -step)
    first = from_front(start, size)
    last = size if isinstance(end, int) and end >= LAST else from_front(end, size)
    return ceil_divide(subtract(last, first), step)


def _slice(call: Call) -> list[Dims]:
    dims = list(call.dims(0))
    old = "starts" in call.attributes
    starts = call.value("starts", None) if old else call.elements(1)
    ends = call.value("ends", None) if old else call.elements(2)
    axes = call.axes(3) or tuple(range(len(starts)))
    steps = call.axes(4, "steps") or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if start is None or end is None:
            raise UnknownError(f"where {call.name} cuts is known at run time only")
        dims[axis] = sliced_size(dims[axis], start, end, step)
    return [tuple(dims)]


def _split(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.axis(0, len(dims))
    parts = call.axes(1, "split")
    if parts is None:
        each = ceil_divide(dims[axis], call.outputs)
        rest = subtract(dims[axis], multiply(each, call.outputs - 1))
        return [(*dims[:axis], part, *dims[axis + 1 :]) for part in (*[each] * (call.outputs - 1), rest)]
    return [(*dims[:axis], part, *dims[axis + 1 :]) for part in parts]


def _gather(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.axis(0, len(dims))
    return [(*dims[:axis], *call.dims(1), *dims[axis + 1 :])]


def _gather_nd(call: Call) -> list[Dims]:
    dims, picked, batch = call.dims(0), call.dims(1), call.value("batch_dims", 0)
    if not isinstance(picked[-1], int):
        raise UnknownError(f"how many positions {call.name} takes is known at run time only")
    return [(*picked[:-1], *dims[batch + picked[-1] :])]


def _like_second(call: Call) -> list[Dims]:
    return [call.dims(1)]


def _tile(call: Call) -> list[Dims]:
    return [tuple(map(multiply, call.dims(0), call.numbers(1)))]


def _pad(call: Call) -> list[Dims]:
    dims = list(call.dims(0))
    pads = call.value("pads", None) or call.numbers(1)
    axes = call.axes(3) or tuple(range(len(dims)))
    for index, axis in enumerate(axes):
        dims[axis] = add(dims[axis], add(pads[index], pads[index + len(axes)]))
    return [tuple(dims)]


def _reduce(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axes = call.axes(1) or (() if call.value("noop_with_empty_axes", 0) else range(len(dims)))
    gone = {axis % len(dims) for axis in axes}
    if call.value("keepdims", 1):
        return [tuple(1 if axis in gone else dim for axis, dim in enumerate(dims))]
    return [tuple(dim for axis, dim in enumerate(dims) if axis not in gone)]


def _arg(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.axis(0, len(dims))
    kept = (1,) if call.value("keepdims", 1) else ()
    return [(*dims[:axis], *kept, *dims[axis + 1 :])]


def _top_k(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.axis(-1, len(dims))
    k = call.value("k", None) or call.numbers(1)[0]
    return [(*dims[:axis], k, *dims[axis + 1 :])] * 2


def _matmul(call: Call) -> list[Dims]:
    a, b = call.dims(0), call.dims(1)
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    rows = (left[-2],) if len(a) > 1 else ()
    columns = (right[-1],) if len(b) > 1 else ()
    return [(*broadcast_dims(left[:-2], right[:-2]), *rows, *columns)]


def _gemm(call: Call) -> list[Dims]:
    a, b = call.dims(0), call.dims(1)
    return [(a[1] if call.value("transA", 0) else a[0], b[0] if call.value("transB", 0) else b[1])]


def einsum_terms(call: Call) -> tuple[list[str], str, dict[str, Quantity]]:
    """The letters of each operand and of the result of an Einsum, and the dimension that each letter stands for.

    Raises:
        UnknownError: It uses an ellipsis.
    """
    equation = str(call.value("equation", "")).replace(" ", "")
    if "." in equation:
        raise UnknownError("an Einsum with an ellipsis")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    sizes: dict[str, Quantity] = {}
    for index, term in enumerate(terms):
        for letter, dim in zip(term, call.dims(index), strict=True):
            sizes[letter] = broadcast(sizes.get(letter, 1), dim)
    if not arrow:
        result = "".join(sorted(letter for letter in sizes if left.count(letter) == 1))
    return terms, result, sizes


def _einsum(call: Call) -> list[Dims]:
    _, result, sizes = einsum_terms(call)
    return [tuple(sizes[letter] for letter in result)]


def _windows(call: Call, kernel: tuple[int, ...]) -> tuple[Quantity, ...]:
    """The positions of a window along each spatial dimension."""
    spatial = call.dims(0)[2:]
    rank = len(spatial)
    strides, dilations = call.value("strides", [1] * rank), call.value("dilations", [1] * rank)
    pads, auto = call.value("pads", [0] * 2 * rank), call.value("auto_pad", "NOTSET")
    sizes = []
    for axis, size in enumerate(spatial):
        if auto.startswith("SAME"):
            sizes.append(ceil_divide(size, strides[axis]))
            continue
        rest = subtract(add(size, pads[axis] + pads[axis + rank]), dilations[axis] * (kernel[axis] - 1) + 1)
        divide = ceil_divide if call.value("ceil_mode", 0) else floor_divide
        sizes.append(add(divide(rest, strides[axis]), 1))
    return tuple(sizes)


def _conv(call: Call) -> list[Dims]:
    kernel = [dim for dim in call.dims(1)[2:] if isinstance(dim, int)]
    return [(call.dims(0)[0], call.dims(1)[0], *_windows(call, tuple(kernel)))]


def _pool(call: Call) -> list[Dims]:
    return [(*call.dims(0)[:2], *_windows(call, tuple(call.value("kernel_shape", ()))))] * call.outputs


def _global_pool(call: Call) -> list[Dims]:
    dims = call.dims(0)
    return [(*dims[:2], *(1 for _ in dims[2:]))]


def _range(call: Call) -> list[Dims]:
    (start,), (end,), (step,) = (call.numbers(index) for index in range(3))
    size = ceil_divide(subtract(end, start), step)
    return [(max(size, 0) if isinstance(size, int) else size,)]


def _one_hot(call: Call) -> list[Dims]:
    dims, (depth,) = call.dims(0), call.numbers(1)
    axis = call.value("axis", -1) % (len(dims) + 1)
    return [(*dims[:axis], depth, *dims[axis:])]


def _counted(call: Call) -> list[Dims]:
    """How many elements are not zero is known at run time only: a dimension of its own."""
    return [(len(call.dims(0)), symbol(call.counted))]


def _normalized(call: Call) -> list[Dims]:
    dims = call.dims(0)
    axis = call.axis(-1, len(dims))
    rows = (*dims[:axis], *(1 for _ in dims[axis:]))
    return [dims, *[rows] * (call.outputs - 1)]


def _skip_normalized(call: Call) -> list[Dims]:
    dims = call.dims(0)
    return [dims, (*dims[:-1], 1), (*dims[:-1], 1), dims][: call.outputs]


def _quantize_block(call: Call) -> list[Dims]:
    dims, fmt = call.dims(0), get_format(call.value("format", ""))
    axis = call.axis(-1, len(dims))
    codes = (*dims[:axis], packed_size(fmt, dims[axis]), *dims[axis + 1 :])
    return [codes, (*dims[:axis], scale_groups(fmt, dims[axis]), *dims[axis + 1 :], fmt.scales_per_block)]


def _dequantize_block(call: Call) -> list[Dims]:
    dims, fmt = call.dims(0), get_format(call.value("format", ""))
    axis = call.axis(-1, len(dims))
    size = call.value("size", 0) or floor_divide(multiply(dims[axis], 8), fmt.element.bits)
    return [(*dims[:axis], size, *dims[axis + 1 :])]


def _matmul_block(call: Call) -> list[Dims]:
    a, b = call.dims(0), call.dims(1)
    return [(*broadcast_dims(a[:-2], b[:-2]), a[-2], b[-2])]


_ALIKE: Final = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "BitwiseNot", "Cast", "CastLike"),
    *("Ceil", "Celu", "Clip", "Cos", "Cosh", "CumSum", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor"),
    *("Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization"),
    *("IsInf", "IsNaN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Mish", "Neg", "Not", "QuantizeLinear"),
    *("RMSNormalization", "Reciprocal", "Relu", "Round", "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign"),
    *("Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu"),
)
_BROADCAST: Final = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
)
_REDUCE: Final = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)

DIMS: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_ALIKE, _alike),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_REDUCE, _reduce),
    "ArgMax": _arg,
    "ArgMin": _arg,
    "AveragePool": _pool,
    "Concat": _concat,
    "ConstantOfShape": lambda call: [call.numbers(0)],
    "Conv": _conv,
    DEQUANTIZE: _dequantize_block,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _like_second,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LayerNormalization": _normalized,
    "MatMul": _matmul,
    MATMUL: _matmul_block,
    "MaxPool": _pool,
    "NonZero": _counted,
    "OneHot": _one_hot,
    "Pad": _pad,
    QUANTIZE: _quantize_block,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "SimplifiedLayerNormalization": _normalized,
    "Size": lambda call: [()],
    "SkipLayerNormalization": _skip_normalized,
    "SkipSimplifiedLayerNormalization": _skip_normalized,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By operator, of ONNX's own domain, onnxruntime's and this project's."""
