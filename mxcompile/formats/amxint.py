"""AMXINT4: the AMXFP4 paper's integer comparator, integers of 16 levels with a float32 scale and shift a block.

Source: [AMX] section 4 and the authors' emulator (``int4_asym``), with which `AMXINT4` agrees bit for bit.
"""

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from mxcompile.formats.base import (
    BlockFormat,
    Float32,
    Uint8,
    emit_blocks,
    emit_rows,
    from_blocks,
    split_finite,
    to_blocks,
)
from mxcompile.formats.elements import Element

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

_LEVELS = 15
_NAN_BYTES: Final = np.array([0x00, 0x00, 0xC0, 0x7F, 0, 0, 0, 0], np.uint8)


@dataclasses.dataclass(frozen=True)
class AMXINT4(BlockFormat):
    """Integers around a shift, one scale and shift a block.

    With lo and hi the extremes of a block, rha rounding half away from zero, and float32 after each operation:

    1. ``s = (hi - lo) / 15`` (``hi / 15 - lo / 15`` where that overflows), a zero becoming 1;
       ``shift = -rha(lo / s) - 8``.
    2. ``q = rha(x / s + shift)``; it is within -9..8 except for blocks that are far from 0 compared with their range,
       where float32 has no bits left and it is clamped to -127..127.
    3. Decoding: ``(q - shift) * s``.

    In rows whose length is no multiple of the block size, lo and hi of every block include 0: the emulator has another
    path for them. A block whose range is symmetric has 17 levels by these rules, such as -8 to 8: both ends are ties.
    So the codes take a byte here, two's complement; as hardware it would be a 4-bit format.

    Scales are ``[..., blocks, 8]``: s and shift as float32, little-endian. A ragged last block is simply shorter. NaN
    or Inf anywhere makes the whole block NaN (s is NaN, shift and codes 0; source: this project).
    """

    @property
    def grows(self) -> bool:
        """No: every block of a row depends on whether the row's last one is complete."""
        return False

    @property
    def scale_type(self) -> str:
        """Scale and shift."""
        return "float32 + shift"

    @property
    def scales_per_block(self) -> int:
        """Four bytes each."""
        return 8

    @property
    def description(self) -> str:
        """A line for the table of formats."""
        return "16 levels around a shift, stored as bytes (comparator)"

    def encode_rows(self, rows: Float32) -> tuple[Uint8, Uint8]:
        """See `Format.encode_rows`."""
        ragged = rows.shape[-1] % self.block_size != 0
        codes, scales = self._encode(to_blocks(rows, self.block_size), with_zero=ragged)
        return from_blocks(codes, rows.shape[-1]), scales

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """See `BlockFormat.encode_blocks`, for blocks of rows that have whole ones only."""
        return self._encode(blocks, with_zero=False)

    def _encode(self, blocks: Float32, *, with_zero: bool) -> tuple[Uint8, Uint8]:
        finite, x = split_finite(blocks)
        lo, hi = x.min(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)
        if with_zero:
            lo, hi = np.minimum(lo, np.float32(0)), np.maximum(hi, np.float32(0))
        levels = np.float32(_LEVELS)
        with np.errstate(over="ignore"):
            span = hi - lo
        scale = np.where(np.isfinite(span), span / levels, hi / levels - lo / levels)
        scale = np.where(scale == 0, np.float32(1), scale)
        shift = -_half_away(lo / scale) - np.float32(8)
        with np.errstate(invalid="ignore"):  # of shifts so large that the codes have no bits left
            codes = np.clip(_half_away(x / scale + shift), -127, 127).astype(np.int8).view(np.uint8)
        codes = np.where(finite, codes, np.uint8(0))
        pair = np.ascontiguousarray(np.concatenate([scale, shift], axis=-1), "<f4").view(np.uint8)
        return codes, np.where(finite, pair, _NAN_BYTES)

    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.decode_blocks`."""
        with np.errstate(invalid="ignore", over="ignore"):  # foreign scales
            return self.block_code_units(codes, scales) * _pair(scales)[..., :1]

    @property
    def levels(self) -> Float32:
        """Whole numbers from -15 to 15, of which a block around 0 has 16 neighbours; other blocks lie beyond."""
        return np.arange(-_LEVELS, _LEVELS + 1, dtype=np.float32)

    def block_units(self, blocks: Float32, scales: Uint8) -> Float32:
        """See `BlockFormat.block_units`: ``x / s``, without the shift, so that 0 is 0 whatever the block."""
        return blocks / _pair(scales)[..., :1]

    def block_code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.block_code_units`: ``q - shift``."""
        with np.errstate(invalid="ignore", over="ignore"):  # foreign scales
            return self.element.decode_table[codes] - _pair(scales)[..., 1:]

    def emit_encode_rows(self, op: "GraphWriter", rows: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_rows`."""
        rest = op.Mod(op.Shape(rows, start=2), op.vector([self.block_size]))
        codes, scales = self._emit_encode(op, emit_blocks(op, rows, self.block_size), op.Cast(rest, to=9))
        return emit_rows(op, codes), scales

    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_blocks`."""
        return self._emit_encode(op, blocks, op.constant(np.array(False)))

    def _emit_encode(
        self, op: "GraphWriter", blocks: "ir.Value", with_zero: "ir.Value"
    ) -> tuple["ir.Value", "ir.Value"]:
        finite, x = op.split_finite(blocks)
        zero = op.float32(0)
        lo, hi = op.ReduceMin(x, op.LAST, keepdims=1), op.ReduceMax(x, op.LAST, keepdims=1)
        lo, hi = op.Where(with_zero, op.Min(lo, zero), lo), op.Where(with_zero, op.Max(hi, zero), hi)
        levels = op.float32(_LEVELS)
        span, parts = op.Sub(hi, lo), op.Sub(op.Div(hi, levels), op.Div(lo, levels))
        scale = op.Where(op.Equal(span, op.float32(np.inf)), parts, op.Div(span, levels))
        scale = op.Where(op.Equal(scale, zero), op.float32(1), scale)
        shift = op.Sub(op.Neg(_emit_half_away(op, op.Div(lo, scale))), op.float32(8))
        q = _emit_half_away(op, op.Add(op.Div(x, scale), shift))
        q = op.Max(op.Min(q, op.float32(127)), op.float32(-127))
        codes = op.Where(op.Less(q, zero), op.Add(q, op.float32(256)), q)
        pair = op.Concat(op.float_bytes(scale), op.float_bytes(shift), axis=-1)
        return op.Where(finite, codes, zero), op.Where(finite, pair, op.constant(_NAN_BYTES.astype(np.float32)))

    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_blocks`."""
        scale, shift = op.op_multi_out("Split", [scales], {"axis": -1, "num_outputs": 2}, num_outputs=2)
        number = op.lookup(self.element.decode_table, codes)
        return op.op("Mul", [op.Sub(number, op.bytes_float(shift)), op.bytes_float(scale)])


def _pair(scales: Uint8) -> Float32:
    """Scale and shift, float32 ``[..., 2]``."""
    return np.ascontiguousarray(scales).view("<f4").astype(np.float32)


def _half_away(x: Float32) -> npt.NDArray[np.float32]:
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x).astype(np.float32)


def _emit_half_away(op: "GraphWriter", x: "ir.Value") -> "ir.Value":
    magnitude = op.Abs(x)
    whole = op.Floor(magnitude)
    up = op.Cast(op.GreaterOrEqual(op.Sub(magnitude, whole), op.float32(0.5)), to=1)
    return op.op("Mul", [op.Sign(x), op.Add(whole, up)])


AMXINT4_FORMAT: Final = AMXINT4("amxint4", Element("INT", 8, tuple(map(float, range(128))), twos_complement=True))
"""See `AMXINT4`."""
