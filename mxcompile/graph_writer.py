"""Writing ONNX operators from Python, one call an operator: what the bodies of the custom ops are written with."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

_FEW = 16
"""Up to so many thresholds are compared one after the other."""


class GraphWriter(ir.tape.Tape):
    """Writes operators by calling them: ``op.Add(x, y)``; and what the formats' bodies need beside them."""

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        """A function that writes one operator; ``_outputs=n`` asks for several outputs, as a sequence."""

        def write(*inputs: ir.Value, _outputs: int = 1, **attributes: Any) -> ir.Value | Sequence[ir.Value]:
            if _outputs == 1:
                return self.op(op_type, inputs, attributes)
            return self.op_multi_out(op_type, inputs, attributes, num_outputs=_outputs)

        return write

    @functools.cached_property
    def LAST(self) -> ir.Value:  # noqa: N802 - reads as the constant that it is
        """The axes ``[-1]``."""
        return self.vector([-1])

    def constant(self, array: npt.NDArray[Any]) -> ir.Value:
        """A constant tensor of the array's dtype and shape."""
        return self.op("Constant", [], {"value": ir.tensor(array)})

    def float32(self, value: float) -> ir.Value:
        """A float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def vector(self, values: Sequence[int]) -> ir.Value:
        """An int64 constant ``[len(values)]``: axes, shapes, slice bounds."""
        return self.constant(np.array(values, np.int64))

    def int_attribute(self, name: str) -> ir.Value:
        """The value of an integer attribute of the function, int64 ``[1]``."""
        scalar = self.op("Constant", [], {"value_int": ir.RefAttr("value_int", name, ir.AttributeType.INT)})
        return self.op("Reshape", [scalar, self.vector([1])])

    def to(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``x`` cast to another type."""
        return self.op("Cast", [x], {"to": dtype.value})

    def lookup(self, table: npt.NDArray[np.float32], codes: ir.Value) -> ir.Value:
        """``table[codes]``: float32 of the shape of ``codes``, which may be of any numeric type."""
        return self.op("Gather", [self.constant(table), self.to(codes, ir.DataType.INT32)])

    def count(self, x: ir.Value, thresholds: npt.NDArray[np.float32]) -> ir.Value:
        """How many of the thresholds do not exceed each element: float32 of x's shape.

        Rounding by counting is bit-exact with ties away from zero, where ``Floor(x + 0.5)`` is not. A few thresholds
        are compared one after the other, which is faster; many at once along a new axis.
        """
        if len(thresholds) < _FEW:
            reached = [self.GreaterOrEqual(x, threshold) for threshold in map(self.float32, thresholds)]
            return self.op("Sum", [self.to(each, ir.DataType.FLOAT) for each in reached])
        reached_all = self.GreaterOrEqual(self.Unsqueeze(x, self.LAST), self.constant(thresholds))
        return self.op("ReduceSum", [self.to(reached_all, ir.DataType.FLOAT), self.LAST], {"keepdims": 0})

    def split_finite(self, blocks: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Which blocks are finite throughout, bool ``[..., 1]``, and the blocks with the others set to zero.

        ``0 * x`` is 0 for finite x and NaN otherwise, so one sum finds both NaN and Inf.
        """
        zero = self.float32(0)
        finite = self.Equal(self.ReduceSum(self.Mul(blocks, zero), self.LAST, keepdims=1), zero)
        return finite, self.Where(finite, blocks, zero)

    def product(self, dims: ir.Value) -> ir.Value:
        """The product of a shape's dimensions, int64 ``[1]``; 1 of none."""
        dims = self.Concat(self.vector([1]), dims, axis=0)
        return self.op("ReduceProd", [dims, self.vector([0])], {"keepdims": 1})

    def branch(self, choices: Sequence[tuple[str, "Write"]], name: str) -> Sequence[ir.Value]:
        """The outputs of the choice that the function's string attribute ``name`` names.

        Each choice writes its operators into a branch of its own, and may use values of the enclosing graph. The
        last choice is also what an unlisted attribute value gets.
        """
        (value, write), *others = choices
        if not others:
            return write(self)
        reference = ir.RefAttr("value_string", name, ir.AttributeType.STRING)
        attribute = self.op("Constant", [], {"value_string": reference})
        condition = self.Equal(attribute, self.op("Constant", [], {"value_string": value}))
        then_branch = _subgraph(write)
        else_branch = _subgraph(lambda op: op.branch(others, name))
        return self.op_multi_out(
            "If",
            [condition],
            {"then_branch": then_branch, "else_branch": else_branch},
            num_outputs=len(then_branch.outputs),
        )


Write = Callable[[GraphWriter], Sequence[ir.Value]]
"""Writes operators and says which values are the results."""


def _subgraph(write: Write) -> ir.Graph:
    op = GraphWriter()
    outputs = write(op)
    return ir.Graph([], outputs, nodes=op.nodes, name="branch")
