"""Blocks of elements with one scale, or with one for the positive and one for the negative elements."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from mxcompile.formats.base import BlockFormat, Float32, Uint8, split_finite
from mxcompile.formats.elements import Rounding
from mxcompile.formats.scales import Scale

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter


@dataclasses.dataclass(frozen=True)
class BlockScaled(BlockFormat):
    """Elements that share one scale byte a block, or two.

    1. The extremes of a block: its absolute maximum; or, asymmetric, ``max(0, max(x))`` and ``max(0, max(-x))``.
    2. Each becomes a scale byte by the rules of `scale`.
    3. Asymmetric: an element above zero uses the first scale, every other one the second.
    4. ``x / scale`` in float32 (division, never a product with the reciprocal) is rounded to the nearest element,
       saturating. A scale of 0 gives 0.
    5. Decoding multiplies element and scale: exact in float32, up to scales that round up so near its end that the
       product is Inf.

    Edge cases: ``-0`` and every element that rounds to zero have code 0. A ragged last block is simply shorter. NaN
    or Inf anywhere makes the whole block NaN (all scales `Scale.nan`, codes 0; source: this project).

    Attributes:
        scale: The kind of scale.
        asymmetric: Whether positive and negative elements have a scale each.
        rounding: Of elements at ties.
        summary: A line for the table of formats.
    """

    scale: Scale
    asymmetric: bool
    rounding: Rounding
    summary: str

    @property
    def scale_type(self) -> str:
        """The scale byte's type."""
        return self.scale.name

    @property
    def scales_per_block(self) -> int:
        """Two if asymmetric: positive, negative."""
        return 2 if self.asymmetric else 1

    @property
    def description(self) -> str:
        """See `summary`."""
        return self.summary

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """See `BlockFormat.encode_blocks`."""
        finite, x = split_finite(blocks)
        zero = np.float32(0)
        sides = [np.maximum(x, zero), np.maximum(-x, zero)] if self.asymmetric else [np.abs(x)]
        scales = self.scale.encode(np.stack([side.max(axis=-1) for side in sides], axis=-1))
        codes = self.element.encode_signed(self.block_units(x, scales), self.rounding)
        return codes, np.where(finite, scales, np.uint8(self.scale.nan))

    @property
    def levels(self) -> Float32:
        """The element's values."""
        return self.element.levels

    def block_units(self, blocks: Float32, scales: Uint8) -> Float32:
        """See `BlockFormat.block_units`; asymmetric, the scale is that of the element's own side."""
        values = self.scale.decode_table[scales]
        scale = np.where(blocks > 0, values[..., :1], values[..., -1:])
        divisor = np.where(scale == 0, np.float32(np.inf), scale)  # a scale of 0 gives 0
        return np.divide(blocks, divisor, dtype=np.float32)

    def block_code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.block_code_units`."""
        return self.element.decode_table[codes]

    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.decode_blocks`; the sign bit selects the scale."""
        values = self.scale.decode_table[scales]
        scale = np.where(codes >= self.element.sign_bit, values[..., -1:], values[..., :1])
        with np.errstate(invalid="ignore", over="ignore"):  # foreign bytes: 0 * Inf, 6 * 2**127, as in IEEE 754
            return self.element.decode_table[codes] * scale

    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_blocks`."""
        finite, x = op.split_finite(blocks)
        zero = op.float32(0)
        sides = [op.Max(x, zero), op.Max(op.Neg(x), zero)] if self.asymmetric else [op.Abs(x)]
        extremes = [op.ReduceMax(side, op.LAST, keepdims=1) for side in sides]
        scales = self.scale.emit_encode(op, op.Concat(*extremes, axis=-1))
        scale = self._emit_scale(op, scales, op.Greater(x, zero))
        divisor = op.Where(op.Equal(scale, zero), op.float32(np.inf), scale)
        codes = self.element.emit_encode_signed(op, op.Div(x, divisor), self.rounding)
        return codes, op.Where(finite, scales, op.float32(self.scale.nan))

    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_blocks`."""
        positive = op.Less(codes, op.constant(np.array(self.element.sign_bit, np.int32)))
        scale = self._emit_scale(op, scales, positive)
        return op.op("Mul", [op.lookup(self.element.decode_table, codes), scale])

    def _emit_scale(self, op: "GraphWriter", scales: "ir.Value", positive: "ir.Value") -> "ir.Value":
        """The value of each element's scale."""
        values = op.lookup(self.scale.decode_table, scales)
        if not self.asymmetric:
            return values
        first, second = op.op_multi_out("Split", [values], {"axis": -1, "num_outputs": 2}, num_outputs=2)
        return op.op("Where", [positive, first, second])
