"""Values in units of their scales: what is rounded, what it is rounded to, and the way back, in every format."""

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from mxcompile.formats import FORMATS, Format, get_format
from mxcompile.formats.amxint import AMXINT4
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.integer import AsymmetricInteger
from mxcompile.formats.nvfp4 import NVFP4

Float32 = npt.NDArray[np.float32]

K = 70
"""No multiple of a block."""

NAMES = [*FORMATS, "amxfp4_b16", "mxfp4_b64", "dint4_b32"]
SHIFTED = 2.0**-20
"""amxint4 rounds ``x / s + shift``, a float32 sum below 16 in magnitude: half of its last bit is 2**-21, and so much
again may a tie be off by the division."""


def rows() -> Float32:
    """Both signs, one sign, outliers, zeros, and a row of one value."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((8, K)).astype(np.float32)
    x[1] = np.abs(x[1])
    x[2] = -np.abs(x[2])
    x[3, ::17] *= 50
    x[4] = 0
    x[5, :40] = 0
    x[6] = 1.5
    x[7] = np.round(x[7] * 4) / 4  # many ties
    return x


def element_scales(fmt: Format, x: Float32, scales: npt.NDArray[np.uint8]) -> Float32:
    """The scale of every element, read from the bytes by other means than the format's."""
    blocks = -(-K // (fmt.block_size or K))
    if isinstance(fmt, NVFP4):
        tensor = np.ascontiguousarray(scales[..., :4, 0]).view("<f4")
        found = tensor * np.ascontiguousarray(scales[..., 4:, 0]).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    elif isinstance(fmt, BlockScaled):
        found = byte_values(fmt.scale.name, scales)
    else:
        found = np.ascontiguousarray(scales[..., :4]).view("<f4")[..., 0]
    if isinstance(fmt, BlockScaled) and fmt.asymmetric:
        wide = np.repeat(found, fmt.block_size, axis=-2)[..., :K, :]
        return np.where(x > 0, wide[..., 0], wide[..., 1])
    found = found.reshape(len(x), blocks)
    return np.repeat(found, fmt.block_size or K, axis=-1)[..., :K]


def byte_values(name: str, scales: npt.NDArray[np.uint8]) -> Float32:
    if name == "E5M2":
        return np.ascontiguousarray(scales).view(ml_dtypes.float8_e5m2).astype(np.float32)
    if name == "E8M0":
        return np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    return np.ascontiguousarray(scales).view(ml_dtypes.float8_e4m3fn).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_units_are_elements_over_their_scales(name: str) -> None:
    fmt, x = get_format(name), rows()
    _, scales = fmt.encode_rows(x)
    scale = element_scales(fmt, x, scales)
    expected = np.divide(x, scale, out=np.zeros_like(x), where=scale != 0)
    assert np.array_equal(fmt.row_units(x, scales), expected)


@pytest.mark.parametrize("name", NAMES)
def test_codes_in_units_times_their_scales_are_the_decoded_values_bit_for_bit(name: str) -> None:
    fmt, x = get_format(name), rows()
    codes, scales = fmt.encode_rows(x)
    found = fmt.code_units(codes, scales) * element_scales(fmt, x, scales)
    assert np.array_equal(found, fmt.fake_quantize(x))


@pytest.mark.parametrize("name", NAMES)
def test_codes_stand_for_the_nearest_levels(name: str) -> None:
    fmt, x = get_format(name), rows()
    codes, scales = fmt.encode_rows(x)
    units, found = fmt.row_units(x, scales).astype(np.float64), fmt.code_units(codes, scales)
    assert np.isin(found, fmt.levels).all()
    if isinstance(
        fmt, AsymmetricInteger
    ):  # A row has some of the levels: those between its least and its largest code.
        least = -np.repeat(scales[..., 4].astype(np.float64), fmt.block_size or K, axis=-1)[..., :K]
        possible = (fmt.levels >= least[..., None]) & (fmt.levels <= least[..., None] + fmt.top)
        possible |= np.abs(fmt.levels) == 0.5
    else:
        possible = np.ones((*x.shape, len(fmt.levels)), np.bool_)
    distances = np.where(possible, np.abs(units[..., None] - fmt.levels), np.inf).min(axis=-1)
    allowed = SHIFTED if isinstance(fmt, AMXINT4) else 0
    assert (np.abs(units - found) <= distances + allowed).all()


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_ascending_and_symmetric(name: str) -> None:
    levels = get_format(name).levels
    assert levels.dtype == np.float32
    assert (np.diff(levels) > 0).all()
    assert np.array_equal(levels, -levels[::-1])


def test_levels_of_four_bits() -> None:
    e2m1 = [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]
    for name in ("amxfp4", "mxfp4", "nvfp4"):
        assert get_format(name).levels.tolist() == e2m1
    assert get_format("dint3").levels.tolist() == [-5, -4, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 4, 5]
    assert get_format("int4").levels.tolist() == [*range(-15, 16)]
    assert get_format("amxint4").levels.tolist() == [*range(-15, 16)]


def test_the_scale_is_that_of_the_sign() -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, :2] = 12, -3
    fmt = get_format("amxfp4")
    codes, scales = fmt.encode_rows(x)
    assert fmt.row_units(x, scales)[0, :3].tolist() == [6, -6, 0]
    assert fmt.code_units(codes, scales)[0, :3].tolist() == [6, -6, 0]


def test_a_scale_of_zero_has_no_units() -> None:
    x = np.full((1, 32), 1e-6, np.float32)  # a scale of 1.7e-7, below half of E5M2's least value
    fmt = get_format("amxfp4")
    _, scales = fmt.encode_rows(x)
    assert fmt.row_units(x, scales).tolist() == [[0.0] * 32]


def test_the_scale_of_the_tensor_counts() -> None:
    x = np.full((1, 16), 6 * 2.0**-8, np.float32)
    fmt = get_format("nvfp4").for_tensor(6 * 448)  # a tensor scale of 1; the block's is clamped to 2**-6
    _, scales = fmt.encode_rows(x)
    assert fmt.row_units(x, scales).tolist() == [[1.5] * 16]
