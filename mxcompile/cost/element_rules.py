"""What is in short vectors and scalars of integers: how graphs compute the shapes that they reshape and expand to."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import sympy

from mxcompile.cost.quantities import (
    ARITHMETIC,
    COMPARISONS,
    Quantity,
    add,
    choose,
    is_same,
    multiply,
    product,
    subtract,
    tidy,
    total,
)
from mxcompile.cost.tensors import Call, Dims, Elements, UnknownError, from_front

LONGEST: Final = 64
"""Elements of a vector that is followed; shapes, axes and bounds of slices are shorter."""

Rule = Callable[[Call, Dims], Elements]


def _count(dims: Dims) -> int:
    size = product(dims)
    if not isinstance(size, int) or size > LONGEST:
        raise UnknownError("too many elements to follow")
    return size


def _operands(call: Call, dims: Dims) -> list[Elements]:
    """The elements of each operand of an operator that broadcasts vectors and scalars."""
    count = _count(dims)
    each = [call.elements(index) for index in range(len(call.inputs))]
    return [elements if len(elements) == count else elements * count for elements in each]


def _arithmetic(call: Call, dims: Dims) -> Elements:
    combine = ARITHMETIC[call.op_type]
    first, *others = _operands(call, dims)
    for other in others:
        first = tuple(
            None if a is None or b is None or (b == 0 and call.op_type in ("Div", "Mod")) else combine(a, b)
            for a, b in zip(first, other, strict=True)
        )
    return first


def _compare(call: Call, dims: Dims) -> Elements:
    def compared(a: Quantity | None, b: Quantity | None) -> Quantity | None:
        if a is None or b is None:
            return None
        if isinstance(a, int) and isinstance(b, int):
            return int(COMPARISONS[call.op_type](a, b))
        if is_same(a, b):
            return int(COMPARISONS[call.op_type](0, 0))
        difference = subtract(a, b)
        # Nothing that is the size of something equals -1, which stands for an unknown dimension.
        apart = (a in call.sizes and is_below(b)) or (b in call.sizes and is_below(a))
        if call.op_type == "Equal" and (apart or sympy.sympify(difference).is_nonzero):
            return 0
        sign = 1 if sympy.sympify(difference).is_positive else -1 if sympy.sympify(difference).is_negative else 0
        return int(COMPARISONS[call.op_type](sign, 0)) if sign else None

    return tuple(compared(a, b) for a, b in zip(*_operands(call, dims), strict=True))


def is_below(value: Quantity) -> bool:
    """Whether a quantity is known to be negative."""
    return value < 0 if isinstance(value, int) else bool(value.is_negative)


def _where(call: Call, dims: Dims) -> Elements:
    def chosen(condition: Quantity | None, then: Quantity | None, otherwise: Quantity | None) -> Quantity | None:
        if isinstance(condition, int):
            return then if condition else otherwise
        if then is None or otherwise is None:
            return None
        if condition is not None:
            return choose(sympy.Ne(condition, 0), then, otherwise)
        return then if is_same(then, otherwise) else None

    return tuple(chosen(*column) for column in zip(*_operands(call, dims), strict=True))


def _logic(combine: Callable[..., bool]) -> Rule:
    def rule(call: Call, dims: Dims) -> Elements:
        columns = zip(*_operands(call, dims), strict=True)
        return tuple(
            int(combine(*column)) if all(isinstance(each, int) for each in column) else None for column in columns
        )

    return rule


def _same(call: Call, dims: Dims) -> Elements:
    return call.elements(0)


def _shape(call: Call, dims: Dims) -> Elements:
    shape = call.dims(0)
    return shape[call.value("start", 0) : call.value("end", len(shape))]


def _concat(call: Call, dims: Dims) -> Elements:
    joined: Elements = ()
    for index in range(len(call.inputs)):
        shape = call.dims(index)
        known = call.input(index).elements
        if known is None and not isinstance(shape[0], int):
            raise UnknownError("a vector of unknown length")
        joined += known if known is not None else (None,) * _count(shape)
    return joined


def _gather(call: Call, dims: Dims) -> Elements:
    source, positions = call.elements(0), call.elements(1)
    inside = range(-len(source), len(source))
    return tuple(source[each] if isinstance(each, int) and each in inside else None for each in positions)


def _slice(call: Call, dims: Dims) -> Elements:
    source = call.elements(0)
    starts = call.value("starts", None) or call.ints(1)
    ends = call.value("ends", None) or call.numbers(2)
    (step,) = call.axes(4, "steps") or (1,)
    (end,) = ends
    stop = from_front(end, len(source)) if not isinstance(end, int) else end
    if not isinstance(stop, int):
        raise UnknownError("where a vector is cut is known at run time only")
    return source[starts[0] : None if step < 0 and stop < -len(source) else stop : step]


def _fill(call: Call, dims: Dims) -> Elements:
    value = call.attributes.get("value")
    array = value.as_tensor().numpy() if value is not None else np.zeros(1)
    if not np.issubdtype(array.dtype, np.integer) and array.dtype != np.bool_:
        raise UnknownError("no integers")
    return (int(array.reshape(-1)[0]),) * _count(dims)


def _range(call: Call, dims: Dims) -> Elements:
    (start,), _, (step,) = (call.numbers(index) for index in range(3))
    return tuple(add(start, multiply(step, index)) for index in range(_count(dims)))


def _repeat(call: Call, dims: Dims) -> Elements:
    known, count = call.elements(0), _count(dims)
    if len(known) not in (1, count):
        raise UnknownError("repeated vectors")
    return known if len(known) == count else known * count


def _reduce(combine: Callable[[Elements], Quantity]) -> Rule:
    def rule(call: Call, dims: Dims) -> Elements:
        if _count(dims) != 1:
            raise UnknownError("no scalar")
        return (combine(call.numbers(0)),)

    return rule


def _unary(function: Callable[[Any], Any]) -> Rule:
    def rule(call: Call, dims: Dims) -> Elements:
        return tuple(None if each is None else tidy(function(each)) for each in call.elements(0))

    return rule


def _split(call: Call, dims: Dims) -> Elements:
    raise UnknownError("a vector in pieces")


ELEMENTS: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(COMPARISONS, _compare),
    **dict.fromkeys(("Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"), _same),
    **dict.fromkeys(("Ceil", "Floor", "Round"), _same),
    "Abs": _unary(abs),
    "And": _logic(lambda a, b: bool(a and b)),
    "Concat": _concat,
    "ConstantOfShape": _fill,
    "Expand": _repeat,
    "Gather": _gather,
    "Neg": _unary(lambda each: -each),
    "Not": _logic(lambda a: not a),
    "Or": _logic(lambda a, b: bool(a or b)),
    "Range": _range,
    "ReduceProd": _reduce(lambda numbers: product(each for each in numbers if each is not None)),
    "ReduceSum": _reduce(lambda numbers: total(each for each in numbers if each is not None)),
    "Shape": _shape,
    "Size": lambda call, dims: (call.input(0).size,),
    "Slice": _slice,
    "Tile": _repeat,
    "Where": _where,
}
"""By operator. All results are integers or booleans; a vector of floating point is not followed."""
