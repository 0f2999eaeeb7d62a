"""The units with 4-bit floating-point operands: their references against the formats, the Verilog against those."""

import functools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rtl_operands import Operands, joined
from rtl_simulation import HAS_SIMULATOR, RTL, simulate

from mxcompile.cost.rtl_reference import BLOCKS, INFINITY, NAN, Blocks, accumulate_fp32, float32_bits, reference
from mxcompile.formats.elements import E2M1, E4M3, E5M2, e8m0_decode_table

SCALES = {"mxfp4": (1, 0xFF), "nvfp4": (2, 0x7F), "fp4_e5m2": (1, 0x7F), "amxfp4_pot": (2, 0xFF)}
"""Unit -> scale bytes an operand, and the byte of NaN; every other unit is one of amxfp4."""

NEAR = 200
"""The first blocks of `stimuli`: scales within a factor of 8, which every window holds."""


def layout(unit: str) -> tuple[int, int]:
    return SCALES.get(unit, (2, 0x7F))


def decode_table(unit: str) -> list[int | None]:
    """Each scale byte's value in units of ``2**-scale_unit``; None for NaN and Inf."""
    if unit == "amxfp4_synced":
        values = [math.ldexp(4 + (byte & 3), (byte >> 2) - 17) if byte < 0x7C else math.nan for byte in range(128)]
    elif layout(unit)[1] == 0xFF:
        values = e8m0_decode_table().tolist()
    else:
        values = (E4M3 if unit == "nvfp4" else E5M2).decode_table.tolist()
    return [integer(value, scale_unit(unit)) if math.isfinite(value) else None for value in values]


def scale_unit(unit: str) -> int:
    """Every scale is a multiple of 2 to the power of minus this."""
    return 127 if layout(unit)[1] == 0xFF else 17


def integer(value: float, unit: int) -> int:
    """``value * 2**unit``, which must be an integer."""
    scaled = Fraction(value) * 2**unit
    assert scaled.denominator == 1
    return scaled.numerator


def exact_values(unit: str, x: Operands) -> list[int | None]:
    """Each block pair's dot product of what the format says that codes and scales stand for; None for NaN.

    In units of ``2**-(2 * scale_unit + 2)``.
    """
    table, elements = decode_table(unit), [integer(value, 1) for value in E2M1.decode_table.tolist()]
    count, values = layout(unit)[0], []
    for codes_a, codes_b, bytes_a, bytes_b in zip(x.a, x.b, x.a_scale, x.b_scale, strict=True):
        scales_a, scales_b = [table[byte] for byte in bytes_a], [table[byte] for byte in bytes_b]
        if None in scales_a or None in scales_b:
            values.append(None)
            continue
        total = 0
        for lane, (code_a, code_b) in enumerate(zip(codes_a.tolist(), codes_b.tolist(), strict=True)):
            which_a, which_b = code_a >> 3, code_b >> 3
            if unit == "nvfp4":
                which_a = which_b = lane // 16
            elif count == 1:
                which_a = which_b = 0
            total += elements[code_a] * scales_a[which_a] * elements[code_b] * scales_b[which_b]
        values.append(total)
    return values


def random_operands(unit: str, clocks: int, seed: int, spread: int, *, clear: float = 0.1) -> Operands:
    """Uniform codes; scales within ``spread`` bytes, or anywhere with the byte of NaN rare (spread 256)."""
    random = np.random.default_rng(seed)
    count, nan = layout(unit)
    codes = random.integers(0, 16, (2, clocks, 32), np.uint8)
    if spread < 256:
        low = 127 - spread // 2 if nan == 0xFF else 0x3C - spread // 2
        scales = random.integers(low, low + spread, (2, clocks, count), np.uint8)
    else:
        scales = random.integers(0, nan, (2, clocks, count), np.uint8)
        scales[random.random(scales.shape) < 0.005] = nan
    if unit == "amxfp4_synced":
        scales = synced(scales)
    new = random.random(clocks) < clear
    new[0] = True
    return Operands(*codes, *scales, new)


def synced(scales: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The second side's byte with the first one's mantissa."""
    return np.concatenate([scales[..., :1], (scales[..., 1:] & 0xFC) | (scales[..., :1] & 3)], axis=-1)


def extreme_operands(unit: str) -> Operands:
    """Zero, largest and one-sided codes with zero, subnormal, unit, largest and NaN scales, each a sum of its own."""
    count, nan = layout(unit)
    patterns = [[0] * 32, [8] * 32, [7] * 32, [15] * 32, [7, 15] * 16, [1, 9] * 16, [1] + [0] * 31, [0, 10] * 16]
    scales = [[byte, other][:count] for byte in (0, 1, 2, 3, 4, nan // 2, nan - 4, nan) for other in (0, 60, nan - 5)]
    codes = np.array(patterns, np.uint8)
    random = np.random.default_rng(5)
    pick = random.integers(0, len(patterns), (2, 200))
    chosen = np.array(scales, np.uint8)[random.integers(0, len(scales), (2, 200))]
    chosen = synced(chosen) if unit == "amxfp4_synced" else chosen
    return Operands(codes[pick[0]], codes[pick[1]], chosen[0], chosen[1], np.ones(200, bool))


def long_sum(unit: str) -> Operands:
    """One sum of 160 blocks with a slow drift of the scales."""
    x = random_operands(unit, 160, 7, 4, clear=0)
    drift = (np.arange(160) // 40).astype(np.uint8)[:, None]
    return Operands(x.a, x.b, x.a_scale + drift, x.b_scale, x.clear)


@functools.cache
def stimuli(unit: str) -> Operands:
    parts = [random_operands(unit, NEAR, 1, 4), random_operands(unit, 200, 2, 24), random_operands(unit, 200, 3, 256)]
    return joined([*parts, extreme_operands(unit), long_sum(unit)])


@functools.cache
def blocks(unit: str) -> Blocks:
    x = stimuli(unit)
    return BLOCKS[unit](x.a, x.b, x.a_scale, x.b_scale)


def test_float32_bits_round_to_nearest_even_and_flush_subnormals() -> None:
    assert float32_bits(1, 0) == 0x3F80_0000
    assert float32_bits((1 << 24) + 1, 0) == float32_bits(1 << 24, 0)
    assert float32_bits((1 << 24) + 3, 0) == float32_bits((1 << 24) + 4, 0)
    assert float32_bits((1 << 25) - 1, 0) == float32_bits(1 << 25, 0)
    assert float32_bits(-1, -126) == 0x8080_0000
    assert float32_bits(-1, -127) == 0
    assert float32_bits((1 << 25) - 1, -151) == 0x0080_0000  # rounds up to the smallest normal number
    assert float32_bits(-1, 128) == 0xFF80_0000


def test_accumulator_adds_like_float32_where_the_block_is_one() -> None:
    random = np.random.default_rng(0)
    v, exponent = random.integers(-(1 << 20), 1 << 20, 4000), random.integers(-40, -20, 4000)
    flags = np.zeros(4000, bool)
    y, expected = np.float32(0), []
    for value in np.ldexp(v.astype(np.float32), exponent):
        y += value
        expected.append(y)
    got = accumulate_fp32(Blocks(v, exponent, flags, ~flags), flags)
    np.testing.assert_array_equal(got.view(np.float32), np.array(expected, np.float32))


def test_infinity_and_nan_stay_until_clear() -> None:
    v, exponent = np.array([1, -1, 1, 1, 1]), np.array([200, 200, 0, 0, 0])
    nan, clear = np.array([0, 0, 1, 0, 0], bool), np.array([1, 0, 0, 0, 1], bool)
    y = accumulate_fp32(Blocks(v, exponent, nan, ~nan), clear)
    assert y.tolist() == [INFINITY, INFINITY, NAN, NAN, 0x3F80_0000]


@pytest.mark.parametrize("unit", BLOCKS)
def test_block_value_is_the_formats_exact_dot_product_within_the_window(unit: str) -> None:
    found, wrong = blocks(unit), []
    expected = exact_values(unit, stimuli(unit))
    rows = zip(found.v.tolist(), found.exponent.tolist(), found.nan, found.exact, expected, strict=True)
    for clock, (v, exponent, nan, exact, value) in enumerate(rows):
        assert nan == (value is None)
        if exact and value is not None:
            power = exponent + 2 * scale_unit(unit) + 2
            if (v << max(power, 0)) != (value << max(-power, 0)):
                wrong.append(clock)
    assert wrong == []
    assert found.exact[:NEAR].all()


@pytest.mark.parametrize("unit", BLOCKS)
def test_first_block_is_the_exact_value_rounded_once(unit: str) -> None:
    x = random_operands(unit, 100, 11, 4, clear=1)
    y = reference(unit, x.a, x.b, x.a_scale, x.b_scale, x.clear)
    unit_exponent = -2 * scale_unit(unit) - 2
    expected = [math.ldexp(value, unit_exponent) for value in exact_values(unit, x) if value is not None]
    np.testing.assert_array_equal(y.view(np.float32), np.array(expected, np.float32))  # a float64 holds each exactly


if HAS_SIMULATOR:

    @pytest.mark.parametrize("unit", BLOCKS)
    def test_verilog_answers_what_the_reference_does(unit: str, tmp_path: Path) -> None:
        x = stimuli(unit)
        y = simulate(unit, x.ports(), {"y": 32}, tmp_path)["y"]
        np.testing.assert_array_equal(np.array(y, np.uint32), accumulate_fp32(blocks(unit), x.clear))

    @pytest.mark.parametrize("width", [14, 36])
    def test_accumulator_rounds_overflows_and_vanishes_as_its_reference(width: int, tmp_path: Path) -> None:
        random = np.random.default_rng(width)
        clocks = 2400
        bits = random.choice([1, 3, width - 3, width - 1], clocks)
        v = random.integers(-(1 << bits) + 1, 1 << bits)
        spread = np.repeat([3, 30, 511, 20, 20, 20], clocks // 6)
        center = np.repeat([0, 0, 0, -140, 110, -24], clocks // 6)
        exponent = random.integers(center - spread, center + spread)
        clear, nan = random.random(clocks) < 0.05, random.random(clocks) < 0.001
        clear[0] = True
        (tmp_path / "unit.v").write_text(
            f"module unit(input clk, input clear, input nan, input [{width - 1}:0] v, input [9:0] exponent,"
            f" output [31:0] y); lib_accumulate_fp32 #(.W({width})) accumulate(.clk(clk), .clear(clear), .nan(nan),"
            " .v(v), .exponent(exponent), .y(y)); endmodule\n",
            "ascii",
        )
        ports = {
            "clear": (1, clear.astype(int).tolist()),
            "nan": (1, nan.astype(int).tolist()),
            "v": (width, (v & ((1 << width) - 1)).tolist()),
            "exponent": (10, (exponent & 1023).tolist()),
        }
        sources = [tmp_path / "unit.v", RTL / "lib_accumulate_fp32.v"]
        y = np.array(simulate("unit", ports, {"y": 32}, tmp_path, sources=sources, clocks_late=2)["y"], np.uint32)
        expected = accumulate_fp32(Blocks(v, exponent, nan, ~nan), clear)
        np.testing.assert_array_equal(y, expected)
        assert {0, INFINITY, INFINITY | 1 << 31, NAN} <= set(expected.tolist())
