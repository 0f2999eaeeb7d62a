"""Golden vectors: inputs that find mistakes, and what a format makes of them, down to the integer sums of products.

Inputs come from a raw generator by integers and correctly rounded operations only, so that they have the same bits on
every machine and with every NumPy.
"""

from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mxcompile.errors import FormatError
from mxcompile.formats.amxint import AMXINT4
from mxcompile.formats.base import Float32, Format, Uint8, to_blocks
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E4M3
from mxcompile.formats.integer import AsymmetricInteger
from mxcompile.formats.nvfp4 import NVFP4, SMALLEST_SCALE, TENSOR_SCALE_GROUPS
from mxcompile.formats.packing import pack_codes
from mxcompile.formats.scales import FloatScale, PowerOfTwo

Int64 = npt.NDArray[np.int64]

INPUTS: Final = {
    "normal": "bell-shaped, variance 1",
    "heavy_tailed": "bell-shaped divided by uniform: outliers in every block",
    "shifted": "bell-shaped around 3",
    "one_signed": "rows of positive, of negative, and of positive elements",
    "ragged": "45 elements a row: an odd number, and a last block that is shorter",
    "short": "7 elements a row: less than a block",
    "powers_of_two": "every power of two that float32 has, of one sign and of both",
    "ties": "every value halfway between two elements with its float32 neighbours, at two scales or more",
    "scale_ties": "extremes where the scale (or the zero point) changes, with their float32 neighbours",
    "zeros": "an ordinary block, then one of 0, of -0, of both, and of both but for one element",
    "subnormals": "float32 subnormals and the smallest normal number",
    "huge": "up to the largest float32",
    "nonfinite": "an ordinary block, then one with NaN, Inf or both",
}
"""What each input is there for."""

DOT_INPUTS: Final = ("normal", "heavy_tailed", "shifted", "one_signed", "ragged", "powers_of_two")
"""The inputs between whose rows dot products are taken."""

_ROWS: Final = 3
_K: Final = 128
"""A multiple of every block size."""

_LARGEST: Final = np.finfo(np.float32).max
_TINIEST: Final = np.finfo(np.float32).smallest_subnormal

_WORD: Final = 1 << 32


class Factors(NamedTuple):
    """Rows as exact integers times scales.

    Attributes:
        integers: Python integers ``[rows, blocks, sides, block]``; an element is 0 on the side that it is not on.
        scales: float32 ``[rows, blocks, sides]``.
    """

    integers: npt.NDArray[np.object_]
    scales: Float32


def inputs(fmt: Format) -> dict[str, Float32]:
    """The inputs for one format, float32 ``[rows, k]``, by the names of `INPUTS`."""
    signs = np.array([[1], [-1], [1]], np.float32)
    return {
        "normal": _bell(1, _ROWS, _K),
        "heavy_tailed": _bell(2, _ROWS, _K) / _uniform(3, _ROWS, _K),
        "shifted": _bell(4, _ROWS, _K) + np.float32(3),
        "one_signed": signs * np.abs(_bell(5, _ROWS, _K)),
        "ragged": _bell(6, _ROWS, 45),
        "short": _bell(7, _ROWS, 7),
        "powers_of_two": _powers_of_two(),
        "ties": _ties(fmt),
        "scale_ties": _scale_ties(fmt),
        "zeros": _zeros(fmt.block_size or 32),
        "subnormals": _subnormals(fmt.block_size or 32),
        "huge": _huge(fmt.block_size or 32),
        "nonfinite": _nonfinite(fmt.block_size or 32),
    }


def _uint16(seed: int, *shape: int) -> npt.NDArray[np.uint16]:
    raw = np.random.PCG64(seed).random_raw(-(-int(np.prod(shape)) // 4))
    return raw.astype("<u8").view("<u2")[: np.prod(shape)].reshape(shape)


def _uniform(seed: int, *shape: int) -> Float32:
    """Above 0, up to 1."""
    return (_uint16(seed, *shape).astype(np.float32) + np.float32(1)) / np.float32(1 << 16)


def _bell(seed: int, *shape: int) -> Float32:
    """Sums of twelve uniform numbers, which have variance 1; every step is exact in float32."""
    total = _uint16(seed, *shape, 12).sum(axis=-1, dtype=np.int64) - 6 * 0xFFFF
    bell: Float32 = total.astype(np.float32) / np.float32(1 << 16)
    return bell


def _powers_of_two() -> Float32:
    powers = np.ldexp(np.float32(1), np.arange(-149, 128))
    signs = np.where(np.arange(len(powers)) % 2, -1, 1)
    return np.stack([powers, powers[::-1] * signs]).astype(np.float32)


def _zeros(block: int) -> Float32:
    x = np.zeros((5, 2 * block), np.float32)
    x[:, :block] = _bell(8, 5, block)
    x[1, block:] = x[2, block::2] = x[4, block:] = -0.0
    x[3, block + 3], x[4, block + 5] = 1, -1
    return x


def _subnormals(block: int) -> Float32:
    tiny = np.finfo(np.float32).tiny
    signs = np.where(np.arange(block) % 2, -1, 1)
    wide = np.ldexp(_bell(9, block), -140)
    rows = [np.full(block, _TINIEST), signs * _TINIEST, wide, signs * (tiny - _TINIEST), np.full(block, -tiny)]
    return np.stack(rows).astype(np.float32)


def _huge(block: int) -> Float32:
    signs = np.where(np.arange(block) % 2, -1, 1)
    one = _bell(10, block)
    one[block // 2] = _LARGEST
    return np.stack([np.full(block, _LARGEST), signs * _LARGEST, one, _bell(11, block) * 2.0**125]).astype(np.float32)


def _nonfinite(block: int) -> Float32:
    x = _bell(12, 6, 2 * block)
    x[0, block], x[1, -1], x[2, block + 1], x[3, -2] = np.nan, np.nan, np.inf, -np.inf
    x[4, block : block + 3] = np.nan, np.inf, -np.inf
    x[5, block:] = np.nan
    return x


def _ties(fmt: Format) -> Float32:
    """Rows of one block; its ends make the scale exactly what it is meant to be."""
    points, low, high = _midpoints(fmt)
    width = fmt.block_size or 64
    missing = -len(points) * 3 % (width - 2)
    rows = []
    for positive, negative in _tie_scales(fmt):
        side = np.where(points > 0, positive, negative).astype(np.float32)
        exact = points * side
        near = np.stack([exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact, np.float32(-np.inf))])
        inner = np.pad(near.T.reshape(-1), (0, missing)).reshape(-1, width - 2)
        ends = np.broadcast_to(np.array([low * negative, high * positive], np.float32), (len(inner), 2))
        rows.append(np.concatenate([ends, inner], axis=1))
    return _anchored(fmt, np.concatenate(rows))


def _midpoints(fmt: Format) -> tuple[Float32, float, float]:
    """Where the code of an element changes at scale 1, and the extremes that make the scale 1."""
    if isinstance(fmt, (BlockScaled, NVFP4)):
        halves = fmt.element.thresholds()
        return np.concatenate([-halves[::-1], halves]), -fmt.element.maximum, fmt.element.maximum
    low, high = (-8, 7) if isinstance(fmt, AMXINT4) else (-(_top(fmt) // 2), _top(fmt) - _top(fmt) // 2)
    points = np.arange(low, high) + 0.5
    if isinstance(fmt, AsymmetricInteger) and fmt.half_steps:
        points = np.concatenate([points, [-0.75, -0.25, 0.25, 0.75]])
    return points.astype(np.float32), low, high


def _top(fmt: Format) -> int:
    return fmt.top if isinstance(fmt, AsymmetricInteger) else 15


def _tie_scales(fmt: Format) -> list[tuple[float, float]]:
    """Scales of the positive and the negative elements.

    Where the type allows they are not only powers of two, because a product with the reciprocal is wrong for others.
    """
    if isinstance(fmt, NVFP4):
        return [(scale, scale) for scale in (1, 0.3125, 1.375, 1.75, 7.5)]
    if isinstance(fmt, BlockScaled) and fmt.asymmetric:
        others = [(0.3125, 7), (0.046875, 80), (56, 0.75)] if isinstance(fmt.scale, FloatScale) else [(0.25, 8)]
        return [(1, 1), *others]
    return [(1, 1), (0.0625, 0.0625)]


def _scale_ties(fmt: Format) -> Float32:
    """Rows of four elements, of which the first two are the extremes."""
    low, high = _scale_thresholds(fmt)
    rows = []
    for direction in (0, np.inf, -np.inf):
        lo, hi = (np.nextafter(side, np.float32(direction)) if direction else side for side in (low, high))
        rows.append(np.stack([hi, lo, np.float32(0.375) * hi, np.float32(0.7) * lo], axis=1))
    return _anchored(fmt, np.concatenate(rows))


def _scale_thresholds(fmt: Format) -> tuple[Float32, Float32]:
    """Negative and positive extremes, float32 ``[n]`` each."""
    if isinstance(fmt, (BlockScaled, NVFP4)):
        asymmetric = isinstance(fmt, BlockScaled) and fmt.asymmetric
        if isinstance(fmt, BlockScaled) and isinstance(fmt.scale, PowerOfTwo):
            high = fmt.scale.thresholds[::8]
        else:
            kind = fmt.scale.type if isinstance(fmt, BlockScaled) and isinstance(fmt.scale, FloatScale) else E4M3
            halves = kind.thresholds()
            high = (halves if asymmetric else halves[halves > SMALLEST_SCALE]) * np.float32(fmt.element.maximum)
        return (-high[::-1] if asymmetric else -high / np.float32(2)), high
    top = _top(fmt)
    low = -(np.arange(0, top, max(1, top // 32)) + 0.5).astype(np.float32)
    return low, low + np.float32(top)


def _anchored(fmt: Format, rows: Float32) -> Float32:
    """Where the scales depend on the whole tensor, adds the row that makes the tensor's scale 1."""
    if not isinstance(fmt, NVFP4):
        return rows
    row = np.zeros((1, rows.shape[1]), np.float32)
    row[0, 0] = fmt.element.maximum * E4M3.maximum
    return np.concatenate([rows, row])


def outputs(fmt: Format, x: Float32) -> dict[str, npt.NDArray[Any]]:
    """What the format makes of rows, float32 ``[rows, k]``: ``codes``, ``packed``, ``scales`` and ``decoded``."""
    codes, scales = fmt.encode_rows(x)
    return {
        "codes": codes,
        "packed": pack_codes(codes, fmt.element.bits),
        "scales": scales,
        "decoded": fmt.decode_rows(codes, scales),
    }


def pairs(rows: int) -> tuple[Int64, Int64]:
    """The rows a and w of the dot products: every pair of rows once, each row with itself too."""
    a, w = np.triu_indices(rows)
    return a.astype(np.int64), w.astype(np.int64)


def dots(fmt: Format, codes: Uint8, scales: Uint8, a: Int64, w: Int64) -> tuple[Int64, npt.NDArray[np.float64]]:
    """Dot products between rows.

    Args:
        fmt: The format.
        codes: uint8 ``[rows, k]``, one an element.
        scales: uint8 ``[rows, groups, s]``.
        a: Rows of the left operands, ``[pairs]``.
        w: Rows of the right operands, ``[pairs]``.

    Returns:
        The sums of integer products, int64 ``[pairs, blocks, sums * words]`` (see `sum_words`), and the dot products,
        float64 ``[pairs]``: sums times scales, computed exactly and rounded once. NaN where a scale is.

    Raises:
        FormatError: A sum does not fit in 63 bits; only amxint4 far away from 0 has such sums.
    """
    rows = factors(fmt, codes, scales)
    products = rows.integers[a][:, :, :, None] * rows.integers[w][:, :, None]
    sums = products.sum(axis=-1).reshape(len(a), products.shape[1], -1)
    weights = rows.scales[a].astype(np.float64)[..., None] * rows.scales[w].astype(np.float64)[:, :, None]
    weights = weights.reshape(sums.shape) * unit(fmt) ** 2  # products of two float32 are exact in float64
    dot = np.array([_exact_dot(*pair) for pair in zip(sums.reshape(len(a), -1), weights, strict=True)], np.float64)
    if sum_words(fmt) == 2:
        sums = np.stack([sums // _WORD, sums % _WORD], axis=-1).reshape(len(a), sums.shape[1], -1)
    try:
        return sums.astype(np.int64), dot
    except OverflowError as error:
        raise FormatError(
            f"{fmt.name}: sums of integer products do not fit in int64; use values nearer to 0"
        ) from error


def _exact_dot(sums: npt.NDArray[np.object_], weights: npt.NDArray[np.float64]) -> float:
    if not np.isfinite(weights).all():
        return float("nan")
    exact = Fraction(0)
    for weight, total in zip(weights.flat, sums.tolist(), strict=True):
        exact += Fraction(weight) * total
    return float(exact)


def sum_words(fmt: Format) -> int:
    """int64 words that a sum takes: two, ``high * 2**32 + low``, if a block's sum may need more than 63 bits."""
    if not isinstance(fmt, BlockScaled):
        return 1
    largest = int(fmt.element.maximum / fmt.element.values[1])
    return 1 if fmt.block_size * largest**2 < 1 << 63 else 2


def unit(fmt: Format) -> float:
    """What the integer 1 of `factors` is worth at scale 1: the smallest step between elements."""
    if isinstance(fmt, AsymmetricInteger):
        return 0.5 if fmt.half_steps else 1.0
    return fmt.element.values[1]


def factors(fmt: Format, codes: Uint8, scales: Uint8) -> Factors:
    """Rows as exact integers times scales.

    Args:
        fmt: The format.
        codes: uint8 ``[rows, k]``.
        scales: uint8 ``[rows, groups, s]``.

    Raises:
        FormatError: A kind of format that this function does not know.
    """
    if isinstance(fmt, BlockScaled):
        values = fmt.scale.decode_table[scales]
        numbers = fmt.element.decode_table[codes]
    elif isinstance(fmt, NVFP4):
        tensor = _float32(scales[:, :TENSOR_SCALE_GROUPS, 0])
        values = tensor[..., None] * E4M3.decode_table[scales[:, TENSOR_SCALE_GROUPS:]]
        numbers = fmt.element.decode_table[codes]
    elif isinstance(fmt, (AsymmetricInteger, AMXINT4)):
        values = _float32(scales[..., :4])
        unscaled = scales.copy()
        unscaled[..., :4] = np.array([1], "<f4").view(np.uint8)
        numbers = fmt.decode_rows(codes, unscaled)
    else:
        raise FormatError(f"{fmt.name}: dot products of {type(fmt).__name__} are not defined")
    numbers = to_blocks(numbers / np.float32(unit(fmt)), fmt.block_size)[:, :, None]
    blocks = np.array([int(number) for number in numbers.flat], object).reshape(numbers.shape)
    if values.shape[-1] == 2:
        blocks = np.concatenate([np.where(blocks > 0, blocks, 0), np.where(blocks < 0, blocks, 0)], axis=2)
    return Factors(blocks, values)


def _float32(data: Uint8) -> Float32:
    """Little-endian bytes along the last axis."""
    return np.ascontiguousarray(data).view("<f4").astype(np.float32)
