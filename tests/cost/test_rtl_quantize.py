"""The quantizers in Verilog against the formats, bit by bit, on float16 numbers."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from rtl_simulation import HAS_SIMULATOR, pack_lanes, simulate

from mxcompile.cost.rtl_reference_wide import int8_codes
from mxcompile.formats import get_format
from mxcompile.formats.elements import E4M3, E5M2

Halves = npt.NDArray[np.float16]

FORMATS = ("mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "amxfp4_pot", "amxfp4")
SIMULATED = FORMATS if HAS_SIMULATOR else ()


def around_midpoints(element_values: tuple[float, ...]) -> Halves:
    """Every value and midpoint of an element as float16, and the float16 on both sides of each."""
    values = np.array(element_values)
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float16)
    bits = points.view(np.uint16)
    return np.unique(np.concatenate([bits, bits + 1, np.maximum(bits, 1) - 1])).astype(np.uint16).view(np.float16)


def rows_at_thresholds(name: str, random: np.random.Generator) -> Halves:
    """Blocks whose largest element is one of many, the others at the element's thresholds times the scale."""
    element = get_format(name).element
    points = around_midpoints(element.values)
    count = -(-2 * len(points) // 31)
    rows = []
    for largest in (1.0, 1.25, 1.75, 1.9990234375, *(1 + random.random(4))):
        for power in (-20, -12, -3, 3):
            x = np.resize(random.permutation(np.concatenate([points, -points])), (count, 32)).astype(np.float32)
            top = np.float32(2.0 ** np.floor(np.log2(element.maximum)) * largest)
            x[np.abs(x) > top] = 0
            x[:, 0] = np.where(np.arange(count) % 2, -top, top)
            x[:, 1] = -x[:, 0] * random.choice(np.array([0, 0.25, 1], np.float32), count)
            with np.errstate(over="ignore"):
                halves = np.ldexp(x, power).astype(np.float16)
            rows.append(halves[np.isfinite(halves).all(axis=1)])
    return np.concatenate(rows)


def edge_rows() -> Halves:
    """Zeros of both signs, one-sided, subnormal, largest, and not finite."""
    x = np.zeros((16, 32), np.float16)
    x[1] = -0.0
    x[2, 5], x[3, 5] = 6e-8, -6e-8  # the smallest subnormal number
    x[4], x[5] = 65504, -65504
    x[6, ::2], x[6, 1::2] = 65504, -6e-8
    x[7, ::2], x[7, 1::2] = -65504, 6e-8
    x[8] = np.arange(32, dtype=np.uint16).view(np.float16)
    x[9] = -np.arange(992, 1024, dtype=np.uint16).view(np.float16)
    x[10, 31], x[11, 0], x[12, 3] = np.nan, np.inf, -np.inf
    x[10, 0], x[11, 1], x[12, 31] = 5, -7, 65504
    x[13, :16], x[14, 16:] = np.nan, np.inf
    x[15, 0], x[15, 1:] = 1, np.arange(1, 32, dtype=np.uint16).view(np.float16)
    return x


def rows_at_scaled_thresholds(decoded: npt.NDArray[np.float32]) -> Halves:
    """For each scale a block whose largest element is 6 * scale, the others at E2M1's midpoints times the scale."""
    midpoints = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5])
    rows = np.zeros((len(decoded), 2, 32), np.float16)
    for row, scale in zip(rows, decoded.astype(np.float64), strict=True):
        bits = (midpoints * scale).astype(np.float16).view(np.uint16)
        around = np.concatenate([bits, bits + np.uint16(1), np.maximum(bits, 1) - np.uint16(1)]).view(np.float16)
        row[:, :21], row[:, 30] = around, 6 * scale
        row[1] = -row[1, ::-1]
        row[0, 31], row[1, 31] = -row[0, 30] / 2, 3 * scale  # the other side has another scale
    return rows.reshape(-1, 32)


def rows_at_scale_thresholds() -> Halves:
    """Blocks with one element other than 0, next to where the E5M2 scale of amxfp4 changes, and many more."""
    midpoints = 6 * get_format("amxfp4").scale.type.thresholds()  # exact: 4 bits times 3
    bits = midpoints[midpoints < 65504].astype(np.float16).view(np.uint16)
    points = np.concatenate([bits - 1, bits, bits + 1, np.arange(1, 0x7C00, 97)]).astype(np.uint16)
    x = np.zeros((len(points), 32), np.float16)
    x[np.arange(len(points)), np.arange(len(points)) % 32] = points.view(np.float16)
    x[::2] *= -1
    return x


def rows(name: str) -> Halves:
    """Random bit patterns, model-like blocks of all magnitudes, one-sided ones, edges, points next to thresholds."""
    random = np.random.default_rng(11)
    bits = random.integers(0, 1 << 16, (200, 32), np.uint16)
    bits = np.where((bits & 0x7C00) == 0x7C00, bits & 0x83FF, bits)
    subnormal = random.integers(0, 1 << 10, (100, 32), np.uint16) >> random.integers(0, 10, (100, 1), np.uint16)
    model = random.standard_normal((400, 32)) * 2.0 ** random.integers(-24, 13, (400, 1))
    model[random.random(model.shape) < 0.03] *= 8
    model[:50] = np.abs(model[:50])
    model[50:100] = -np.abs(model[50:100])
    model = np.clip(model, -65504, 65504).astype(np.float16)
    parts = [bits.view(np.float16), subnormal.view(np.float16), -subnormal.view(np.float16), model, edge_rows()]
    if name == "amxfp4":
        scales = np.array([value for value in E5M2.values if 6 * value <= 65504], np.float32)
        parts += [rows_at_scaled_thresholds(scales), rows_at_scale_thresholds()]
    return np.concatenate([*parts, rows_at_thresholds(name, random)])


@pytest.mark.parametrize("name", SIMULATED)
def test_codes_and_scales_are_the_formats(name: str, tmp_path: Path) -> None:
    fmt, x = get_format(name), rows(name)
    codes, scales = fmt.encode_rows(x.astype(np.float32))
    ports = {"x": (512, pack_lanes(x.view(np.uint16), 16))}
    widths = {"codes": 32 * fmt.element.bits, "scales": 8 * fmt.scales_per_block}
    found = simulate(f"quantize_{name}", ports, widths, tmp_path)
    wrong = [i for i, word in enumerate(pack_lanes(codes, fmt.element.bits)) if word != found["codes"][i]]
    assert not wrong
    assert found["scales"] == pack_lanes(scales[:, 0], 8)


def int8_ports(
    x: Halves, scale: npt.NDArray[np.float32], zero: npt.NDArray[np.uint8], clear: npt.NDArray[np.bool_]
) -> dict[str, tuple[int, list[int]]]:
    return {
        "clear": (1, clear.astype(int).tolist()),
        "x": (512, pack_lanes(x.view(np.uint16), 16)),
        "scale": (32, scale.view(np.uint32).tolist()),
        "zero": (8, zero.tolist()),
    }


def near_ties(random: np.random.Generator, clocks: int) -> tuple[Halves, npt.NDArray[np.float32]]:
    """A scale a clock and numbers whose quotient is a tie, but for the rounding of the scale or one unit more."""
    factor = 1 + 2 * random.integers(0, 15, (clocks, 32))
    half_steps = 1 + 2 * random.integers(0, 16, (clocks, 1))  # factor * half_steps / 2: the quotient
    base = random.integers(32, 64, (clocks, 1)) * 2.0 ** random.integers(-20, 0, (clocks, 1))
    scale = (2 * base / half_steps).astype(np.float32).view(np.uint32) + random.integers(-1, 2, (clocks, 1))
    sign = random.choice([-1, 1], (clocks, 32))
    return (sign * factor * base).astype(np.float16), scale.astype(np.uint32).view(np.float32)[:, 0]


def test_near_ties_meet_quotients_that_float32_rounds_to_a_tie() -> None:
    x, scale = near_ties(np.random.default_rng(2), 300)
    quotient = np.abs(x.astype(np.float32) / scale[:, None])
    exact = np.abs(x.astype(np.float64) / scale[:, None])
    tie = quotient % 1 == 0.5
    assert (tie & (exact > quotient)).sum() > 100
    assert (tie & (exact < quotient)).sum() > 100
    assert (tie & (exact == quotient)).sum() > 100


@pytest.mark.parametrize("unit", ["quantize_int8"] if HAS_SIMULATOR else [])
def test_verilog_int8_codes_are_the_rounded_float32_quotients(unit: str, tmp_path: Path) -> None:
    random = np.random.default_rng(12)
    model = (random.standard_normal((200, 32)) * 2.0 ** random.integers(-12, 9, (200, 1))).astype(np.float16)
    codes, bytes_ = get_format("int8").encode_rows(model.astype(np.float32))
    scale = np.ascontiguousarray(bytes_[:, 0, :4]).view(np.float32)[:, 0]
    ties, tie_scale = near_ties(random, 400)
    wild = random.integers(0, 1 << 16, (100, 32), np.uint16)
    wild = np.where((wild & 0x7C00) == 0x7C00, wild & 0x83FF, wild).view(np.float16)
    wild_scale = np.ldexp(1 + random.random(100), random.integers(-40, 20, 100)).astype(np.float32)
    wild_scale[7] = np.nan
    x = np.concatenate([model, ties, wild])
    scales = np.concatenate([scale, tie_scale, wild_scale])
    zeros = np.concatenate([bytes_[:, 0, 4], random.integers(0, 256, 500, np.uint8)])
    expected = int8_codes(x.astype(np.float32), scales[:, None], zeros[:, None])
    np.testing.assert_array_equal(expected[:200], codes)
    found = simulate(unit, int8_ports(x, scales, zeros, np.ones(700, bool)), {"codes": 256}, tmp_path)
    assert found["codes"] == pack_lanes(expected, 8)


@pytest.mark.parametrize("unit", ["quantize_int8"] if HAS_SIMULATOR else [])
def test_verilog_int8_extremes_run_over_a_row(unit: str, tmp_path: Path) -> None:
    random = np.random.default_rng(13)
    x = (random.standard_normal((60, 32)) * 2.0 ** random.integers(-20, 5, (60, 1))).astype(np.float16)
    x[20:30] = np.abs(x[20:30])
    clear = random.random(60) < 0.3
    clear[[0, 20]] = True
    high, low, so_far = [], [], np.zeros(2, np.float16)
    for block, new in zip(x, clear, strict=True):
        extremes = np.array([max(block.max(), 0), max((-block).max(), 0)], np.float16)
        so_far = extremes if new else np.maximum(so_far, extremes)
        high.append(int(so_far.view(np.uint16)[0]))
        low.append(int(so_far.view(np.uint16)[1]))
    ports = int8_ports(x, np.ones(60, np.float32), np.zeros(60, np.uint8), clear)
    found = simulate(unit, ports, {"high": 15, "low": 15}, tmp_path, clocks_late=2)
    assert (found["high"], found["low"]) == (high, low)


def nvfp4_tensors(random: np.random.Generator) -> list[tuple[Halves, float]]:
    """Rows and their tensors' absolute maxima: ordinary, near ties of the block scale, near elements' midpoints."""
    tensors = [(edge_rows(), 65504.0), (edge_rows(), 0.01), (np.zeros((2, 32), np.float16), 0.0)]
    for power in range(-22, 15, 2):
        x = (random.standard_normal((12, 32)) * 2.0 ** (power - random.integers(0, 9, (12, 1)))).astype(np.float16)
        tensors.append((x, float(np.abs(x).max()) * random.choice([1, 1, 2.7, 0.3])))
    for _ in range(40):  # 448 * amax / tensor_amax is an odd number of 5 bits: a tie, but for float32's roundings
        c = int(random.integers(1, 60))
        x = (random.uniform(-0.5, 0.5, (8, 32))).astype(np.float16)
        odd = 17 + 2 * random.integers(0, 8, (8, 2))
        x[:, [3, 20]] = c * odd / 2.0 ** random.integers(5, 9, (8, 2))
        tensors.append((x, 7 * c * 2.0 ** int(random.integers(-2, 3))))
    for _ in range(40):
        amax = float(np.float16(random.uniform(1, 2) * 2.0 ** random.integers(-12, 12)))
        scale = np.float32(amax / 2688) * E4M3.decode_table[random.integers(8, 127, 6)]
        tensors.append((rows_at_scaled_thresholds(scale), amax))
    return [(x[np.isfinite(x).all(axis=1) | (np.arange(len(x)) < 16)], amax) for x, amax in tensors]


@pytest.mark.parametrize("unit", ["quantize_nvfp4"] if HAS_SIMULATOR else [])
def test_nvfp4_codes_and_scales_are_the_formats(unit: str, tmp_path: Path) -> None:
    fmt, xs, tensor_scales, codes, scales = get_format("nvfp4"), [], [], [], []
    for x, amax in nvfp4_tensors(np.random.default_rng(14)):
        found = fmt.for_tensor(amax).encode_rows(x.astype(np.float32))
        xs.append(x)
        codes.append(found[0])
        scales.append(found[1][:, 4:, 0])
        tensor_scales += np.ascontiguousarray(found[1][:, :4, 0]).view(np.uint32)[:, 0].tolist()
    ports = {"x": (512, pack_lanes(np.concatenate(xs).view(np.uint16), 16)), "tensor_scale": (32, tensor_scales)}
    answer = simulate(unit, ports, {"codes": 128, "scales": 16}, tmp_path)
    assert answer["scales"] == pack_lanes(np.concatenate(scales), 8)
    assert answer["codes"] == pack_lanes(np.concatenate(codes), 4)
