"""The units with integers and with wider floats: their references against the formats, the Verilog against those."""

import dataclasses
import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rtl_simulation import HAS_SIMULATOR, pack_lanes, simulate

from mxcompile.cost.rtl_reference import NAN, Blocks
from mxcompile.cost.rtl_reference_wide import (
    ALIGNED_FRACTION_BITS,
    BLOCKS,
    INTEGER_UNITS,
    half_steps,
    reference,
    with_scales,
    zero_point_terms,
)
from mxcompile.formats import get_format
from mxcompile.formats.elements import E2M3, E3M2, E4M3, E5M2, INT8

ELEMENTS = {"mxint8": INT8, "mxfp8_e4m3": E4M3, "mxfp8_e5m2": E5M2, "mxfp6_e2m3": E2M3, "mxfp6_e3m2": E3M2}
WIDTHS = {"fp16": (16, 16), "int8_int8": (8, 8), "int4_int8": (8, 4), "dint4_int8": (8, 4), "int4_int4": (4, 4)}
"""Bits of the codes of a and b; the others have those of their element."""

UNITS = (*BLOCKS, *INTEGER_UNITS)
SIMULATED = UNITS if HAS_SIMULATOR else ()
WINDOWED = ("fp16", "mxfp8_e5m2")


@dataclasses.dataclass(frozen=True)
class Operands:
    """Codes ``[clocks, 32]``, scale bytes ``[clocks, 0 or 1]``, and where sums begin ``[clocks]``."""

    a: npt.NDArray[np.uint16]
    b: npt.NDArray[np.uint16]
    a_scale: npt.NDArray[np.uint8]
    b_scale: npt.NDArray[np.uint8]
    clear: npt.NDArray[np.bool_]

    def ports(self, unit: str) -> dict[str, tuple[int, Sequence[int]]]:
        bits_a, bits_b = widths(unit)
        ports = {
            "clear": (1, self.clear.astype(int).tolist()),
            "a": (32 * bits_a, pack_lanes(self.a, bits_a)),
            "b": (32 * bits_b, pack_lanes(self.b, bits_b)),
        }
        for name, scale in (("a_scale", self.a_scale), ("b_scale", self.b_scale)):
            if scale.shape[1]:
                ports[name] = (4 if unit == "dint4_int8" else 8, scale[:, 0].tolist())
        return ports


def widths(unit: str) -> tuple[int, int]:
    return WIDTHS[unit] if unit in WIDTHS else (ELEMENTS[unit].bits, ELEMENTS[unit].bits)


@functools.cache
def code_values(unit: str) -> npt.NDArray[np.float64]:
    """Value of every code of a unit with floats."""
    if unit != "fp16":
        return ELEMENTS[unit].decode_table.astype(np.float64)
    with np.errstate(invalid="ignore"):  # signaling NaNs
        return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)


def scales(unit: str, clocks: int, random: np.random.Generator, low: int, high: int) -> list[npt.NDArray[np.uint8]]:
    if unit == "dint4_int8":
        return [np.zeros((clocks, 0), np.uint8), random.integers(0, 14, (clocks, 1), np.uint8)]
    return list(random.integers(low, high, (2, clocks, int(unit in ELEMENTS)), np.uint8))


def random_operands(unit: str, clocks: int, seed: int, *, nan: bool) -> Operands:
    """Uniform codes, with NaN and Inf only if asked for; scales near 1, or anywhere with 0xFF now and then."""
    random = np.random.default_rng(seed)
    codes = [random.integers(0, 1 << bits, (clocks, 32), np.uint16) for bits in widths(unit)]
    if unit not in INTEGER_UNITS:
        numbers = np.isfinite(code_values(unit))
        codes = [np.where(numbers[code] | (nan & (random.random(code.shape) < 0.01)), code, 0) for code in codes]
    low, high = (0, 256) if nan else (120, 134)
    clear = random.random(clocks) < 0.1
    clear[0] = True
    return Operands(*codes, *scales(unit, clocks, random, low, high), clear)


def model_like_operands(unit: str, clocks: int, seed: int) -> Operands:
    """Normal numbers with outliers, quantized by the format: what a model's products look like."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((2, clocks, 32)).astype(np.float32)
    x[random.random(x.shape) < 0.02] *= 20
    if unit == "fp16":
        codes = list(x.astype(np.float16).view(np.uint16))
        return Operands(*codes, *scales(unit, clocks, random, 0, 1), random.random(clocks) < 0.05)
    if unit in INTEGER_UNITS:
        names = {"int8_int8": ("int8", "int8"), "int4_int4": ("int4", "int4")}
        pair = names.get(unit, ("int8", unit.removesuffix("_int8")))
        packed = [get_format(name).encode_rows(side) for name, side in zip(pair, x, strict=True)]
        zero = packed[1][1][:, 0, 4:] if unit == "dint4_int8" else np.zeros((clocks, 0), np.uint8)
        codes = [part[0].astype(np.uint16) for part in packed]
        return Operands(*codes, np.zeros((clocks, 0), np.uint8), zero, random.random(clocks) < 0.05)
    packed = [get_format(unit).encode_rows(side) for side in x]
    bytes_ = [part[1][:, 0] for part in packed]
    return Operands(*[part[0].astype(np.uint16) for part in packed], *bytes_, random.random(clocks) < 0.05)


def extreme_operands(unit: str, clocks: int) -> Operands:
    """Whole blocks of the smallest, the largest, and the outermost codes; scales at both ends."""
    random, picked = np.random.default_rng(5), []
    for bits in widths(unit):
        top = 1 << bits
        corners = np.array([0, 1, top // 2 - 1, top // 2, top // 2 + 1, top - 2, top - 1, top // 4], np.uint16)
        if unit not in INTEGER_UNITS:
            corners = corners[np.isfinite(code_values(unit)[corners])]
            largest = np.flatnonzero(code_values(unit) == np.nanmax(code_values(unit)[np.isfinite(code_values(unit))]))
            corners = np.append(corners, [largest[0], largest[0] | top // 2]).astype(np.uint16)
        whole = random.choice(corners, (clocks, 1)).repeat(32, axis=1)
        picked.append(np.where(random.random((clocks, 1)) < 0.5, whole, random.choice(corners, (clocks, 32))))
    sides = scales(unit, clocks, random, 0, 2)
    if unit in ELEMENTS:
        sides = [random.choice(np.array([0, 1, 127, 253, 254], np.uint8), (clocks, 1)) for _ in sides]
    return Operands(*picked, *sides, random.random(clocks) < 0.7)


def all_pairs(unit: str) -> Operands:
    """Every code of a with every code of b, 32 pairs a clock, each clock a sum of its own."""
    bits_a, bits_b = widths(unit)
    a, b = np.divmod(np.arange(1 << (bits_a + bits_b)), 1 << bits_b)
    if unit not in INTEGER_UNITS:
        a, b = (np.where(np.isfinite(code_values(unit)[side]), side, 0) for side in (a, b))
    order = np.random.default_rng(9).permutation(len(a))
    a, b = (side[order].reshape(-1, 32).astype(np.uint16) for side in (a, b))
    return Operands(a, b, *scales(unit, len(a), np.random.default_rng(3), 120, 134), np.ones(len(a), bool))


@functools.cache
def stimuli(unit: str) -> Operands:
    parts = [
        random_operands(unit, 300, 1, nan=False),
        random_operands(unit, 300, 2, nan=True),
        model_like_operands(unit, 300, 3),
        extreme_operands(unit, 300),
    ]
    if sum(widths(unit)) <= 12:
        parts.append(all_pairs(unit))
    fields = [field.name for field in dataclasses.fields(Operands)]
    return Operands(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


def blocks(unit: str, x: Operands) -> Blocks:
    return with_scales(BLOCKS[unit](x.a, x.b), x.a_scale, x.b_scale)


def exact_value(unit: str, x: Operands, clock: int) -> Fraction | None:
    """The dot product of what codes and scales stand for; None if any is not a number."""
    a, b = (code_values(unit)[side[clock]] for side in (x.a, x.b))
    bytes_ = [*x.a_scale[clock].tolist(), *x.b_scale[clock].tolist()]
    if not np.isfinite([a, b]).all() or 0xFF in bytes_:
        return None
    total = sum((Fraction(p) * Fraction(q) for p, q in zip(a, b, strict=True)), Fraction(0))
    for byte in bytes_:
        total *= Fraction(2) ** (byte - 127)
    return total


@pytest.mark.parametrize("unit", BLOCKS)
def test_block_value_is_the_exact_dot_product_within_the_window(unit: str) -> None:
    x = stimuli(unit)
    found, seen = blocks(unit, x), 0
    for clock in range(0, len(x.clear), 1 if unit not in ELEMENTS else 3):
        value = exact_value(unit, x, clock)
        assert found.nan[clock] == (value is None)
        if value is None:
            continue
        got = int(found.v[clock]) * Fraction(2) ** int(found.exponent[clock])
        if found.exact[clock]:
            assert got == value
            seen += 1
        else:  # less than the lowest kept bit a lane was cut off
            assert unit in WINDOWED
            assert abs(got - value) < 32 * Fraction(2) ** int(found.exponent[clock])
    assert seen > 100


@pytest.mark.parametrize("unit", BLOCKS)
def test_first_block_is_the_exact_value_rounded_once(unit: str) -> None:
    x = model_like_operands(unit, 300, 12)
    y = reference(unit, x.a, x.b, x.a_scale, x.b_scale, np.ones(300, bool)).view(np.float32)
    exact, checked = blocks(unit, x).exact, 0
    for clock in np.flatnonzero(exact):
        value = exact_value(unit, x, clock)
        assert value is not None
        assert y[clock] == np.float32(float(value))  # float64 holds every one of these sums exactly
        checked += 1
    assert checked > (200 if unit != "fp16" else 0)


def test_window_keeps_24_fraction_bits_below_the_largest_product() -> None:
    a, b = np.zeros((2, 1, 32), np.uint16)
    a[0, :2], b[0, :2] = [0x3C00, 0x0401], [0x3C00, 0x3C00]  # 1 * 1 + 2**-14 * (1 + 2**-10): the last bit is 2**-24
    found = BLOCKS["fp16"](a, b)
    assert found.exact.all()
    assert int(found.v[0]) == (1 << ALIGNED_FRACTION_BITS) + (1 << 10) + 1
    a[0, 2], b[0, 2] = 0x0401, 0x3800  # half of it: its last bit is lost
    found = BLOCKS["fp16"](a, b)
    assert not found.exact.any()
    assert int(found.v[0]) == (1 << ALIGNED_FRACTION_BITS) + (1 << 10) + 1 + (1 << 9)


@pytest.mark.parametrize("unit", WINDOWED)
def test_a_zero_operand_does_not_move_the_window(unit: str) -> None:
    one, tiny, huge = (0x3C00, 0x0001, 0x7BFF) if unit == "fp16" else (0x3C, 0x01, 0x7B)
    a, b = np.zeros((2, 1, 32), np.uint16)
    a[0, :2], b[0, :2] = [tiny, 0], [one, huge]
    found = BLOCKS[unit](a, b)
    value = Fraction(float(code_values(unit)[tiny]))
    assert found.exact.all()
    assert int(found.v[0]) * Fraction(2) ** int(found.exponent[0]) == value


def test_the_window_of_mxfp8_e5m2_loses_something_in_few_model_like_blocks() -> None:
    x = model_like_operands("mxfp8_e5m2", 2000, 8)
    assert blocks("mxfp8_e5m2", x).exact.mean() > 0.99


def test_dint4_numbers_and_offset_say_what_the_format_decodes() -> None:
    fmt = get_format("dint4")
    for zero in range(14):
        codes = np.arange(16, dtype=np.uint8)[None]
        d, offset = half_steps(codes, np.array([[zero]], np.uint8))
        one = np.array([[[0x00, 0x00, 0x80, 0x3F, zero]]], np.uint8)  # scale 1
        np.testing.assert_array_equal((d - offset) / 2, fmt.decode_rows(codes, one))
        assert 0 <= d.min() <= d.max() < 32


@pytest.mark.parametrize(("left", "right"), [("int8", "int8"), ("int8", "int4"), ("int4", "int4"), ("int8", "dint4")])
def test_zero_points_outside_the_unit_give_the_formats_dot_product(left: str, right: str) -> None:
    x = np.random.default_rng(4).standard_normal((2, 1, 96)).astype(np.float32) + np.float32(0.3)
    unit = f"{right}_{left}"
    (a, a_bytes), (b, b_bytes) = get_format(left).encode_rows(x[0]), get_format(right).encode_rows(x[1])
    za, zb, step = int(a_bytes[0, 0, 4]), int(b_bytes[0, 0, 4]), 1.0
    zeros = b_bytes[:, 0, 4:].repeat(3, axis=0) if right == "dint4" else np.zeros((3, 0), np.uint8)
    y = reference(
        unit, a.reshape(3, 32), b.reshape(3, 32), np.zeros((3, 0), np.uint8), zeros, np.array([1, 0, 0], bool)
    )
    number = b.astype(np.int64)
    if right == "dint4":
        number, offset = half_steps(b, b_bytes[:, 0, 4:])
        zb, step = int(offset[0, 0]), 0.5
    got = step * zero_point_terms(y[-1:].astype(np.int64), a.sum(dtype=np.int64), number.sum(), za, zb, 96)
    one = np.array([0x00, 0x00, 0x80, 0x3F], np.uint8)
    unscaled = [  # the decoded rows in steps of their scale: the same bytes with scale 1
        get_format(name).decode_rows(codes, np.append(one, bytes_[0, 0, 4:])[None, None])
        for name, codes, bytes_ in ((left, a, a_bytes), (right, b, b_bytes))
    ]
    assert got[0] == (unscaled[0].astype(np.float64) * unscaled[1]).sum()


@pytest.mark.parametrize("unit", UNITS)
def test_a_sum_starts_at_clear_and_goes_on_without(unit: str) -> None:
    x = model_like_operands(unit, 20, 6)
    clear = np.zeros(20, bool)
    clear[[0, 7]] = True
    whole = reference(unit, x.a, x.b, x.a_scale, x.b_scale, clear)
    later = reference(unit, x.a[7:], x.b[7:], x.a_scale[7:], x.b_scale[7:], clear[7:])
    np.testing.assert_array_equal(whole[7:], later)
    assert len(set(whole.tolist())) > 15


@pytest.mark.parametrize("unit", sorted(ELEMENTS))
def test_nan_scale_answers_nan_until_clear(unit: str) -> None:
    x = random_operands(unit, 6, 6, nan=False)
    scale, clear = x.a_scale.copy(), np.array([1, 0, 0, 0, 1, 0], bool)
    scale[2] = 0xFF
    y = reference(unit, x.a, x.b, scale, x.b_scale, clear)
    assert [value == NAN for value in y.tolist()] == [False, False, True, True, False, False]


@pytest.mark.parametrize("unit", SIMULATED)
def test_verilog_answers_what_the_reference_does(unit: str, tmp_path: Path) -> None:
    x = stimuli(unit)
    y = simulate(unit, x.ports(unit), {"y": 32}, tmp_path)["y"]
    expected = reference(unit, x.a, x.b, x.a_scale, x.b_scale, x.clear)
    np.testing.assert_array_equal(np.array(y, np.uint32), expected)
