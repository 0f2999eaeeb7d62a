"""MXFP4 against the emulator's vectors, and its edges one by one."""

import numpy as np
import pytest

from mxcompile.formats import get_format
from mxcompile.formats.elements import E2M1, E2M3, E3M2, E4M3, E5M2, INT8, Element
from mxcompile.formats.scales import PowerOfTwo, ScaleRule

MXFP4 = get_format("mxfp4")


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


@pytest.mark.parametrize("element", [E2M1, E2M3, E3M2, E4M3, E5M2, INT8], ids=lambda element: element.name)
@pytest.mark.parametrize("rule", ScaleRule)
def test_scale_rules_are_their_formulas(element: Element, rule: ScaleRule):
    rng = np.random.default_rng(0)
    exponents = rng.integers(-140, 128, 20_000)
    amax = np.ldexp(rng.choice([1, 1.25, 1.5, 1.75, 1.9375, 1.96875, 1.998, rng.uniform(1, 2)], 20_000), exponents)
    amax = np.concatenate([amax, np.ldexp(rng.uniform(1, 2, 20_000), exponents)]).astype(np.float32)
    amax = amax[np.isfinite(amax) & (amax > 0)]
    emax = int(np.floor(np.log2(element.maximum)))
    mantissa_bits = {"E2M1": 1, "E2M3": 3, "E3M2": 2, "E4M3": 3, "E5M2": 2, "INT8": 6}[element.name]
    significand, exponent = np.frexp(amax.astype(np.float64))  # significand in [0.5, 1)
    significand, exponent = 2 * significand, exponent - 1
    if rule is ScaleRule.FLOOR:
        expected = exponent - emax
    elif rule is ScaleRule.EVEN:
        expected = exponent - emax + (significand >= 2 - 2.0 ** -(mantissa_bits + 1))
    elif rule is ScaleRule.CEIL:
        expected = exponent - emax + (significand > 1)
    else:
        quotient, exponent = np.frexp((amax / np.float32(element.maximum)).astype(np.float64))
        expected = np.where(quotient == 0, -127, exponent - (quotient == 0.5))
    codes = PowerOfTwo(element, rule).encode(amax)
    np.testing.assert_array_equal(codes, np.clip(expected + 127, 0, 254))


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
