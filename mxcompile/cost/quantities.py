"""Whole numbers that may depend on dimensions of the model: arithmetic, reading of names, evaluation.

A quantity is an int, or a SymPy expression in symbols that stand for whole numbers of at least 0 (a cache may be
empty, so none is known to be positive). Everything is exact; remainders are written as ``a - b * floor(a / b)``, so
that SymPy sees that the blocks of a row and its rest make the row.
"""

import ast
import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Final, TypeAlias

import sympy

from mxcompile.errors import CostModelError

Quantity: TypeAlias = int | sympy.Expr
"""An exact whole number, perhaps in terms of dimensions."""


@functools.cache
def symbol(name: str) -> sympy.Symbol:
    """The dimension of that name."""
    return sympy.Symbol(name, integer=True, nonnegative=True)


def tidy(value: Any) -> Quantity:
    """An int where the value is one."""
    if isinstance(value, int):
        return value
    return int(value) if value.is_Integer else value


@functools.cache
def add(a: Quantity, b: Quantity) -> Quantity:
    """``a + b``."""
    return tidy(a + b)


@functools.cache
def subtract(a: Quantity, b: Quantity) -> Quantity:
    """``a - b``."""
    return tidy(a - b)


@functools.cache
def multiply(a: Quantity, b: Quantity) -> Quantity:
    """``a * b``."""
    return tidy(a * b)


@functools.cache
def floor_divide(a: Quantity, b: Quantity) -> Quantity:
    """``a // b``."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    return tidy(sympy.floor(a / sympy.sympify(b)))


def ceil_divide(a: Quantity, b: Quantity) -> Quantity:
    """``a / b``, rounded up."""
    return floor_divide(add(a, subtract(b, 1)), b)


def remainder(a: Quantity, b: Quantity) -> Quantity:
    """``a % b``."""
    return subtract(a, multiply(b, floor_divide(a, b)))


@functools.cache
def divide_exactly(a: Quantity, b: Quantity) -> Quantity:
    """``a / b`` where that is known to be whole."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    quotient = a / sympy.sympify(b)
    return tidy(quotient if sympy.denom(quotient).is_number else sympy.cancel(quotient))


def total(values: Iterable[Quantity]) -> Quantity:
    """The sum."""
    return functools.reduce(add, values, 0)


def product(values: Iterable[Quantity]) -> Quantity:
    """The product."""
    return functools.reduce(multiply, values, 1)


@functools.cache
def is_same(a: Quantity, b: Quantity) -> bool:
    """Whether the two are known to be equal."""
    return a == b or (not (isinstance(a, int) and isinstance(b, int)) and bool(sympy.expand(a - b) == 0))


@functools.cache
def broadcast(a: Quantity, b: Quantity) -> Quantity:
    """The dimension that two broadcast dimensions make: equal ones, or one of them 1."""
    if is_same(a, b) or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int):
        return a
    return b if isinstance(b, int) else choose(sympy.Eq(a, 1), b, a)


def choose(condition: Any, then: Quantity, otherwise: Quantity) -> Quantity:
    """``then`` where the condition, a SymPy relation, holds, else ``otherwise``."""
    if is_same(then, otherwise):
        return then
    return tidy(sympy.Piecewise((sympy.sympify(then), condition), (sympy.sympify(otherwise), True)))


def names(value: Quantity) -> set[str]:
    """The dimensions that the quantity depends on."""
    return set() if isinstance(value, int) else {each.name for each in value.free_symbols}


def evaluate(value: Quantity, dims: Mapping[sympy.Symbol, sympy.Integer]) -> int:
    """The number for given dimensions.

    Raises:
        CostModelError: A dimension has no value, or the values contradict the model.
    """
    if isinstance(value, int):
        return value
    result = value.xreplace(dims)
    if result.is_Integer:
        return int(result)
    missing = sorted(each.name for each in result.free_symbols)
    if missing:
        raise CostModelError(
            f"dimension {missing[0]} has no value; give it with --dim '{missing[0]}=NUMBER'"
            + (f" (also without one: {', '.join(missing[1:])})" if missing[1:] else "")
        )
    given = ", ".join(f"{key.name} = {number}" for key, number in dims.items())
    raise CostModelError(f"{value} is {result}, no whole number, for {given}; the model cannot run with these sizes")


_OPERATORS: Final[Mapping[type, Callable[[Quantity, Quantity], Quantity]]] = {
    ast.Add: add,
    ast.Sub: subtract,
    ast.Mult: multiply,
    ast.FloorDiv: floor_divide,
    ast.Div: floor_divide,
    ast.Mod: remainder,
}


def parse(text: str, known: Set[str]) -> Quantity:
    """What a dimension is called in a model: a name, or a sum, product, quotient or remainder of known names.

    Exporters call a dimension ``past_sequence_length + sequence_length``; what is no arithmetic of known names is a
    name of its own.

    Args:
        text: The dimension's name.
        known: Names that stand alone somewhere in the model.
    """
    if text in known:
        return symbol(text)
    try:
        return _arithmetic(ast.parse(text, mode="eval").body, known)
    except (SyntaxError, ValueError):
        return symbol(text)


def _arithmetic(node: ast.expr, known: Set[str]) -> Quantity:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name) and node.id in known:
        return symbol(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_arithmetic(node.left, known), _arithmetic(node.right, known))
    raise ValueError(f"{ast.unparse(node)} is no arithmetic of dimensions")


def is_negative(value: Quantity) -> bool:
    """Whether an index is known to count from the end: it is below 0, or 0 only where nothing is there."""
    return value < 0 if isinstance(value, int) else bool(value.is_nonpositive)


def smaller(a: Quantity, b: Quantity) -> Quantity:
    """The smaller of the two."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tidy(sympy.Min(a, b))


def larger(a: Quantity, b: Quantity) -> Quantity:
    """The larger of the two."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tidy(sympy.Max(a, b))


ARITHMETIC: Final[Mapping[str, Callable[[Quantity, Quantity], Quantity]]] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": floor_divide,
    "Mod": remainder,
    "Min": smaller,
    "Max": larger,
}
"""ONNX's operators on whole numbers of which no negative ones are divided."""

COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "Equal": operator.eq,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
}
"""ONNX's comparisons."""
