"""What the units with 4-bit floating-point operands in rtl/*.v answer, bit by bit, in NumPy and Python integers.

A unit takes one pair of blocks a clock. Its exact block value ``v * 2**exponent`` is what `Block` holds; where the unit
keeps a window of bits only, the function here has exactly that rule. `accumulate_fp32` is the shared accumulator.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile.formats.elements import E2M1, E8M0_BIAS, E8M0_NAN

Codes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LANES: Final = 32
NAN: Final = 0x7FC0_0000
"""The float32 that every unit answers for a NaN."""

INFINITY: Final = 0x7F80_0000
_BIAS: Final = 127
_SIGN: Final = 1 << 31

AMXFP4_WINDOW: Final = 7
"""Binades that a side's scale may be below the other one's before the side counts as zero."""

NVFP4_WINDOW: Final = 15
"""Binades that one half's scales may be below the other half's before that half counts as zero."""

KEPT_BITS: Final = 26
"""Leading bits of a block's value that the accumulators behind the wider windows keep, the last one rounded to odd."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """What each clock's pair of blocks adds: ``v * 2**exponent``.

    Attributes:
        v: int64 ``[clocks]``.
        exponent: int64 ``[clocks]``.
        nan: bool ``[clocks]``: whether a scale is NaN.
        exact: bool ``[clocks]``: whether the value is the exact one, that is whether the unit's window lost nothing.
    """

    v: Integers
    exponent: Integers
    nan: Flags
    exact: Flags


def float32_bits(v: int, exponent: int) -> int:
    """The float32 nearest to ``v * 2**exponent``, ties to even; below ``2**-126`` after rounding +0, too large Inf."""
    if v == 0:
        return 0
    sign, magnitude = (_SIGN if v < 0 else 0), abs(v)
    drop = magnitude.bit_length() - 24
    if drop > 0:
        low, half = magnitude & ((1 << drop) - 1), 1 << (drop - 1)
        magnitude >>= drop
        magnitude += low > half or (low == half and magnitude & 1)
    else:
        magnitude <<= -drop
    top = exponent + drop + 23 + magnitude.bit_length() - 24 + _BIAS
    if top >= 255:
        return sign | INFINITY
    return sign | top << 23 | (magnitude & 0x7F_FFFF) if top > 0 else 0


def accumulate_fp32(blocks: Blocks, clear: Flags) -> npt.NDArray[np.uint32]:
    """The accumulator of lib_accumulate_fp32.v: ``y = RNE(y + v * 2**exponent)``, the sum exact, rounded once a clock.

    Args:
        blocks: The blocks.
        clear: bool ``[clocks]``: where a new sum starts. Before the first one it is 0.

    Returns:
        uint32 ``[clocks]``: float32 bits of y after each clock. Subnormal results are +0, an exact cancellation is +0.
    """
    y, results = 0, []
    rows = zip(blocks.v.tolist(), blocks.exponent.tolist(), blocks.nan.tolist(), clear.tolist(), strict=True)
    for v, exponent, nan, new in rows:
        y = 0 if new else y
        if nan or y == NAN:
            y = NAN
        elif y & INFINITY != INFINITY:
            y = _add(y, v, exponent)
        results.append(y)
    return np.array(results, np.uint32)


def _add(y: int, v: int, exponent: int) -> int:
    if y & INFINITY == 0:
        return float32_bits(v, exponent)
    significand = (y & 0x7F_FFFF) | 0x80_0000
    y_exponent = ((y >> 23) & 0xFF) - _BIAS - 23
    low = min(y_exponent, exponent)
    total = (-significand if y & _SIGN else significand) << (y_exponent - low)
    return float32_bits(total + (v << (exponent - low)), low)


def e2m1_doubled(codes: Codes) -> Integers:
    """E2M1 codes as signed integers in units of 1/2: -12 to 12."""
    return (2 * E2M1.decode_table[codes]).astype(np.int64)


def mxfp4_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Exact values of pairs of mxfp4 blocks.

    Args:
        a: Codes, uint8 ``[clocks, 32]``.
        b: Codes, uint8 ``[clocks, 32]``.
        a_scale: E8M0 bytes, uint8 ``[clocks, 1]``.
        b_scale: E8M0 bytes, uint8 ``[clocks, 1]``.

    Returns:
        The values.
    """
    v = (e2m1_doubled(a) * e2m1_doubled(b)).sum(axis=1)
    scales = np.concatenate([a_scale, b_scale], axis=1)
    exponent = scales.sum(axis=1, dtype=np.int64) - 2 * E8M0_BIAS - 2
    return Blocks(v, exponent, _any(scales == E8M0_NAN), np.ones(len(v), np.bool_))


def e5m2_parts(scales: Codes) -> tuple[Integers, Integers, Flags]:
    """E5M2 scale bytes as ``significand * 2**(exponent - 17)``, and which are NaN or Inf.

    The sign bit is not read.
    """
    field = (scales.astype(np.int64) >> 2) & 31
    significand = (scales.astype(np.int64) & 3) + 4 * (field > 0)
    return significand, np.maximum(field, 1), field == 31


def fp4_e5m2_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Exact values of pairs of blocks with one E5M2 scale; arguments as for `mxfp4_blocks`."""
    significand, exponent, nan = e5m2_parts(np.concatenate([a_scale, b_scale], axis=1))
    v = (e2m1_doubled(a) * e2m1_doubled(b)).sum(axis=1) * significand.prod(axis=1)
    return Blocks(v, exponent.sum(axis=1) - 36, _any(nan), np.ones(len(v), np.bool_))


def nvfp4_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Values of pairs of two nvfp4 blocks of 16, in units of the product of both tensors' scales.

    The half with the greater exponent (of the product of its scales) sets the unit, unless its sum is 0; the other one
    counts as zero where its exponent is more than `NVFP4_WINDOW` below. `KEPT_BITS` bits of the result are kept.

    Args:
        a: Codes, uint8 ``[clocks, 32]``.
        b: Codes, uint8 ``[clocks, 32]``.
        a_scale: E4M3 bytes, uint8 ``[clocks, 2]``.
        b_scale: E4M3 bytes, uint8 ``[clocks, 2]``.

    Returns:
        The values.
    """
    scales = np.stack([a_scale, b_scale]).astype(np.int64) & 0x7F
    field = scales >> 3
    significand = ((scales & 7) + 8 * (field > 0)).prod(axis=0)
    exponent = np.maximum(field, 1).sum(axis=0)
    values = (e2m1_doubled(a) * e2m1_doubled(b)).reshape(-1, 2, 16).sum(axis=2) * significand
    swapped = (values[:, 1] != 0) & ((exponent[:, 1] > exponent[:, 0]) | (values[:, 0] == 0))
    values, exponent = _greater_first(values, swapped), _greater_first(exponent, swapped)
    moved, exact = _moved(values[:, 1], exponent[:, 0] - exponent[:, 1], NVFP4_WINDOW)
    v, whole = leading_bits((values[:, 0] << NVFP4_WINDOW) + moved)
    return Blocks(v, exponent[:, 0] - 22 - NVFP4_WINDOW, (scales == 0x7F).any(axis=(0, 2)), exact & whole)


def class_sum_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Values of pairs of amxfp4 blocks from exact sums of the four classes of products.

    With G and L the side of an operand with the greater and the lesser exponent of its scale (the positive one if
    equal; a side without elements other than zero is never G), a and b the scales' significands, XY the sum of
    products of a's side X and b's side Y::

        v = +-(aG * (bG * GG - bL * GL) - aL * (bG * LG - bL * LL))

    An operand's lesser side counts as zero where its exponent is more than `AMXFP4_WINDOW` below. `KEPT_BITS` bits of
    the result are kept.

    Args:
        a: Codes, uint8 ``[clocks, 32]``.
        b: Codes, uint8 ``[clocks, 32]``.
        a_scale: E5M2 bytes, uint8 ``[clocks, 2]``: positive, negative.
        b_scale: E5M2 bytes, uint8 ``[clocks, 2]``: positive, negative.

    Returns:
        The values.
    """
    x, y = _sides(a, *e5m2_parts(a_scale)), _sides(b, *e5m2_parts(b_scale))
    products = np.abs(e2m1_doubled(a) * e2m1_doubled(b))
    inner, exact = [], ~(x.nan | y.nan)
    for side in (~x.lesser, x.lesser):
        greater = (products * (side & ~y.lesser)).sum(axis=1) * y.significand[:, 0]
        lesser = (products * (side & y.lesser)).sum(axis=1) * y.significand[:, 1]
        moved, whole = _moved(lesser, y.distance, AMXFP4_WINDOW)
        inner.append((greater << AMXFP4_WINDOW) - moved)
        exact &= whole
    moved, whole = _moved(inner[1] * x.significand[:, 1], x.distance, AMXFP4_WINDOW)
    v = (inner[0] * x.significand[:, 0] << AMXFP4_WINDOW) - moved
    v, kept = leading_bits(np.where(x.swapped ^ y.swapped, -v, v))
    return Blocks(v, x.exponent + y.exponent - 36 - 2 * AMXFP4_WINDOW, x.nan | y.nan, exact & whole & kept)


def per_product_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """Values of pairs of amxfp4 blocks, each product scaled by itself; arguments as for `class_sum_blocks`.

    A product whose two scales together are more than `AMXFP4_WINDOW` binades below the greater ones' counts as zero.
    """
    return _shifting_tree_blocks(a, b, e5m2_parts(a_scale), e5m2_parts(b_scale), 36)


def synced_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """As `per_product_blocks` for scales with the same mantissa on both sides.

    A byte is ``(4 + t) * 2**(field - 17)`` for every field below 31 (no subnormals, no zero), 31 is NaN; t is read from
    the positive side's byte.
    """
    return _shifting_tree_blocks(a, b, _synced_parts(a_scale), _synced_parts(b_scale), 36)


def _synced_parts(scales: Codes) -> tuple[Integers, Integers, Flags]:
    field = (scales.astype(np.int64) >> 2) & 31
    return np.broadcast_to(4 + (scales[:, :1].astype(np.int64) & 3), field.shape), field, field == 31


def pot_blocks(a: Codes, b: Codes, a_scale: Codes, b_scale: Codes) -> Blocks:
    """As `per_product_blocks` for E8M0 scale bytes (amxfp4_pot)."""

    def parts(scales: Codes) -> tuple[Integers, Integers, Flags]:
        return np.ones(scales.shape, np.int64), scales.astype(np.int64), scales == E8M0_NAN

    return _shifting_tree_blocks(a, b, parts(a_scale), parts(b_scale), 2 * E8M0_BIAS + 2)


def _shifting_tree_blocks(
    a: Codes,
    b: Codes,
    a_parts: tuple[Integers, Integers, Flags],
    b_parts: tuple[Integers, Integers, Flags],
    bias: int,
) -> Blocks:
    x, y = _sides(a, *a_parts), _sides(b, *b_parts)
    scaled = e2m1_doubled(a) * x.of_lanes(x.significand) * e2m1_doubled(b) * y.of_lanes(y.significand)
    distance = x.lesser * x.distance[:, None] + y.lesser * y.distance[:, None]
    moved, exact = _moved(scaled, distance, AMXFP4_WINDOW)
    nan = x.nan | y.nan
    return Blocks(moved.sum(axis=1), x.exponent + y.exponent - bias - AMXFP4_WINDOW, nan, exact.all(axis=1) & ~nan)


@dataclasses.dataclass(frozen=True)
class _Sides:
    """An operand's two sides, the one with the greater exponent first.

    Attributes:
        swapped: bool ``[clocks]``: whether the negative side is the greater one.
        lesser: bool ``[clocks, 32]``: whether a lane belongs to the lesser side.
        significand: int64 ``[clocks, 2]``.
        exponent: int64 ``[clocks]``: of the greater side.
        distance: int64 ``[clocks]``: how far the lesser side's exponent is below; no meaning if it has no elements.
        nan: bool ``[clocks]``.
    """

    swapped: Flags
    lesser: Flags
    significand: Integers
    exponent: Integers
    distance: Integers
    nan: Flags

    def of_lanes(self, pair: Integers) -> Integers:
        """Of a value a side the one of each lane's side, int64 ``[clocks, 32]``."""
        return np.where(self.lesser, pair[:, 1:], pair[:, :1])


def _sides(codes: Codes, significand: Integers, exponent: Integers, nan: Flags) -> _Sides:
    has_positive = ((codes > 0) & (codes < 8)).any(axis=1)
    has_negative = (codes > 8).any(axis=1)
    swapped = has_negative & ((exponent[:, 1] > exponent[:, 0]) | ~has_positive)
    ordered = _greater_first(exponent, swapped)
    return _Sides(
        swapped=swapped,
        lesser=(codes >= 8) ^ swapped[:, None],
        significand=_greater_first(significand, swapped),
        exponent=ordered[:, 0],
        distance=ordered[:, 0] - ordered[:, 1],
        nan=_any(nan),
    )


def _any(flags: Flags) -> Flags:
    return np.asarray(flags.any(axis=1))


def _greater_first(pair: Integers, swapped: Flags) -> Integers:
    return np.where(swapped[:, None], pair[:, ::-1], pair)


def _moved(lesser: Integers, distance: Integers, window: int) -> tuple[Integers, Flags]:
    """``lesser / 2**distance`` in units of ``2**-window``, 0 beyond the window; and whether nothing was lost.

    A distance below 0 belongs to a lesser term of 0.
    """
    near = distance <= window
    return np.where(near, lesser << np.clip(window - distance, 0, window), 0), near | (lesser == 0)


def leading_bits(v: Integers) -> tuple[Integers, Flags]:
    """What the accumulator takes of integers below 2**53: their `KEPT_BITS` leading bits, "rounded to odd".

    The last of them is 1 if any dropped bit was (lib_accumulate_negated), so that a block that starts a sum is still
    rounded correctly.

    Returns:
        The integers, and whether nothing was dropped.
    """
    magnitude = np.abs(v)
    bits = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    drop = np.maximum(bits - KEPT_BITS, 0)
    odd = magnitude & ((np.int64(1) << drop) - 1) != 0
    kept = ((magnitude >> drop) | odd) << drop
    return np.sign(v) * kept, ~odd


BLOCKS: Final[Mapping[str, Callable[[Codes, Codes, Codes, Codes], Blocks]]] = {
    "mxfp4": mxfp4_blocks,
    "nvfp4": nvfp4_blocks,
    "fp4_e5m2": fp4_e5m2_blocks,
    "amxfp4_four_trees": class_sum_blocks,
    "amxfp4_mean_difference": class_sum_blocks,
    "amxfp4_tagged": class_sum_blocks,
    "amxfp4_per_product": per_product_blocks,
    "amxfp4_synced": synced_blocks,
    "amxfp4_pot": pot_blocks,
}
"""Unit -> what its pairs of blocks are worth."""


def reference(unit: str, a: Codes, b: Codes, a_scale: Codes, b_scale: Codes, clear: Flags) -> npt.NDArray[np.uint32]:
    """What a unit answers to a sequence of pairs of blocks: float32 bits ``[clocks]``, one a clock.

    Args:
        unit: A key of `BLOCKS`.
        a: Codes, uint8 ``[clocks, 32]``.
        b: Codes, uint8 ``[clocks, 32]``.
        a_scale: Scale bytes, uint8 ``[clocks, s]``, s = 1 or 2, as in the packed format.
        b_scale: Scale bytes, uint8 ``[clocks, s]``.
        clear: bool ``[clocks]``: where a new sum starts.
    """
    return accumulate_fp32(BLOCKS[unit](a, b, a_scale, b_scale), clear)
