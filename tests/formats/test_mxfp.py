"""MXFP4 against the emulator's vectors, and its edges one by one."""

from pathlib import Path

import numpy as np
import pytest

from mxcompile.formats import get_format
from mxcompile.formats.mxfp import floor_thresholds

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = np.load(GOLDEN / "inputs.npz")
DECODED = np.load(GOLDEN / "golden_fp4_e2m1_m0.npz")
MXFP4 = get_format("mxfp4")


@pytest.mark.parametrize("key", [key for key in DECODED.files if key.endswith("__nearest")])
def test_decoded_values_equal_the_emulator(key: str):
    name, block, _ = key.rsplit("__", 2)
    np.testing.assert_array_equal(get_format(f"mxfp4_{block}").fake_quantize(INPUTS[name]), DECODED[key])


def scale(*elements: float) -> int:
    return MXFP4.quantize(np.array(elements, np.float32)).scales.item()


@pytest.mark.parametrize("exponent", range(-149, 128))
def test_the_scale_is_the_floor_of_the_largest_exponent_less_two(exponent: int):
    smallest = np.float32(2.0**exponent)
    expected = max(exponent - 2 + 127, 0)
    assert scale(smallest) == expected
    if exponent >= -126:
        assert (
            scale(-np.nextafter(smallest * 2, np.float32(0), dtype=np.float32) if exponent < 127 else -3e38) == expected
        )


def test_there_is_a_threshold_for_every_scale_that_a_float32_can_need():
    assert len(floor_thresholds(2)) == 252
    assert floor_thresholds(2)[0] == 2.0**-124
    assert floor_thresholds(2)[-1] == 2.0**127


def test_an_all_zero_block_has_scale_byte_zero():
    assert scale(0.0, -0.0) == 0


def test_elements_above_six_scales_saturate():
    np.testing.assert_array_equal(MXFP4.fake_quantize(np.array([7.99, -7.99, 5], np.float32)), [6, -6, 6])


def test_elements_round_ties_away_from_zero():
    x = np.array([4, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -2.5], np.float32)
    np.testing.assert_array_equal(MXFP4.fake_quantize(x), [4, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -3])


def test_subnormal_results_are_exact():
    x = np.array([2.0**-126, 2.0**-128, -(2.0**-127)], np.float32)
    np.testing.assert_array_equal(MXFP4.fake_quantize(x), x)
