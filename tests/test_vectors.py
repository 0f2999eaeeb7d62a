"""Golden vectors: inputs that find mistakes, and sums of integer products that are exact."""

import dataclasses
import hashlib
import types
from fractions import Fraction
from typing import cast

import numpy as np
import pytest

from mxcompile import conformance, vectors
from mxcompile.errors import FormatError
from mxcompile.formats import FORMATS, Format, get_format
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import Rounding
from mxcompile.formats.nvfp4 import NVFP4

NAMES = (*FORMATS, "amxfp4_b16", "mxfp4_b64", "amxint4_b64", "dint4_b32", "int8_b128")

ROUNDED = 2.0**-23 + 2.0**-48
"""Relative error of a product of two values that float32 rounded (2**-24 each) from integer times scale."""

SUBNORMAL = 2.0**-150
"""Largest error of rounding to a float32 subnormal: half of 2**-149."""

INPUTS_SHA256 = "afb540409f612c92610a7b364d19b64403e486dfb61cb3011f2e6b7e4e907f05"
"""Of all inputs for amxfp4, one after the other, as little-endian float32."""


@pytest.mark.parametrize("name", NAMES)
def test_sums_times_scales_are_the_dot_products_of_the_decoded_rows(name: str) -> None:
    fmt = get_format(name)
    arrays = conformance.vector_arrays(fmt)
    for kind in vectors.DOT_INPUTS:
        decoded = arrays[f"{kind}__decoded"].astype(np.float64)
        rows = zip(*(arrays[f"{kind}__{part}"] for part in ("dot_a", "dot_w", "dot")), strict=True)
        for a, w, dot in rows:
            exact = sum((Fraction(x) * Fraction(y) for x, y in zip(decoded[a], decoded[w], strict=True)), Fraction(0))
            if isinstance(fmt, BlockScaled):  # decodes without rounding
                assert dot == float(exact)
            else:
                left, right = np.abs(decoded[a]), np.abs(decoded[w])
                bound = np.sum(ROUNDED * left * right + SUBNORMAL * (left + right) + SUBNORMAL**2)
                assert abs(dot - float(exact)) <= bound


def test_sums_by_hand() -> None:
    x = np.array([[6, -3, 1, 0], [3, 3, -1.5, -6]], np.float32)
    fmt = get_format("amxfp4")
    result = vectors.outputs(fmt, x)
    # Row 0: scales 1 and 1/2, codes 6 -6 1 0, doubled 12 -12 2 0. Row 1: scales 1/2 and 1, codes 6 6 -1.5 -6.
    assert result["scales"].tolist() == [[[0x3C, 0x38]], [[0x38, 0x3C]]]
    sums, dot = vectors.dots(fmt, result["codes"], result["scales"], np.array([0]), np.array([1]))
    assert sums.tolist() == [[[12 * 12, 2 * -3, -12 * 12, 0]]]
    assert dot.tolist() == [6 * 3 - 3 * 3 - 1.5]

    result = vectors.outputs(FORMATS["mxfp4"], x)
    sums, _ = vectors.dots(FORMATS["mxfp4"], result["codes"], result["scales"], np.array([0]), np.array([1]))
    assert sums.tolist() == [[[12 * 6 - 6 * 6 - 2 * 3]]]


def test_sums_of_half_steps_by_hand() -> None:
    fmt = get_format("dint4")
    x = np.array([[-6, 7, 0.5, -0.5, 3]], np.float32)  # s = 1, z = 6
    result = vectors.outputs(fmt, x)
    assert result["codes"].tolist() == [[0, 13, 14, 15, 9]]
    sums, dot = vectors.dots(fmt, result["codes"], result["scales"], np.array([0]), np.array([0]))
    assert sums.tolist() == [[[12**2 + 14**2 + 1 + 1 + 6**2]]]
    assert dot.tolist() == [6**2 + 7**2 + 0.25 + 0.25 + 3**2]


def test_sums_beyond_63_bits_are_two_words() -> None:
    fmt = get_format("mxfp8_e5m2")
    x = np.full((1, 32), 57344, np.float32)
    x[0, 0] = -x[0, 0]
    result = vectors.outputs(fmt, x)
    sums, dot = vectors.dots(fmt, result["codes"], result["scales"], np.array([0]), np.array([0]))
    high, low = sums[0, 0].tolist()
    assert high * 2**32 + low == 32 * (57344 * 2**16) ** 2 > 2**63
    assert dot.tolist() == [32 * 57344.0**2]
    assert [name for name in FORMATS if vectors.sum_words(FORMATS[name]) == 2] == ["mxfp8_e5m2"]


def test_sums_that_do_not_fit_are_an_error() -> None:
    x = np.full((1, 32), 1e30, np.float32)  # amxint4: scale 1, shift -1e30
    result = vectors.outputs(FORMATS["amxint4"], x)
    with pytest.raises(FormatError, match="amxint4: sums of integer products do not fit"):
        vectors.dots(FORMATS["amxint4"], result["codes"], result["scales"], np.array([0]), np.array([0]))


def test_dot_products_of_a_block_that_is_not_finite_are_nan() -> None:
    for fmt in FORMATS.values():
        x = np.array([[1, np.nan], [1, 2]], np.float32)
        result = vectors.outputs(fmt, x)
        _, dot = vectors.dots(fmt, result["codes"], result["scales"], *vectors.pairs(2))
        assert np.isnan(dot[:2]).all()
        assert not np.isnan(dot[2])


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS.values() if isinstance(fmt, BlockScaled)], ids=str)
def test_every_element_tie_is_there_on_both_sides(fmt: BlockScaled) -> None:
    x = vectors.inputs(fmt)["ties"]
    codes, scales = fmt.encode_rows(x)
    values = fmt.scale.decode_table[scales][:, 0]
    quotient = x / np.where(x > 0, values[:, :1], values[:, -1:])
    midpoints = fmt.element.thresholds()
    assert len(np.unique(values)) > 1
    for scale in np.unique(values[:, 0]):
        rows = quotient[values[:, 0] == scale]
        assert np.isin(midpoints, rows).all()
        assert np.isin(-midpoints, rows).all()
    other = dataclasses.replace(fmt, rounding=Rounding.TIES_TO_EVEN)
    down = np.count_nonzero(codes != other.encode_rows(x)[0])
    assert down >= 2 * 2 * (len(midpoints) // 2)  # two scales, two signs, every second midpoint


@pytest.mark.parametrize("name", ["amxfp4", "amxfp4_e4m3", "nvfp4"])
def test_scale_ties_reach_every_scale_that_rounding_can_give(name: str) -> None:
    fmt = FORMATS[name]
    scales = fmt.encode_rows(vectors.inputs(fmt)["scale_ties"])[1][:, -1]
    if isinstance(fmt, NVFP4):
        assert set(scales[:, 0].tolist()) == set(range(0x08, 0x7F))  # 2**-6 to 448
    else:
        expected = set(range(0x00 if name == "amxfp4" else 0x01, 0x7C if name == "amxfp4" else 0x80))
        assert set(scales[:, 0].tolist()) == set(scales[:, 1].tolist()) == expected


def test_inputs_are_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for x in vectors.inputs(get_format("amxfp4")).values():
        assert x.dtype == np.float32
        assert x.ndim == 2
        digest.update(x.astype("<f4").tobytes())
    assert digest.hexdigest() == INPUTS_SHA256


def test_inputs_have_what_they_say() -> None:
    inputs = vectors.inputs(get_format("amxfp4"))
    assert list(inputs) == list(vectors.INPUTS)
    assert not np.isfinite(inputs["nonfinite"]).all(axis=1).any()
    assert np.isfinite(inputs["nonfinite"][:, :32]).all()
    assert np.signbit(inputs["zeros"][1, 32:]).all()
    assert (inputs["zeros"][:3, 32:] == 0).all()
    assert set(np.sign(inputs["one_signed"]).mean(axis=1).tolist()) == {1.0, -1.0}
    assert inputs["huge"].max() == np.finfo(np.float32).max
    assert (np.abs(inputs["subnormals"][:4]) < np.finfo(np.float32).tiny).all()
    assert len(np.unique(inputs["powers_of_two"][0])) == 277  # 2**-149 to 2**127
    assert abs(inputs["normal"].var() - 1) < 0.25  # 4 standard deviations of the variance of 384 numbers, sqrt(2 / 384)
    assert np.abs(inputs["heavy_tailed"]).max() > 20  # no bell of twelve uniform numbers exceeds 6


def test_an_unknown_kind_of_format_has_no_dot_products() -> None:
    codes, scales = np.zeros((1, 32), np.uint8), np.zeros((1, 1, 1), np.uint8)
    other = types.SimpleNamespace(name="other", element=get_format("mxfp4").element)
    with pytest.raises(FormatError, match="other: dot products of SimpleNamespace are not defined"):
        vectors.factors(cast("Format", other), codes, scales)
