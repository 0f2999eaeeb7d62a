"""The units with block scales on the golden vectors that ``mxcompile conformance`` writes."""

import functools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from rtl_operands import Operands, joined
from rtl_simulation import HAS_SIMULATOR, simulate

from mxcompile import conformance, vectors
from mxcompile.cost import rtl_reference_wide as wide
from mxcompile.cost.rtl_reference import BLOCKS, Blocks, Codes, accumulate_fp32
from mxcompile.formats import get_format
from mxcompile.formats.elements import E4M3, E5M2, e8m0_decode_table
from mxcompile.formats.nvfp4 import TENSOR_SCALE_GROUPS

WIDE = ("mxint8", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2")
UNITS = {
    **{"mxfp4": "mxfp4", "nvfp4": "nvfp4", "amxfp4_tagged": "amxfp4", "amxfp4_pot": "amxfp4_pot"},
    **{name: name for name in WIDE},
}
"""Unit -> format; the other units for amxfp4 have the same reference or are no smaller."""

WORD_BITS = 32
"""Sums that do not fit in an int64 stand in two words, the upper one first, the lower one with so many bits."""

TABLES = {"nvfp4": E4M3.decode_table, "amxfp4": E5M2.decode_table}
"""Value of every scale byte, where it is not E8M0."""


def blocked(name: str, codes: Codes, scales: Codes) -> tuple[Codes, Codes]:
    """Codes ``[rows, clocks, 32]`` and scales ``[rows, clocks, s]`` as a unit takes them, ends filled with zeros."""
    rows, k = codes.shape
    clocks = -(-k // 32)
    filled = np.zeros((rows, 32 * clocks), np.uint8)
    filled[:, :k] = codes
    if name == "nvfp4":
        groups = np.zeros((rows, 2 * clocks), np.uint8)
        groups[:, : -(-k // 16)] = scales[:, TENSOR_SCALE_GROUPS:, 0]
        scales = groups
    return filled.reshape(rows, clocks, 32), scales.reshape(rows, clocks, -1)


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    return conformance.vector_arrays(get_format(name))


def operands(name: str, kind: str, left: np.ndarray, right: np.ndarray) -> Operands:
    """One sum for each pair of rows."""
    codes, scales = blocked(name, arrays(name)[f"{kind}__codes"], arrays(name)[f"{kind}__scales"])
    clear = np.zeros((len(left), codes.shape[1]), bool)
    clear[:, 0] = True
    a, b, a_scale, b_scale = codes[left], codes[right], scales[left], scales[right]
    return Operands(*(part.reshape(-1, part.shape[-1]) for part in (a, b, a_scale, b_scale)), clear.reshape(-1))


def values(unit: str, x: Operands) -> Blocks:
    """What the unit makes of each pair of blocks."""
    if unit in WIDE:
        return wide.with_scales(wide.BLOCKS[unit](x.a, x.b), x.a_scale, x.b_scale)
    return BLOCKS[unit](x.a, x.b, x.a_scale, x.b_scale)


def answers(unit: str, x: Operands) -> np.ndarray:
    """The unit's sums, bits of float32."""
    if unit in WIDE:
        return wide.reference(unit, x.a, x.b, x.a_scale, x.b_scale, x.clear)
    return accumulate_fp32(values(unit, x), x.clear)


@pytest.mark.parametrize(("unit", "name"), UNITS.items())
def test_block_values_are_the_golden_sums_times_the_scales(unit: str, name: str) -> None:
    table, compared = TABLES.get(name, e8m0_decode_table()), 0
    square = Fraction(vectors.unit(get_format(name))) ** 2
    for kind in vectors.DOT_INPUTS:
        a, w = arrays(name)[f"{kind}__dot_a"], arrays(name)[f"{kind}__dot_w"]
        x = operands(name, kind, a, w)
        found = values(unit, x)
        sums = arrays(name)[f"{kind}__dot_sums"]
        if vectors.sum_words(get_format(name)) == 2:
            sums = sums[..., :1].astype(object) * 2**WORD_BITS + sums[..., 1:]
        if name == "nvfp4" and sums.shape[1] % 2:
            sums = np.concatenate([sums, np.zeros_like(sums[:, :1])], axis=1)
        for clock, group in enumerate(sums.reshape(len(x.clear), -1).tolist()):
            scales_a, scales_b = table[x.a_scale[clock]].tolist(), table[x.b_scale[clock]].tolist()
            factors = [Fraction(s) * Fraction(t) for s in scales_a for t in scales_b]
            if name == "nvfp4":
                factors = [factors[0], factors[3]]
            expected = square * sum(total * factor for total, factor in zip(group, factors, strict=True))
            if found.exact[clock]:
                assert int(found.v[clock]) * Fraction(2) ** int(found.exponent[clock]) == expected
                compared += 1
        wide_ranging = unit == "mxfp8_e5m2" or kind == "powers_of_two"  # which spans float32's whole range
        assert found.exact[~found.nan].mean() > 0.9 or wide_ranging
    assert compared > 100


if HAS_SIMULATOR:

    @pytest.mark.parametrize("unit", UNITS)
    def test_verilog_answers_what_the_reference_does_on_golden_operands(unit: str, tmp_path: Path) -> None:
        name, parts = UNITS[unit], []
        for kind in vectors.INPUTS:
            rows = len(arrays(name)[f"{kind}__codes"])
            count = min(rows, 3)
            left, right = np.repeat(np.arange(count), count), np.tile(np.arange(rows - count, rows), count)
            parts.append(operands(name, kind, left, right))
        x = joined(parts)
        y = simulate(unit, x.ports(get_format(name).element.bits), {"y": 32}, tmp_path)["y"]
        np.testing.assert_array_equal(np.array(y, np.uint32), answers(unit, x))
