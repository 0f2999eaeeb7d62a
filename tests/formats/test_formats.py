"""What every block format promises: names, shapes, special values, and laws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mxcompile.errors import FormatError
from mxcompile.formats import FORMATS, BlockTensor, get_format
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.packing import packed_size, unpack_codes

SIZED = [name for base, fmt in FORMATS.items() for name in (base, *(f"{base}_b{n}" for n in fmt.block_sizes if n))]
SIZED = [name for name in SIZED if name == get_format(name).name]  # the default block size has no suffix
BLOCK_SCALED = [name for name in SIZED if isinstance(get_format(name), BlockScaled)]
names = pytest.mark.parametrize("name", SIZED)
block_scaled = pytest.mark.parametrize("name", BLOCK_SCALED)
finite = st.floats(-(2.0**126), 2.0**126, width=32)  # scales that round up may decode above float32 beyond
# Within this range no scale saturates or becomes subnormal, in any format, also after a step of 2**8 either way.
moderate = st.floats(2.0**-3, 2.0**4, width=32) | st.floats(-(2.0**4), -(2.0**-3), width=32) | st.just(0.0)


def rows(elements: st.SearchStrategy[float], size: int = 70) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float32, st.integers(1, size), elements=elements)


def test_every_format_is_listed_under_its_own_name():
    assert all(fmt.name == name for name, fmt in FORMATS.items())


def test_block_sizes_are_part_of_the_name():
    assert get_format("amxfp4_b16").block_size == 16
    assert get_format("amxfp4_b16").name == "amxfp4_b16"
    assert get_format("amxfp4_b32") == get_format("amxfp4")


@pytest.mark.parametrize("name", ["fp4", "", "amxfp4_b", "amxfp4_bx", "AMXFP4", "none", "_b16"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(FormatError, match=r"unknown format .*known are amxfp4, .*mxfp4, .*int8 "):
        get_format(name)


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        *((name, "16, 32, 64") for name in ("amxfp4_b8", "mxfp4_b0", "mxfp4_b016", "amxfp4_pot_b128")),
        ("nvfp4_b32", "16"),
        ("dint4_b16", "whole rows, 32, 64, 128"),
    ],
)
def test_an_impossible_block_size_lists_the_possible_ones(name: str, possible: str):
    with pytest.raises(FormatError, match=f"block size .* is not possible, .* has {possible}"):
        get_format(name)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("amxfp4", 4.5),
        ("mxfp4", 4.25),
        ("amxfp4_b16", 5.0),
        ("mxfp4_b64", 4.125),
        ("mxfp6_e2m3", 6.25),
        ("mxint8", 8.25),
    ],
)
def test_bits_per_element_are_those_stored(name: str, bits: float):
    fmt = get_format(name)
    assert fmt.bits_per_element == bits
    assert fmt.quantize(np.ones((3, 256), np.float32)).nbytes * 8 == 3 * 256 * bits


@names
@pytest.mark.parametrize(
    ("shape", "axis"), [((70,), 0), ((3, 5, 100), -1), ((3, 70, 4), 1), ((33, 2), 0), ((2, 64), 1)]
)
def test_shapes_follow_the_contract_on_every_axis(name: str, shape: tuple[int, ...], axis: int):
    fmt = get_format(name)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packed = fmt.quantize(x, axis=axis)
    where = axis % x.ndim
    k = shape[where]
    assert packed.codes.shape == (*shape[:where], packed_size(k, fmt.element.bits), *shape[where + 1 :])
    groups = fmt.scale_groups(k)
    assert packed.scales.shape == (*shape[:where], groups, *shape[where + 1 :], fmt.scales_per_block)
    along_last = fmt.fake_quantize(np.moveaxis(x, where, -1))
    np.testing.assert_array_equal(fmt.dequantize(packed), np.moveaxis(along_last, -1, where))


@block_scaled
@pytest.mark.parametrize("tail", range(1, 32))
def test_a_ragged_last_block_is_a_block_of_its_own(name: str, tail: int):
    fmt = get_format(name)
    x = np.random.default_rng(tail).standard_normal(64 + tail).astype(np.float32)
    alone = np.concatenate(
        [fmt.fake_quantize(part) for part in np.split(x, range(fmt.block_size, x.size, fmt.block_size))]
    )
    np.testing.assert_array_equal(fmt.fake_quantize(x), alone)


@names
@pytest.mark.parametrize("shape", [(0,), (0, 64), (3, 0), (2, 0, 5)])
def test_empty_tensors_stay_empty(name: str, shape: tuple[int, ...]):
    assert get_format(name).fake_quantize(np.zeros(shape, np.float32)).shape == shape


@names
def test_float16_is_widened_exactly(name: str):
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float16)
    fmt = get_format(name)
    np.testing.assert_array_equal(fmt.fake_quantize(x), fmt.fake_quantize(x.astype(np.float32)))


@block_scaled
def test_zeros_and_negative_zeros_have_code_zero(name: str):
    fmt = get_format(name)
    packed = fmt.quantize(np.array([-0.0, 0.0, -0.0, 1e-12, -1e-12, 6.0, -6.0], np.float32))
    codes = unpack_codes(packed.codes, packed.size, fmt.element.bits)
    assert codes[:5].tolist() == [0] * 5
    assert (codes[5:] > 0).all()


@names
def test_zero_decodes_to_zero_wherever_it_stands(name: str):
    x = np.random.default_rng(0).standard_normal((4, 150)).astype(np.float32)
    x[:, ::7] = 0
    assert (get_format(name).fake_quantize(x)[:, ::7] == 0).all() or name.startswith("amxint4")


@names
def test_an_all_zero_block_decodes_to_zero(name: str):
    x_hat = get_format(name).fake_quantize(np.zeros(64, np.float32))
    assert (x_hat == 0).all()
    assert not np.signbit(x_hat).any()


@names
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_one_non_finite_element_makes_its_block_nan_and_no_other(name: str, special: float, dtype: type):
    fmt = get_format(name)
    block = fmt.block_size or 40
    x = np.random.default_rng(0).standard_normal((2, 3 * block)).astype(dtype)
    x[:, 0] = 8  # the tensor's largest element stays where it is
    expected = fmt.fake_quantize(x)
    bad = slice(block, 2 * block) if fmt.block_size else slice(None)
    x[1, block + 3] = special
    expected[1, bad] = np.nan
    packed = fmt.quantize(x)
    np.testing.assert_array_equal(fmt.dequantize(packed), expected)
    assert (unpack_codes(packed.codes, packed.size, fmt.element.bits)[1, bad] == 0).all()


@block_scaled
@given(x=rows(moderate))
@settings(deadline=None, max_examples=60)
def test_quantizing_twice_changes_nothing_more(name: str, x: np.ndarray):
    # True wherever the scale of the largest element comes out the same again, which rounding to a subnormal E5M2
    # scale can spoil.
    once = get_format(name).fake_quantize(x)
    np.testing.assert_array_equal(get_format(name).fake_quantize(once), once)


@pytest.mark.parametrize("name", [name for name in SIZED if not name.startswith("amxint4")])  # a range of 0 has scale 1
@given(x=rows(moderate), power=st.integers(-8, 8))
@settings(deadline=None, max_examples=60)
def test_scaling_by_a_power_of_two_commutes(name: str, x: np.ndarray, power: int):
    if name.startswith("amxfp4_e4m3"):  # its scales reach from 2**-6 to 480 only
        power %= 8
    fmt, factor = get_format(name), np.float32(2.0**power)
    np.testing.assert_array_equal(fmt.fake_quantize(x * factor), fmt.fake_quantize(x) * factor)


@names
@given(x=rows(finite, 64))
@settings(deadline=None, max_examples=60)
def test_order_is_kept_within_a_block(name: str, x: np.ndarray):
    fmt = get_format(name)
    block = x[: fmt.block_size or None]
    decoded = fmt.fake_quantize(block)[np.argsort(block, kind="stable")]
    assert (np.diff(decoded) >= 0).all()


@names
def test_random_codes_and_scales_never_fail_to_decode(name: str):
    fmt, rng = get_format(name), np.random.default_rng(0)
    packed = BlockTensor(
        codes=rng.integers(0, 256, (9, packed_size(256, fmt.element.bits)), np.uint8),
        scales=rng.integers(0, 256, (9, fmt.scale_groups(256), fmt.scales_per_block), np.uint8),
        size=256,
        axis=1,
    )
    assert fmt.dequantize(packed).shape == (9, 256)


def test_a_packed_tensor_may_count_its_axis_from_the_end():
    fmt = get_format("mxfp4")
    packed = fmt.quantize(np.ones((3, 64, 2), np.float32), axis=1)
    np.testing.assert_array_equal(fmt.dequantize(dataclasses.replace(packed, axis=-2)), fmt.dequantize(packed))


def test_other_dtypes_are_refused_by_name():
    with pytest.raises(FormatError, match="amxfp4: input is float64; float32 and float16"):
        get_format("amxfp4").quantize(np.zeros(4))


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_out_of_range_is_refused(axis: int):
    with pytest.raises(FormatError, match=f"axis {axis} is out of range for a tensor of rank 2"):
        get_format("mxfp4").quantize(np.zeros((2, 3), np.float32), axis=axis)


@pytest.mark.parametrize(("codes", "scales"), [((2, 16), (2, 1, 2)), ((2, 32), (2, 2, 1)), ((2, 32), (2, 3, 2))])
def test_codes_and_scales_that_do_not_belong_together_are_refused(codes: tuple[int, ...], scales: tuple[int, ...]):
    tensor = BlockTensor(np.zeros(codes, np.uint8), np.zeros(scales, np.uint8), size=64, axis=1)
    with pytest.raises(FormatError, match=r"do not fit 64 elements along axis 1: expected \[2, 32\] and \[2, 2, 2\]"):
        get_format("amxfp4").dequantize(tensor)
