"""AMXFP4 against the authors' emulator, and its edges one by one."""

from pathlib import Path

import numpy as np
import pytest

from mxcompile.formats import get_format
from mxcompile.formats.packing import unpack_codes

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = np.load(GOLDEN / "inputs.npz")
ENCODED = np.load(GOLDEN / "encoded_amxfp4_b32.npz")
AMXFP4 = get_format("amxfp4")


@pytest.mark.parametrize("name", INPUTS.files)
def test_codes_and_scale_bytes_equal_the_authors_emulator(name: str):
    packed = AMXFP4.quantize(INPUTS[name])
    np.testing.assert_array_equal(unpack_codes(packed.codes, packed.size, 4), ENCODED[f"{name}__codes"])
    np.testing.assert_array_equal(packed.scales[..., 0], ENCODED[f"{name}__pos_e5m2"])
    np.testing.assert_array_equal(packed.scales[..., 1], ENCODED[f"{name}__neg_e5m2"])


def scales(*elements: float) -> list[int]:
    return AMXFP4.quantize(np.array(elements, np.float32)).scales[0].tolist()


def test_each_side_has_a_scale_of_its_own():
    assert scales(12, 1, -3) == [0x40, 0x38]  # 2.0 and 0.5
    x = np.array([12, 1, -3, -0.25], np.float32)
    np.testing.assert_array_equal(AMXFP4.fake_quantize(x), x)  # one scale would lose -0.25


def test_a_side_without_elements_has_scale_one():
    assert scales(6, 3) == [0x3C, 0x3C]
    assert scales(-12, -3) == [0x3C, 0x40]
    assert scales(0, 0) == [0x3C, 0x3C]


def test_scales_round_ties_away_from_zero():
    assert scales(6 * 1.125) == [0x3D, 0x3C]  # halfway between 1.0 and 1.25
    assert scales(6 * 1.375) == [0x3E, 0x3C]  # halfway between 1.25 and 1.5


def test_scales_saturate_and_underflow():
    assert scales(3e38, -3e38) == [0x7B, 0x7B]
    assert scales(6 * 2.0**-17) == [0x01, 0x3C]
    assert scales(6 * 2.0**-18) == [0x00, 0x3C]
    assert AMXFP4.fake_quantize(np.array([3e38], np.float32)).item() == 6 * 57344
    assert AMXFP4.fake_quantize(np.array([6 * 2.0**-18], np.float32)).item() == 0


def test_an_extreme_whose_sixth_underflows_float32_has_scale_one():
    assert scales(1e-45) == [0x3C, 0x3C]


def test_elements_round_ties_away_from_zero_on_both_sides():
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], np.float32)
    upper = np.array([0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
    x = np.concatenate([ties, [6], -ties, [-6]]).astype(np.float32)
    np.testing.assert_array_equal(AMXFP4.fake_quantize(x), np.concatenate([upper, [6], -upper, [-6]]))


def test_decoded_values_are_exact_in_bfloat16():
    x_hat = AMXFP4.fake_quantize(INPUTS["student_t3"])
    assert not (x_hat.view(np.uint32) & 0xFFFF).any()
