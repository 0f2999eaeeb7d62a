"""What the units with integers and with wider floats in rtl/*.v answer, bit by bit, in NumPy.

Integer units add products of codes; zero points and scales are applied once an output, outside (`zero_point_terms`).
Units with floats give `Blocks` for the accumulator that they share with those of `rtl_reference`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost.rtl_reference import Blocks, Codes, Flags, Integers, accumulate_fp32, leading_bits
from mxcompile.formats.elements import E8M0_BIAS, E8M0_NAN

UnsignedCodes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

ALIGNED_FRACTION_BITS: Final = 24
"""Fraction bits below the block's largest product exponent that `aligned` keeps. Source: this project; tensor cores
keep 23 to 25."""


@dataclasses.dataclass(frozen=True)
class SmallFloat:
    """Layout of a code: sign, exponent bits, mantissa bits.

    Attributes:
        exponent_bits: Number of exponent bits.
        mantissa_bits: Number of stored mantissa bits.
        smallest: Exponent of the smallest subnormal number: it is ``2**smallest``.
        nan_from: The smallest code without sign that is NaN or Inf; ``2**bits`` if there is none.
    """

    exponent_bits: int
    mantissa_bits: int
    smallest: int
    nan_from: int

    def parts(self, codes: UnsignedCodes) -> tuple[Integers, Integers, Flags]:
        """Codes as ``significand * 2**(exponent + smallest)``, and which are NaN or Inf.

        Args:
            codes: Codes of any shape.

        Returns:
            Signed significands, exponents from 0 on, and flags, of the codes' shape.
        """
        sign_bit = 1 << (self.exponent_bits + self.mantissa_bits)
        magnitude = codes.astype(np.int64) & (sign_bit - 1)
        field = magnitude >> self.mantissa_bits
        hidden = (field > 0).astype(np.int64)
        significand = (magnitude & ((1 << self.mantissa_bits) - 1)) + (hidden << self.mantissa_bits)
        return np.where(codes & sign_bit, -significand, significand), field - hidden, magnitude >= self.nan_from


E2M3: Final = SmallFloat(2, 3, -3, 1 << 6)
E3M2: Final = SmallFloat(3, 2, -4, 1 << 6)
E4M3: Final = SmallFloat(4, 3, -9, 0x7F)
E5M2: Final = SmallFloat(5, 2, -16, 0x7C)
FP16: Final = SmallFloat(5, 10, -24, 0x7C00)


def exact_blocks(element: SmallFloat, a: UnsignedCodes, b: UnsignedCodes) -> Blocks:
    """Exact sums of products at scale 1, as lib_wide_minifloat.v takes them.

    Args:
        element: The type of both operands.
        a: Codes ``[clocks, 32]``.
        b: Codes ``[clocks, 32]``.

    Returns:
        The values.
    """
    (sa, xa, nan_a), (sb, xb, nan_b) = element.parts(a), element.parts(b)
    v = (sa * sb << (xa + xb)).sum(axis=1)
    nan: Flags = np.asarray((nan_a | nan_b).any(axis=1))
    return Blocks(v, np.full_like(v, 2 * element.smallest), nan, np.ones_like(nan))


def aligned_blocks(element: SmallFloat, a: UnsignedCodes, b: UnsignedCodes) -> Blocks:
    """Sums of products at scale 1, aligned to the largest exponent of a product other than 0, as lib_wide_aligned.v.

    With x the exponent of a product, X the largest one, and G = `ALIGNED_FRACTION_BITS` less the fraction bits of a
    product, a product p counts ``trunc(p * 2**(G - (X - x)))``; the sum's unit is ``2**(X - G)``.

    Args:
        element: The type of both operands.
        a: Codes ``[clocks, 32]``.
        b: Codes ``[clocks, 32]``.

    Returns:
        The values; exact where nothing but zeros was cut off.
    """
    (sa, xa, nan_a), (sb, xb, nan_b) = element.parts(a), element.parts(b)
    guard = ALIGNED_FRACTION_BITS - 2 * element.mantissa_bits
    product = sa * sb
    x = np.where(product != 0, xa + xb, 0)
    largest = x.max(axis=1)
    wide, behind = np.abs(product) << guard, largest[:, None] - x
    kept = wide >> behind
    nan: Flags = np.asarray((nan_a | nan_b).any(axis=1))
    exact = (kept << behind == wide).all(axis=1)
    return Blocks((np.sign(product) * kept).sum(axis=1), largest + (2 * element.smallest - guard), nan, exact)


def mxint8_blocks(a: UnsignedCodes, b: UnsignedCodes) -> Blocks:
    """Exact sums of products of two's complement bytes in units of 2**-12, at scale 1; arguments as `exact_blocks`."""
    v = (a.astype(np.int8).astype(np.int64) * b.astype(np.int8)).sum(axis=1)
    nan = np.zeros(len(v), bool)
    return Blocks(v, np.full_like(v, -12), nan, ~nan)


def with_scales(blocks: Blocks, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Blocks times one E8M0 scale a side.

    Args:
        blocks: Blocks at scale 1.
        a_scale: E8M0 bytes, uint8 ``[clocks, 1]``; ``[clocks, 0]`` where the format has no scales.
        b_scale: Likewise.

    Returns:
        The blocks; NaN where a scale is 0xFF.
    """
    scales = np.concatenate([a_scale, b_scale], axis=1)
    exponent = blocks.exponent + scales.sum(axis=1, dtype=np.int64) - E8M0_BIAS * scales.shape[1]
    return dataclasses.replace(blocks, exponent=exponent, nan=blocks.nan | (scales == E8M0_NAN).any(axis=1))


def rounded_to_odd(blocks: Blocks) -> Blocks:
    """What the accumulators behind wide sums take of a block, see `leading_bits`.

    Args:
        blocks: Blocks with v below 2**53.
    """
    kept, whole = leading_bits(blocks.v)
    return dataclasses.replace(blocks, v=kept, exact=blocks.exact & whole)


BLOCKS: Final[Mapping[str, Callable[[UnsignedCodes, UnsignedCodes], Blocks]]] = {
    "fp16": lambda a, b: aligned_blocks(FP16, a, b),
    "mxint8": mxint8_blocks,
    "mxfp8_e4m3": lambda a, b: exact_blocks(E4M3, a, b),
    "mxfp8_e5m2": lambda a, b: aligned_blocks(E5M2, a, b),
    "mxfp6_e2m3": lambda a, b: exact_blocks(E2M3, a, b),
    "mxfp6_e3m2": lambda a, b: exact_blocks(E3M2, a, b),
}
"""Unit with a float32 accumulator -> what its pairs of blocks are worth at scale 1."""

INTEGER_UNITS: Final = ("int8_int8", "int4_int8", "dint4_int8", "int4_int4")
"""Units with an int32 accumulator. The first operand is the activations': int8 in dint4_int8 and int4_int8."""


def half_steps(codes: UnsignedCodes, zero_point: Codes) -> tuple[Integers, Integers]:
    """The numbers d that dint4_int8.v makes of dint4 codes, and the offset: a weight is ``(d - offset) / 2`` steps.

    Args:
        codes: dint4 codes ``[clocks, 32]``.
        zero_point: uint8 ``[clocks, 1]``, 0 to 13.

    Returns:
        d, int64 ``[clocks, 32]``, 0 to 31, and the offset, int64 ``[clocks, 1]``.
    """
    z, code = zero_point.astype(np.int64), codes.astype(np.int64)
    offset = 2 * z + (z == 0)
    return np.where(code == 14, offset + 1, np.where(code == 15, offset - 1, 2 * code + (z == 0))), offset


def zero_point_terms(sum_ab: Integers, sum_a: Integers, sum_b: Integers, za: int, zb: int, k: int) -> Integers:
    """``sum (a - za) (b - zb)`` from the sum over codes that a unit gives: what is done once an output.

    Args:
        sum_ab: int64, sums of ``a * b`` over k codes.
        sum_a: Sums of a; once a row of the array, for all its columns.
        sum_b: Sums of b; once a column, for weights at compile time.
        za: Zero point of a.
        zb: Zero point of b; for dint4 the offset of `half_steps`, and the result counts half steps.
        k: Number of codes.
    """
    return sum_ab - zb * sum_a - za * sum_b + k * za * zb


def reference(
    unit: str, a: UnsignedCodes, b: UnsignedCodes, a_scale: Codes, b_scale: Codes, clear: Flags
) -> npt.NDArray[np.uint32]:
    """What a unit answers to a sequence of pairs of blocks, one a clock.

    Args:
        unit: A key of `BLOCKS`, or one of `INTEGER_UNITS`.
        a: Codes, uint8 (fp16: uint16) ``[clocks, 32]``.
        b: Codes ``[clocks, 32]``.
        a_scale: Scale bytes, uint8 ``[clocks, s]``; s = 0 for integers and fp16.
        b_scale: Likewise; for dint4_int8 the zero points, ``[clocks, 1]``.
        clear: bool ``[clocks]``: where a new sum starts.

    Returns:
        uint32 ``[clocks]``: the bits of float32, or of int32 for integers.
    """
    if unit not in INTEGER_UNITS:
        return accumulate_fp32(rounded_to_odd(with_scales(BLOCKS[unit](a, b), a_scale, b_scale)), clear)
    right = half_steps(b, b_scale)[0] if unit == "dint4_int8" else b.astype(np.int64)
    sums = (a.astype(np.int64) * right).sum(axis=1)
    total: Integers = np.cumsum(sums)
    first = np.maximum.accumulate(np.where(clear, np.arange(len(clear)), 0))
    y: npt.NDArray[np.uint32] = (total - total[first] + sums[first]).astype(np.uint32)
    return y


def int8_codes(x: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], zero_point: Codes) -> Codes:
    """Codes of quantize_int8.v, step 3 of `AsymmetricInteger`: ``clamp(rint(fp32(x / scale)) + zero_point, 0, 255)``.

    Args:
        x: float32 of float16 values ``[clocks, 32]``, finite.
        scale: float32 ``[clocks, 1]``; NaN gives code 0.
        zero_point: uint8 ``[clocks, 1]``.

    Returns:
        uint8 ``[clocks, 32]``.
    """
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(x / scale) + zero_point, 0, 255)
    return np.where(np.isnan(codes), 0, codes).astype(np.uint8)
