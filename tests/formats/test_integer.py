"""Integers and dINT: codes, half steps, zero points."""

import numpy as np
import pytest

from mxcompile.formats import FORMATS, get_format
from mxcompile.formats.packing import unpack_codes

INTEGERS = ["int8", "int4", "dint4", "dint3"]
names = pytest.mark.parametrize("name", INTEGERS)


def parts(name: str, x: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Codes, scale and zero point of one row."""
    fmt = get_format(name)
    packed = fmt.quantize(x)
    scale = packed.scales[0, :4].view("<f4").item()
    return unpack_codes(packed.codes, packed.size, fmt.element.bits), scale, int(packed.scales[0, 4])


@pytest.mark.parametrize(("name", "top"), [("int8", 255), ("int4", 15), ("dint4", 13), ("dint3", 5)])
def test_the_extremes_have_the_first_and_the_last_code(name: str, top: int):
    codes, scale, zero = parts(name, np.array([-2, 0, 8, 1], np.float32))
    assert scale == np.float32(10) / np.float32(top)
    assert (codes[0], codes[1], codes[2]) == (0, zero, top)


@names
def test_every_code_decodes_to_its_step(name: str):
    fmt = get_format(name)
    # A row whose range is exactly 0..top steps of 1, shifted so that zero is at code 2.
    ends = np.array([-2, fmt.top - 2], np.float32)
    x = np.concatenate([ends, np.arange(fmt.top + 1, dtype=np.float32) - 2])
    codes, scale, zero = parts(name, x)
    assert (scale, zero) == (1, 2)
    assert codes[2:].tolist() == list(range(fmt.top + 1))
    np.testing.assert_array_equal(fmt.fake_quantize(x), x)


@pytest.mark.parametrize(("name", "c1", "c2"), [("dint4", 14, 15), ("dint3", 6, 7)])
def test_half_steps_have_codes_of_their_own_without_zero_point(name: str, c1: int, c2: int):
    fmt = get_format(name)
    edges = np.float32([0.25, 0.75])
    above, below = np.nextafter(edges, np.float32(9)), np.nextafter(edges, np.float32(0))
    inside = np.float32([above[0], 0.5, edges[1]])
    outside = np.float32([0, edges[0], below[0], above[1]])
    ends = np.array([-2, fmt.top - 2], np.float32)
    x = np.concatenate([ends, inside, -np.float32([0.5, 0.75]), -above[:1], outside])
    codes, scale, zero = parts(name, x)
    assert (scale, zero) == (1, 2)
    assert codes[2:8].tolist() == [c1, c1, c1, c2, c2, c2]
    assert codes[8:].tolist() == [2, 2, 2, 3]
    np.testing.assert_array_equal(fmt.fake_quantize(x)[2:8], [0.5, 0.5, 0.5, -0.5, -0.5, -0.5])


@names
def test_one_signed_rows_reach_to_zero(name: str):
    for sign in (1, -1):
        codes, scale, zero = parts(name, sign * np.array([5, 10], np.float32))
        assert scale == np.float32(10) / np.float32(get_format(name).top)
        assert zero == (0 if sign > 0 else get_format(name).top)
        assert codes[1] == get_format(name).top - zero


@names
def test_a_row_of_zeros_has_scale_one(name: str):
    _, scale, zero = parts(name, np.zeros(5, np.float32))
    assert (scale, zero) == (1, 0)


@names
def test_ranges_above_float32s_do_not_overflow(name: str):
    x = np.array([-3e38, 3e38], np.float32)
    x_hat = get_format(name).fake_quantize(x)
    assert np.isfinite(x_hat).all()
    assert (np.abs(x_hat - x) <= 3e38 / get_format(name).top * 2).all()


@names
def test_the_error_is_at_most_half_a_step(name: str):
    fmt = get_format(name)
    x = np.random.default_rng(0).standard_normal((64, 300)).astype(np.float32)
    scale = fmt.quantize(x).scales[:, 0, :4].copy().view("<f4")
    # The ends may lose another half step to the rounding of the zero point.
    assert (np.abs(fmt.fake_quantize(x) - x) <= 1.0001 * scale).all()
    middle = np.abs(x) < 2 * scale
    assert (np.abs(fmt.fake_quantize(x) - x)[middle] <= (0.5001 * np.broadcast_to(scale, x.shape))[middle]).all()


def test_half_steps_keep_small_weights_from_vanishing():
    x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    zeros = {name: (get_format(name).fake_quantize(x) == 0).mean() for name in ("int4", "dint4")}
    assert zeros["dint4"] < 0.7 * zeros["int4"]


def test_groups_have_scales_of_their_own():
    x = np.concatenate([np.full(128, 100), np.full(100, 1)]).astype(np.float32)
    packed = get_format("dint4_b128").quantize(x)
    assert packed.scales.shape == (2, 5)
    np.testing.assert_allclose(get_format("dint4_b128").dequantize(packed), x, rtol=2**-22)
    assert get_format("dint4").fake_quantize(x)[-1] == 0


def test_integer_weights_go_with_int8_activations():
    assert {name: fmt.paired_activations for name, fmt in FORMATS.items() if name in INTEGERS} == dict.fromkeys(
        INTEGERS, "int8"
    )
