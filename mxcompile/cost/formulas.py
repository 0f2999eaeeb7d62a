"""How many scalar operations a node asks of the vector unit, beside the array of multipliers.

One arithmetic operation, comparison, selection, conversion or elementary function (exp, erf, sin, ...) on one element
is one operation; what a function costs more than an addition is the engine's business. An operator that stands for
several others counts as these do, so that a norm costs the same however an exporter writes it. With ``e`` elements of
the result, ``i`` of the first input, ``r`` rows, one for each result of a reduction:

==========================================================  ==========================================================
operators                                                   operations
==========================================================  ==========================================================
unary and binary arithmetic, functions, comparisons, Where  e; of n operands e (n - 1)
Clip                                                        e for each bound
Gelu                                                        5 e; with ``approximate = tanh`` 8 e
Swish, Mish, HardSwish, HardSigmoid                         2 e, 3 e, 5 e, 4 e
Softmax                                                     5 i - 2 r: maximum, subtract, exp, sum, divide
LogSoftmax                                                  5 i - r
LayerNormalization                                          7 i + 2 r: mean, subtract, square, mean, divide, scale,
                                                            shift; add epsilon, root. 6 i + 2 r without shift
RMS norms                                                   4 i + 3 r: square, mean, scale twice; epsilon, root, inverse
Skip...Normalization                                        i more
ReduceSum, ReduceMax, ReduceMin, ReduceProd                 i - r
ReduceMean                                                  i: i - r additions, r divisions
ReduceL1, ReduceSumSquare; ReduceL2; ReduceLogSumExp        2 i - r; 2 i; 2 i
ArgMax, ArgMin; TopK; CumSum                                i - r; k i; i - r
NonZero, Trilu, OneHot, Range                               i; e; e; e
AveragePool, MaxPool; global ones                           e times elements of the window; i
QuantizeLinear, DequantizeLinear                            4 e, 2 e
DequantizeBlock                                             e; 0 where only products read it: they decode it themselves
bias of MatMulBlock, Gemm, Conv                             e; Gemm's alpha and beta, where not 1, e each
moves, views, Gather, Scatter, products, QuantizeBlock      0
==========================================================  ==========================================================

Source: this project, by the operators' definitions in the ONNX standard.
"""

from collections.abc import Callable, Mapping
from typing import Final

from mxcompile.cost.quantities import Quantity, add, multiply, product, subtract
from mxcompile.cost.shapes import Visit
from mxcompile.ops import DEQUANTIZE, MATMUL, QUANTIZE

Formula = Callable[[Visit], Quantity]


def _results(visit: Visit) -> Quantity:
    return visit.outputs[0].size


def _read(visit: Visit) -> Quantity:
    return visit.call.input(0).size


def _times(factor: int) -> Formula:
    return lambda visit: multiply(factor, _results(visit))


def _none(visit: Visit) -> Quantity:
    return 0


def _binary(visit: Visit) -> Quantity:
    return multiply(len(visit.call.inputs) - 1, _results(visit))


def _cast(visit: Visit) -> Quantity:
    return 0 if visit.call.input(0).dtype is visit.outputs[0].dtype else _results(visit)


def _clip(visit: Visit) -> Quantity:
    bounds = sum(visit.call.has(index) for index in (1, 2)) + sum(
        key in visit.call.attributes for key in ("min", "max")
    )
    return multiply(bounds, _results(visit))


def _gelu(visit: Visit) -> Quantity:
    return multiply(8 if visit.call.value("approximate", "none") == "tanh" else 5, _results(visit))


def _rows(visit: Visit, axis: int) -> Quantity:
    """How many rows a normalization along one axis has."""
    dims = visit.call.dims(0)
    axis = visit.call.axis(axis, len(dims))
    return product((*dims[:axis], *dims[axis + 1 :]))


def _softmax(lost: int) -> Formula:
    return lambda visit: subtract(multiply(5, _read(visit)), multiply(lost, _rows(visit, -1)))


def _trailing_rows(visit: Visit) -> Quantity:
    """How many rows a normalization over all axes from one on has."""
    dims = visit.call.dims(0)
    return product(dims[: visit.call.axis(-1, len(dims))])


def _layer_norm(visit: Visit) -> Quantity:
    shifts = visit.call.has(2)
    return add(multiply(7 if shifts else 6, _read(visit)), multiply(2, _trailing_rows(visit)))


def _rms_norm(visit: Visit) -> Quantity:
    return add(multiply(4, _read(visit)), multiply(3, _trailing_rows(visit)))


def _skip_layer_norm(visit: Visit) -> Quantity:
    terms = 7 + sum(visit.call.has(index) for index in (3, 4))
    return add(multiply(terms, _read(visit)), multiply(2, _trailing_rows(visit)))


def _skip_rms_norm(visit: Visit) -> Quantity:
    terms = 5 + visit.call.has(3)
    return add(multiply(terms, _read(visit)), multiply(3, _trailing_rows(visit)))


def _fold(factor: int, less: int) -> Formula:
    """``factor`` operations an element that is read, ``less`` of which the first element of each row saves."""
    return lambda visit: subtract(multiply(factor, _read(visit)), multiply(less, _results(visit)))


def _cumulative(visit: Visit) -> Quantity:
    axis = visit.call.ints(1)[0]
    dims = visit.call.dims(0)
    axis %= len(dims)
    return subtract(_read(visit), product((*dims[:axis], *dims[axis + 1 :])))


def _top_k(visit: Visit) -> Quantity:
    dims, kept = visit.call.dims(0), visit.outputs[0].dims or ()
    axis = visit.call.axis(-1, len(dims))
    return multiply(kept[axis], product(dims))


def _pool(visit: Visit) -> Quantity:
    return multiply(product(visit.call.value("kernel_shape", ())), _results(visit))


def _bias(visit: Visit) -> Quantity:
    """A product's bias; the third input, of MatMulBlock the fourth."""
    has_bias = visit.call.has(3 if visit.call.op_type == MATMUL else 2)
    factors = sum(visit.call.value(name, 1.0) != 1.0 for name in ("alpha", "beta")[: 1 + has_bias])
    return multiply(has_bias + factors, _results(visit))


def _dequantize(visit: Visit) -> Quantity:
    return _results(visit) if visit.outputs[0].decoded is None else 0


_ONE: Final = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Ceil", "Cos", "Cosh", "Erf", "Exp"),
    *("Floor", "IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin"),
    *("Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "Trilu", "Where", "OneHot", "Range"),
)
_BINARY: Final = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Xor"),
)
_FREE: Final = (
    *("Concat", "ConstantOfShape", "Dropout", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *("Identity", "Pad", "Reshape", "ScatterElements", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze", "MatMul", "Einsum", QUANTIZE),
)

VECTOR_OPS: Final[Mapping[str, Formula]] = {
    **dict.fromkeys(_ONE, _times(1)),
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_FREE, _none),
    **dict.fromkeys(("Conv", "Gemm", MATMUL), _bias),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "ArgMax", "ArgMin"), _fold(1, 1)),
    **dict.fromkeys(("ReduceL1", "ReduceSumSquare"), _fold(2, 1)),
    **dict.fromkeys(("ReduceL2", "ReduceLogSumExp"), _fold(2, 0)),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization"), _rms_norm),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "NonZero", "ReduceMean"), _fold(1, 0)),
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "CumSum": _cumulative,
    DEQUANTIZE: _dequantize,
    "DequantizeLinear": _times(2),
    "Gelu": _gelu,
    "HardSigmoid": _times(4),
    "HardSwish": _times(5),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _times(2),
    "LogSoftmax": _softmax(1),
    "Mish": _times(3),
    "QuantizeLinear": _times(4),
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
    "Softmax": _softmax(2),
    "Swish": _times(2),
    "TopK": _top_k,
}
"""By operator; one that is not here is not covered."""
