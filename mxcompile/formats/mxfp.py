"""OCP microscaling floating point (MX): elements in blocks of 32 with one power-of-two scale.

Source: [OCP] Microscaling Formats (MX) v1.0, sections 5.3, 5.4 and 6.3; checked against the AMXFP4 authors' emulator,
which was itself cross-checked with microxcaling (tests/golden).
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mxcompile.formats.base import Float32, Format, Uint8, split_finite
from mxcompile.formats.elements import E2M1, E8M0_BIAS, E8M0_NAN, Element, e8m0_decode_table

if TYPE_CHECKING:
    import onnx_ir as ir

    from mxcompile.graph_writer import GraphWriter

E2M1_EMAX = 2
"""Exponent of E2M1's largest value, 6 = 1.5 * 2**2. Source: [OCP] MX v1.0 table 1."""

_FLOAT32_EMAX = 127


def floor_thresholds(emax: int) -> Float32:
    """The smallest absolute maximum for each scale code from 1 on: powers of two, float32 ``[254 - emax]``.

    The FLOOR rule ``floor(log2(amax)) - emax``, clamped at code 0 (2**-127), as a count of thresholds.
    Source: [OCP] MX v1.0 section 6.3.
    """
    exponents = np.arange(1 - E8M0_BIAS + emax, _FLOAT32_EMAX + 1, dtype=np.int32)
    return np.ldexp(np.float32(1), exponents).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class MXFP4(Format):
    """MXFP4: E2M1 elements, one E8M0 scale a block, 4 + 8/32 = 4.25 bits per element.

    1. The scale is ``2**(floor(log2(amax)) - 2)`` (FLOOR, the OCP default), clamped at 2**-127; an all-zero block has
       scale byte 0.
    2. ``|x| / scale`` is rounded to the nearest E2M1 magnitude, ties away from zero (microxcaling's and the AMXFP4
       authors' default; ties to even is what AMD Quark uses), saturating at 6.
    3. Decoding multiplies: exact in float32, subnormals included.

    Edge cases: ``-0`` and every element that rounds to zero have code 0. A ragged last block is simply shorter. NaN
    or Inf anywhere makes the whole block NaN (scale byte 0xFF, codes 0).
    """

    element: ClassVar[Element] = E2M1
    scale_type: ClassVar[str] = "E8M0"
    scales_per_block: ClassVar[int] = 1
    description: ClassVar[str] = "OCP microscaling: one power-of-two scale, FLOOR rule, ties away from zero"

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        """See `Format.encode_blocks`; scales are ``[..., 1]``."""
        finite, x = split_finite(blocks)
        amax = np.abs(x).max(axis=-1, keepdims=True)
        scales = np.searchsorted(floor_thresholds(E2M1_EMAX), amax, side="right").astype(np.uint8)
        index = E2M1.encode(np.abs(x) / e8m0_decode_table()[scales])
        codes = np.where((x < 0) & (index > 0), index + np.uint8(E2M1.sign_bit), index)
        return codes, np.where(finite, scales, np.uint8(E8M0_NAN))

    def decode_blocks(self, codes: Uint8, scales: Uint8) -> Float32:
        """See `Format.decode_blocks`."""
        with np.errstate(over="ignore"):  # 6 * 2**127 of a foreign scale byte is Inf, as in IEEE 754
            return E2M1.decode_table[codes] * e8m0_decode_table()[scales]

    def emit_encode(self, op: "GraphWriter", blocks: "ir.Value") -> tuple["ir.Value", "ir.Value"]:
        """See `encode_blocks`."""
        finite, x = op.split_finite(blocks)
        magnitude = op.Abs(x)
        scales = op.count(op.ReduceMax(magnitude, op.LAST, keepdims=1), floor_thresholds(E2M1_EMAX))
        index = op.count(op.Div(magnitude, op.lookup(e8m0_decode_table(), scales)), E2M1.thresholds())
        zero, sign_bit = op.float32(0), op.float32(E2M1.sign_bit)
        negative_code = op.And(op.Less(x, zero), op.Greater(index, zero))
        codes = op.Where(negative_code, op.Add(index, sign_bit), index)
        return codes, op.Where(finite, scales, op.float32(E8M0_NAN))

    def emit_decode(self, op: "GraphWriter", codes: "ir.Value", scales: "ir.Value") -> "ir.Value":
        """See `decode_blocks`."""
        x: ir.Value = op.Mul(op.lookup(E2M1.decode_table, codes), op.lookup(e8m0_decode_table(), scales))
        return x
