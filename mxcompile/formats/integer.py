"""Integers with a float32 scale and a zero point: INT8 and INT4, and dINT with its two half-step codes.

Source: [DINT] Lee et al., Enhancing Computation Efficiency in Large Language Models through Weight and Activation
Quantization, EMNLP 2023 (arXiv 2311.05161), section 3.2 and equations 5 and 6. What the paper leaves open is this
project's: the codes of the two special values, ties, the byte layout, and that a range always includes 0.
"""

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from mxcompile.formats.base import BlockFormat, Float32, Uint8, split_finite
from mxcompile.formats.elements import Element

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

_SCALE_BYTES = 4
_NAN_BYTES: Final = np.array([0x00, 0x00, 0xC0, 0x7F], np.uint8)
"""float32 0x7FC00000, little-endian: the scale of a group with NaN or Inf."""


@dataclasses.dataclass(frozen=True)
class AsymmetricInteger(BlockFormat):
    """Codes 0 to p around a zero point, one scale and zero point a row (or a group of it).

    1. ``lo = min(0, min(x))``, ``hi = max(0, max(x))``; ``s = fp32(fp32(hi - lo) / p)``, a zero becoming 1. Where
       ``hi - lo`` overflows, ``s = fp32(fp32(hi / p) - fp32(lo / p))``.
    2. Zero point ``z = round(fp32(-lo / s))``, clamped to 0..p; ties to even, here and below.
    3. ``v = fp32(x / s)``; the code is ``clamp(round(v) + z, 0, p)``.
    4. Half steps (dINT, ``p = 2**bits - 3``): ``0.25 < v <= 0.75`` has code p + 1, ``-0.75 <= v < -0.25`` code p + 2.
    5. Decoding: ``fp32((code - z) * s)``; the half steps are ``+0.5 s`` and ``-0.5 s``, without the zero point.

    Scales are ``[..., groups, 5]``: s as float32, little-endian, then z. Edge cases: a ragged last group is simply
    shorter; NaN or Inf makes its group NaN (s is NaN, z and codes 0). Codes above p of a format without half steps do
    not occur.

    Attributes:
        half_steps: Whether there are the two codes of dINT.
        summary: A line for the table of formats.
    """

    half_steps: bool
    summary: str
    block_size: int = dataclasses.field(default=0, kw_only=True)

    @property
    def top(self) -> int:
        """The largest integer code, p."""
        return (1 << self.element.bits) - (3 if self.half_steps else 1)

    @property
    def scale_type(self) -> str:
        """float32 and a zero point."""
        return "float32 + zero point"

    @property
    def scales_per_block(self) -> int:
        """Four bytes of the scale, one of the zero point."""
        return _SCALE_BYTES + 1

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Whole rows, or groups."""
        return (0, 32, 64, 128)

    @property
    def paired_activations(self) -> str:
        """int8: W4A8 and W3A8."""
        return "int8"

    @property
    def description(self) -> str:
        """See `summary`."""
        return self.summary

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """See `BlockFormat.encode_blocks`."""
        finite, x = split_finite(blocks)
        lo = x.min(axis=-1, keepdims=True, initial=0)
        hi = x.max(axis=-1, keepdims=True, initial=0)
        p = np.float32(self.top)
        with np.errstate(over="ignore"):
            span = hi - lo
        scale = np.where(np.isfinite(span), span / p, hi / p - lo / p)
        scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
        zero_point = np.clip(np.rint(-lo / scale), 0, p)
        with np.errstate(over="ignore"):  # of a subnormal scale; the clip follows
            v = x / scale
            codes = np.clip(np.rint(v) + zero_point, 0, p)
        if self.half_steps:
            codes = np.where((v > 0.25) & (v <= 0.75), p + 1, codes)
            codes = np.where((v >= -0.75) & (v < -0.25), p + 2, codes)
        bytes_ = np.ascontiguousarray(scale, "<f4").view(np.uint8)
        bytes_ = np.where(finite, bytes_, _NAN_BYTES)
        zeros = np.where(finite, zero_point, 0).astype(np.uint8)
        return np.where(finite, codes, 0).astype(np.uint8), np.concatenate([bytes_, zeros], axis=-1)

    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.decode_blocks`."""
        with np.errstate(invalid="ignore", over="ignore"):  # foreign scales
            return self.block_code_units(codes, scales) * _steps(scales)

    @property
    def levels(self) -> Float32:
        """Whole numbers from -p to p, of which a block has p + 1 neighbours around 0; and the half steps."""
        whole = np.arange(-self.top, self.top + 1, dtype=np.float32)
        return np.sort(np.append(whole, [np.float32(-0.5), np.float32(0.5)])) if self.half_steps else whole

    def block_units(self, blocks: Float32, scales: Uint8) -> Float32:
        """See `BlockFormat.block_units`: v, without the zero point, so that 0 is 0 whatever the block."""
        with np.errstate(over="ignore"):  # of a subnormal scale
            return blocks / _steps(scales)

    def block_code_units(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `BlockFormat.block_code_units`: ``code - z``, or a half step."""
        steps = codes.astype(np.float32) - scales[..., _SCALE_BYTES:].astype(np.float32)
        if self.half_steps:
            steps = np.where(codes == self.top + 1, np.float32(0.5), steps)
            steps = np.where(codes == self.top + 2, np.float32(-0.5), steps)
        return steps

    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_blocks`."""
        finite, x = op.split_finite(blocks)
        zero, p = op.float32(0), op.float32(self.top)
        lo = op.Min(op.ReduceMin(x, op.LAST, keepdims=1), zero)
        hi = op.Max(op.ReduceMax(x, op.LAST, keepdims=1), zero)
        span = op.Sub(hi, lo)
        overflow = op.Equal(span, op.float32(np.inf))
        scale = op.Where(overflow, op.Sub(op.Div(hi, p), op.Div(lo, p)), op.Div(span, p))
        scale = op.Where(op.Equal(scale, zero), op.float32(1), scale)
        zero_point = op.Min(op.Max(op.Round(op.Div(op.Neg(lo), scale)), zero), p)
        v = op.Div(x, scale)
        codes = op.Min(op.Max(op.Add(op.Round(v), zero_point), zero), p)
        if self.half_steps:
            low, high = op.float32(0.25), op.float32(0.75)
            plus = op.And(op.Greater(v, low), op.LessOrEqual(v, high))
            minus = op.And(op.Less(v, op.Neg(low)), op.GreaterOrEqual(v, op.Neg(high)))
            codes = op.Where(plus, op.float32(self.top + 1), codes)
            codes = op.Where(minus, op.float32(self.top + 2), codes)
        bytes_ = op.Where(finite, op.float_bytes(scale), op.constant(_NAN_BYTES.astype(np.float32)))
        scales = op.Concat(bytes_, op.Where(finite, zero_point, zero), axis=-1)
        return op.Where(finite, codes, zero), scales

    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_blocks`."""
        split = op.vector([_SCALE_BYTES, 1])
        bytes_, zero_point = op.op_multi_out("Split", [scales, split], {"axis": -1}, num_outputs=2)
        number, zero_point = op.Cast(codes, to=1), op.Cast(zero_point, to=1)
        steps = op.Sub(number, zero_point)
        if self.half_steps:
            steps = op.Where(op.Equal(number, op.float32(self.top + 1)), op.float32(0.5), steps)
            steps = op.Where(op.Equal(number, op.float32(self.top + 2)), op.float32(-0.5), steps)
        return op.op("Mul", [steps, op.bytes_float(bytes_)])


def _steps(scales: Uint8) -> Float32:
    """The scales s, float32 ``[..., 1]``."""
    return np.ascontiguousarray(scales[..., :_SCALE_BYTES]).view("<f4").astype(np.float32)


def _integer(name: str, bits: int, half_steps: bool, summary: str) -> AsymmetricInteger:
    element = Element(name.upper(), bits, tuple(map(float, range(2 ** (bits - 1)))))
    return AsymmetricInteger(name, element, half_steps=half_steps, summary=summary)


INT8: Final = _integer("int8", 8, False, "256 levels around a zero point, one scale a row")
"""256 levels; the activations of W4A8."""

INT4: Final = _integer("int4", 4, False, "16 levels, with int8 activations")
"""16 levels."""

DINT4: Final = _integer("dint4", 4, True, "14 levels and two half steps, with int8 activations")
"""Codes 0..13, 14 for +s/2, 15 for -s/2."""

DINT3: Final = _integer("dint3", 3, True, "6 levels and two half steps, with int8 activations")
"""Codes 0..5, 6 for +s/2, 7 for -s/2."""
