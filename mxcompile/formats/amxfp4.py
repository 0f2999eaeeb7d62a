"""AMXFP4: E2M1 elements in blocks with two scales, one for the positive and one for the negative elements.

Outliers make the two sides of a block's distribution unequal; a scale for each side follows both, without
calibration. Source: [AMX] Lee et al., AMXFP4, Findings of ACL 2025 (arXiv 2411.09909), section 4; the exact steps are
those of the authors' emulator, with which `AMXFP4` agrees bit for bit (tests/golden).
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mxcompile.formats.base import Float32, Format, Uint8, split_finite
from mxcompile.formats.elements import E2M1, E5M2, Element

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

NAN_SCALE = 0x7F
"""E5M2 byte that both scales of a block with NaN or Inf get. Source: this project."""


@dataclasses.dataclass(frozen=True)
class AMXFP4(Format):
    """AMXFP4 with E5M2 scales: 4 + 16/32 = 4.5 bits per element.

    1. ``p = max(0, max(block))``, ``n = max(0, max(-block))``; ``p / 6`` and ``n / 6`` in float32; a zero becomes 1.
    2. Each scale is rounded to E5M2: ties away from zero, subnormals of step 2**-16, saturating at 57344; below 2**-17
       it becomes 0.
    3. An element above zero uses the positive scale, every other one the negative scale.
    4. ``|x| / scale`` in float32 is rounded to the nearest E2M1 magnitude, ties away from zero, saturating at 6. A
       scale of 0 gives 0.
    5. Decoding multiplies: exact in float32, and in bfloat16 too (5 significant bits).

    Edge cases: ``-0`` and every element that rounds to zero have code 0. A side without elements, and both sides of
    an all-zero block, have scale 1.0 (byte 0x3C). A ragged last block is simply shorter. NaN or Inf anywhere makes
    the whole block NaN (both scales 0x7F, codes 0).

    Source: [AMX] and its emulator; the codes of zeros are the emulator's, the NaN rule is this project's.
    """

    element: ClassVar[Element] = E2M1
    scale_type: ClassVar[str] = "E5M2"
    scales_per_block: ClassVar[int] = 2
    description: ClassVar[str] = "asymmetric: one scale for the positive, one for the negative elements"

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """See `Format.encode_blocks`; scales are ``[..., 2]``: positive, negative."""
        finite, x = split_finite(blocks)
        zero = np.float32(0)
        extremes = np.stack([np.maximum(x, zero).max(axis=-1), np.maximum(-x, zero).max(axis=-1)], axis=-1)
        raw = np.divide(extremes, E2M1.maximum, dtype=np.float32)
        raw[raw == 0] = 1
        scales = E5M2.encode(raw)

        values = E5M2.decode_table[scales]
        scale = np.where(x > 0, values[..., :1], values[..., 1:])
        divisor = np.where(scale == 0, np.float32(np.inf), scale)  # a scale of 0 gives 0
        index = E2M1.encode(np.divide(np.abs(x), divisor, dtype=np.float32))
        codes = np.where((x < 0) & (index > 0), index + np.uint8(E2M1.sign_bit), index)
        return codes, np.where(finite, scales, np.uint8(NAN_SCALE))

    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.decode_blocks`; the sign bit selects the scale."""
        values = E5M2.decode_table[scales]
        scale = np.where(codes >= E2M1.sign_bit, values[..., 1:], values[..., :1])
        with np.errstate(invalid="ignore"):  # 0 * Inf of a foreign scale byte is NaN, as in IEEE 754
            return E2M1.decode_table[codes] * scale

    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_blocks`."""
        finite, x = op.split_finite(blocks)
        zero, one, infinity = op.float32(0), op.float32(1), op.float32(np.inf)
        positive = op.ReduceMax(op.Max(x, zero), op.LAST, keepdims=1)
        negative = op.ReduceMax(op.Max(op.Neg(x), zero), op.LAST, keepdims=1)
        raw = op.Div(op.Concat(positive, negative, axis=-1), op.float32(E2M1.maximum))
        scales = op.count(op.Where(op.Equal(raw, zero), one, raw), E5M2.thresholds())

        values = op.lookup(E5M2.decode_table, scales)
        scale = op.Where(op.Greater(x, zero), *op.Split(values, axis=-1, num_outputs=2, _outputs=2))
        index = op.count(op.Div(op.Abs(x), op.Where(op.Equal(scale, zero), infinity, scale)), E2M1.thresholds())
        sign_bit = op.float32(E2M1.sign_bit)
        negative_code = op.And(op.Less(x, zero), op.Greater(index, zero))
        codes = op.Where(negative_code, op.Add(index, sign_bit), index)
        return codes, op.Where(finite, scales, op.float32(NAN_SCALE))

    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_blocks`."""
        positive, negative = op.Split(op.lookup(E5M2.decode_table, scales), axis=-1, num_outputs=2, _outputs=2)
        sign_bit = op.constant(np.array(E2M1.sign_bit, np.int32))
        scale = op.Where(op.Less(codes, sign_bit), positive, negative)
        x: ir.Value = op.Mul(op.lookup(E2M1.decode_table, codes), scale)
        return x
