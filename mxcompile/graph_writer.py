"""Writing ONNX operators from Python, one call an operator: what the bodies of the custom ops are written with."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mxcompile.formats.packing import code_group

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

    @functools.cached_property
    def _constants(self) -> dict[tuple[str, tuple[int, ...], bytes], ir.Value]:
        return {}

    def constant(self, array: npt.NDArray[Any]) -> ir.Value:
        """A constant tensor of the array's dtype and shape; the same one each time.

        onnxruntime's time to load a model grows with the square of its number of constants.
        """
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.op("Constant", [], {"value": ir.tensor(array)})
        return self._constants[key]

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

    def packed_size(self, size: ir.Value, bits: int) -> ir.Value:
        """Writes `mxcompile.formats.packing.packed_size`: int64 ``[1]`` to the same."""
        total = self.Add(self.Mul(size, self.vector([bits])), self.vector([7]))
        return self.op("Div", [total, self.vector([8])])

    def pack(self, codes: ir.Value, bits: int) -> ir.Value:
        """Writes `mxcompile.formats.packing.pack_codes`: float32 ``[a, b, k]`` -> uint8 ``[a, b, bytes]``."""
        count, size = code_group(bits)
        words = self._powers(self._groups(codes, count), 2**bits, count)
        word = self.to(words, ir.DataType.UINT32)
        return self.to(self._fields(word, 8, size), ir.DataType.UINT8)

    def unpack(self, packed: ir.Value, bits: int) -> ir.Value:
        """Writes `mxcompile.formats.packing.unpack_codes`: uint8 ``[a, b, bytes]`` -> int32 ``[a, b, k]``."""
        count, size = code_group(bits)
        words = self._powers(self._groups(self.to(packed, ir.DataType.FLOAT), size), 256, size)
        return self.to(self._fields(self.to(words, ir.DataType.UINT32), bits, count), ir.DataType.INT32)

    def _groups(self, x: ir.Value, count: int) -> ir.Value:
        """``[a, b, n]`` -> ``[a, b, groups, count]``, the last group padded with zeros."""
        size, step = self.Shape(x, start=2), self.vector([count])
        groups = self.Div(self.Add(size, self.vector([count - 1])), step)
        missing = self.Sub(self.Mul(groups, step), size)
        x = self.Pad(x, self.Concat(self.vector([0] * 5), missing, axis=0))
        return self.op("Reshape", [x, self.Concat(self.vector([0, 0, -1]), step, axis=0)])

    def _powers(self, x: ir.Value, base: int, count: int) -> ir.Value:
        """``sum(x[..., i] * base**i)``, below 2**24 and so exact in float32: ``[..., count]`` -> ``[..., 1]``."""
        parts = [x] if count == 1 else self.Split(x, axis=-1, num_outputs=count, _outputs=count)
        return self.op("Sum", [self.Mul(part, self.float32(base**i)) for i, part in enumerate(parts)])

    def _fields(self, word: ir.Value, bits: int, count: int) -> ir.Value:
        """The lowest ``count`` fields of a uint32 word, lowest first: ``[a, b, n, 1]`` -> ``[a, b, n * count]``."""
        mask = self.constant(np.array(2**bits - 1, np.uint32))
        shifts = [self.constant(np.array(bits * i, np.uint32)) for i in range(count)]
        fields = [self.BitwiseAnd(self.BitShift(word, shift, direction="RIGHT"), mask) for shift in shifts]
        return self.op("Reshape", [self.Concat(*fields, axis=-1), self.vector([0, 0, -1])])

    def float_bytes(self, x: ir.Value) -> ir.Value:
        """The four little-endian bytes of finite float32 ``[..., 1]``, as float32 ``[..., 4]``.

        The exponent field counts powers of two; scaled by it, the mantissa is a whole number.
        """
        fields = np.arange(256)
        normal = fields > 0
        up = np.where(normal, np.exp2(127.0 - fields), 2.0**100)
        more = np.where(normal, 2.0**23, 2.0**49)
        magnitude = self.Abs(x)
        field = self.count(magnitude, np.exp2(fields[1:255] - 127.0).astype(np.float32))
        whole = self.Mul(self.Mul(magnitude, self._table(up, field)), self._table(more, field))
        mantissa = self.Sub(whole, self._table(np.where(normal, 2.0**23, 0), field))
        sign = self.to(self.Less(x, self.float32(0)), ir.DataType.UINT32)
        parts = [(sign, 31), (self.to(field, ir.DataType.UINT32), 23)]
        word = self.to(mantissa, ir.DataType.UINT32)
        for part, shift in parts:
            moved = self.BitShift(part, self.constant(np.array(shift, np.uint32)), direction="LEFT")
            word = self.BitwiseOr(word, moved)
        shifts = self.constant(np.arange(0, 32, 8, dtype=np.uint32))
        low = self.BitwiseAnd(self.BitShift(word, shifts, direction="RIGHT"), self.constant(np.array(255, np.uint32)))
        return self.to(low, ir.DataType.FLOAT)

    def bytes_float(self, bytes_: ir.Value) -> ir.Value:
        """The float32 ``[..., 1]`` of four little-endian bytes, int32 ``[..., 4]``; the inverse of `float_bytes`."""
        b0, b1, b2, b3 = self.Split(self.to(bytes_, ir.DataType.FLOAT), axis=-1, num_outputs=4, _outputs=4)
        half = self.float32(128)
        negative, odd = self.GreaterOrEqual(b3, half), self.GreaterOrEqual(b2, half)
        zero, two = self.float32(0), self.float32(2)
        exponent = self.Mul(self.Sub(b3, self.Where(negative, half, zero)), two)
        field = self.Add(exponent, self.to(odd, ir.DataType.FLOAT))
        high = self.Mul(self.Sub(b2, self.Where(odd, half, zero)), self.float32(65536))
        mantissa = self.Add(high, self.Add(self.Mul(b1, self.float32(256)), b0))
        fields = np.arange(256)
        lead = self._table(np.where(fields > 0, 2.0**23, 0), field)
        powers = np.exp2(np.maximum(fields, 1) - 127.0)
        powers[255] = np.inf
        fraction = self.Mul(self.Add(mantissa, lead), self.float32(2.0**-23))
        value = self.Mul(fraction, self._table(powers, field))
        special = self.And(self.Equal(field, self.float32(255)), self.Greater(mantissa, zero))
        value = self.Where(special, self.float32(np.nan), value)
        return self.op("Where", [negative, self.Neg(value), value])

    def _table(self, table: npt.NDArray[np.float64], codes: ir.Value) -> ir.Value:
        return self.lookup(table.astype(np.float32), codes)

    def product(self, dims: ir.Value) -> ir.Value:
        """The product of a shape's dimensions, int64 ``[1]``; 1 of none."""
        dims = self.Concat(self.vector([1]), dims, axis=0)
        return self.op("ReduceProd", [dims, self.vector([0])], {"keepdims": 1})

    def branch(self, choices: Sequence[tuple[str, "Write"]], name: str) -> Sequence[ir.Value]:
        """The outputs of the choice that the function's string attribute ``name`` names.

        Each choice writes its operators into a branch of its own, and may use values of the enclosing graph. The
        last choice is also what an unlisted attribute value gets.

        The branches are nested as a balanced tree: onnxruntime 1.20 and 1.23 take twice as long to load a model for
        each level.
        """
        if len(choices) == 1:
            return choices[0][1](self)
        first, second = choices[: len(choices) // 2], choices[len(choices) // 2 :]
        reference = ir.RefAttr("value_string", name, ir.AttributeType.STRING)
        attribute = self.op("Constant", [], {"value_string": reference})
        named = [self.Equal(attribute, self.op("Constant", [], {"value_string": value})) for value, _ in first]
        condition = functools.reduce(self.Or, named)
        return self.choose(condition, lambda op: op.branch(first, name), lambda op: op.branch(second, name))

    def choose(self, condition: ir.Value, true: "Write", false: "Write") -> Sequence[ir.Value]:
        """The outputs of ``true`` or of ``false``, which may use values of the enclosing graph."""
        then_branch, else_branch = _subgraph(true), _subgraph(false)
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
