"""QuantizeBlock and DequantizeBlock against the NumPy definition and the golden vectors; on every onnxruntime."""

import numpy as np
import numpy.typing as npt
import pytest
from op_models import GOLDEN, INTEGERS, assert_same, dequantize, quantize, random_tensor

from mxcompile.formats import FORMATS, BlockTensor, get_format
from mxcompile.formats.elements import E4M3
from mxcompile.formats.packing import pack_codes

OTHER_SIZES = ["amxfp4_b16", "mxfp4_b16", "amxfp4_b64", "mxfp4_b64", "mxfp6_e3m2_b16", "mxfp8_e4m3_b64"]
OTHER_SIZES += ["mxint8_b16", "amxint4_b16", "dint4_b128", "dint3_b32", "int4_b64", "int8_b128"]
NAMES = [*FORMATS, *OTHER_SIZES]
WHOLE_ROW = 64
"""Elements of a row in tests of formats whose block is the whole row."""


def assert_like_definition(x: np.ndarray, name: str, axis: int, threads: int = 1) -> None:
    """Codes, scales and decoded values of the ops are those of the NumPy definition."""
    expected = get_format(name).quantize(x, axis=axis)
    packed = quantize(x, name, axis, threads)
    np.testing.assert_array_equal(packed.codes, expected.codes)
    np.testing.assert_array_equal(packed.scales, expected.scales)
    assert packed.codes.dtype == packed.scales.dtype == np.uint8
    assert_same(dequantize(packed, name, axis, threads=threads), get_format(name).dequantize(expected))


SHAPES = [
    ((3, 5, 96), -1),
    ((1, 1), -1),
    ((7,), 0),
    ((129,), -1),
    ((64, 48), 0),
    ((65, 17), 0),
    ((3, 70, 4), 1),
    ((2, 3, 100), 2),
    ((2, 1030, 18), -2),
    ((300, 257), 1),
]
EMPTY = [((2, 0, 64), -1), ((2, 3, 0), -1), ((0,), 0), ((0, 3), 1), ((3, 0), 1)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES + EMPTY)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_quantize_and_dequantize_give_the_bits_of_the_definition(name, shape, axis, dtype):
    assert_like_definition(random_tensor(shape, dtype), name, axis)


@pytest.mark.parametrize("name", NAMES)
def test_special_values_give_the_bits_of_the_definition(name):
    rng = np.random.default_rng(1)
    block = get_format(name).block_size or WHOLE_ROW
    x = np.zeros((24, block), np.float32)
    x[0, 3], x[1, 0], x[2, -1] = np.nan, np.inf, -np.inf
    x[3], x[4, ::2] = -0.0, -1
    x[5] = rng.standard_normal(block) * 1e38
    x[6] = rng.standard_normal(block) * 1e-42
    x[7, :9] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6, -6]
    x[8] = rng.standard_normal(block) * 2.0**-17
    x[9] = np.abs(rng.standard_normal(block))
    x[10, :2] = 6 * 2.0**-17, -6 * np.nextafter(np.float32(2.0**-17), np.float32(0))
    x[11, :2] = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    x[12, :2] = 6 * 1.125, -6 * 1.375  # scales on E5M2 midpoints
    x[13] = np.nextafter(np.float32([0.25, 0.75, 1.25, 1.75] * (block // 4)), np.float32(0))
    x[13, 0], x[14, 0], x[14, 1], x[15, 0] = 6, np.nan, -np.nan, np.finfo(np.float32).smallest_subnormal
    x[16], x[17] = 0.3, -1e30  # one value
    x[18, ::2], x[18, 1::2] = 2.0**24, 2.0**24 + 2  # a range that float32 hardly sees
    x[19, :2] = 3e38, -3e38  # a range above float32's
    x[20] = np.arange(block) - block / 2
    x[21] = np.resize(np.float32([-0.75, -0.25, 0.25, 0.75, 6, -7]), block)
    x[22] = np.nextafter(x[21], np.float32(np.inf))
    x[23] = np.nextafter(x[21], np.float32(-np.inf))
    with np.errstate(all="ignore"):  # overflow is part of the definition
        for each in (x, x.reshape(-1), x[:, : block - 3].copy()):
            assert_like_definition(each, name, -1)
        assert_like_definition(x.T.copy(), name, 0)
        assert_like_definition(x[4:7].copy(), name, -1)
        tiny = rng.standard_normal((3, block)) * 2.0**-143
        assert_like_definition(tiny.astype(np.float32), name, -1)


def beside(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Each value in float32 and its neighbours, of both signs."""
    values = [x.astype(np.float32)]
    for direction in (np.float32(-np.inf), np.float32(np.inf)):
        values += [once := np.nextafter(values[0], direction), np.nextafter(once, direction)]
    return np.concatenate([*values, *(-each for each in values)])


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in INTEGERS])
def test_every_midpoint_of_elements_rounds_as_in_the_definition(name):
    values = np.array(get_format(name).element.values, np.float64)
    points = beside((values[:-1] + values[1:]) / 2)
    x = np.zeros((-(-points.size // 14), 16), np.float32)
    x[:, 2:].flat[: points.size] = points
    x[:, 0], x[:, 1] = values[-1], -values[-1]  # so that every scale is 1
    x = np.vstack([x, np.full((1, 16), 6 * 448)]).astype(np.float32)  # nvfp4: that of the tensor too
    sized = name if name == "nvfp4" else f"{name}_b16"
    assert_like_definition(x, sized, -1)
    assert_like_definition(x.T.copy(), sized, 0)


@pytest.mark.parametrize("name", INTEGERS)
def test_every_quarter_step_of_integers_rounds_as_in_the_definition(name):
    top = get_format(name).top
    for zero_point in (0, top // 2, top):
        points = beside(np.arange(-4 * top, 4 * top + 1) / 4)
        points = points[(points >= -zero_point) & (points <= top - zero_point)]
        row = np.array([-zero_point, top - zero_point, *points], np.float32)  # so that the scale is 1
        assert_like_definition(row[None], name, -1)


@pytest.mark.parametrize("name", [name for name in FORMATS if hasattr(get_format(name), "scale")])
def test_every_threshold_of_scales_rounds_as_in_the_definition(name):
    scale = get_format(name).scale
    if hasattr(scale, "thresholds"):
        extremes = scale.thresholds.astype(np.float64)
    else:
        extremes = scale.type.thresholds().astype(np.float64) * get_format(name).element.maximum
    points = beside(extremes)
    x = np.zeros((points.size, 16), np.float32)
    x[:, 3], x[:, 5] = points, -points[::-1] if get_format(name).asymmetric else 0
    with np.errstate(all="ignore"):
        assert_like_definition(x, f"{name}_b16", -1)


def test_every_threshold_of_nvfp4_scales_rounds_as_in_the_definition():
    points = beside(6 * (np.array(E4M3.values[1:]) + np.array(E4M3.values[:-1])) / 2)
    x = np.zeros((points.size + 1, 16), np.float32)
    x[:-1, 3], x[:-1, 4] = points, points / 3
    x[-1, 0] = 6 * 448  # so that the scale of the tensor is 1
    assert_like_definition(x, "nvfp4", -1)


@pytest.mark.parametrize("name", NAMES)
def test_random_bit_patterns_give_the_bits_of_the_definition(name):
    bits = np.random.default_rng(2).integers(0, 2**32, (256, 256), dtype=np.uint32)
    bits[:, ::3] &= 0xBFFFFFFF  # below 2: fewer blocks with NaN
    x = bits.view(np.float32)
    with np.errstate(all="ignore"):  # overflow in blocks of anything is part of the definition
        assert_like_definition(np.where(np.isfinite(x), x, np.float32(1)), name, -1)
        assert_like_definition(x[:, :64].copy(), name, -1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1])
def test_every_scale_byte_and_code_decodes_as_in_the_definition(name, axis):
    fmt, size, rows = get_format(name), 256, 256
    row, group, byte = np.ogrid[:rows, : fmt.scale_groups(size), : fmt.scales_per_block]
    scales = (row + 37 * group + 101 * byte).astype(np.uint8)
    every = np.resize(np.arange(2**fmt.element.bits, dtype=np.uint8), size)
    codes = np.tile(pack_codes(every, fmt.element.bits), (rows, 1))
    if axis == 0:
        codes, scales = codes.T.copy(), np.moveaxis(scales, 1, 0).copy()
    packed = BlockTensor(codes, scales, size=size, axis=axis)
    assert_same(dequantize(packed, name, axis), fmt.dequantize(packed))


@pytest.mark.parametrize(
    ("name", "stored"), [("amxfp4", 34), ("mxfp6_e2m3", 33), ("mxfp8_e5m2", 33), ("dint3", 34), ("int8", 33)]
)
def test_size_zero_stands_for_as_many_elements_as_the_codes_hold(name, stored):
    x = random_tensor((2, 33))
    decoded = dequantize(quantize(x, name), name, size=0)
    assert decoded.shape == (2, stored)
    assert_same(decoded[:, :33], get_format(name).fake_quantize(x))


def test_one_tensor_scale_spans_rows_tasks_and_both_types():
    x = random_tensor((300, 257))
    x[123, 200] = 1e4
    x[7, 3] = np.inf  # not in a finite block
    for each in (x, x.astype(np.float16)):
        for axis in (0, 1):
            assert_like_definition(each, "nvfp4", axis, threads=2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), [((1000, 130), 1), ((1000, 130), 0)])
def test_two_threads_give_the_bits_of_one(name, shape, axis):
    assert_like_definition(random_tensor(shape), name, axis, threads=2)


def test_quantize_gives_the_authors_codes_and_scales():
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / "encoded_amxfp4_b32.npz") as encoded:
        for key in inputs.files:
            x, codes = inputs[key], encoded[f"{key}__codes"]
            packed = quantize(x, "amxfp4")
            unpacked = np.stack([packed.codes & 15, packed.codes >> 4], axis=-1).reshape(*packed.codes.shape[:-1], -1)
            np.testing.assert_array_equal(unpacked[..., : x.shape[-1]], codes.reshape(x.shape))
            np.testing.assert_array_equal(packed.scales[..., 0], encoded[f"{key}__pos_e5m2"])
            np.testing.assert_array_equal(packed.scales[..., 1], encoded[f"{key}__neg_e5m2"])


GOLDEN_VALUES = {
    "amxfp4": "fp4_e2m1_asym_m152",
    "amxfp4_pot": "fp4_e2m1_asym_m0",
    "amxfp4_pot_r": "fp4_e2m1_asym_m3",
    "amxfp4_e4m3": "fp4_e2m1_asym_m143",
    "mxfp4": "fp4_e2m1_m0",
    "mxfp4_even": "fp4_e2m1_m3",
    "mxfp6_e3m2": "fp6_e3m2_m0",
    "mxfp6_e2m3": "fp6_e2m3_m0",
    "mxfp8_e4m3": "fp8_e4m3_m0",
    "mxfp8_e5m2": "fp8_e5m2_m0",
    "mxint8": "int8_m0",
    "amxint4": "int4_asym_m2",
}


@pytest.mark.parametrize(("family", "file"), GOLDEN_VALUES.items())
@pytest.mark.parametrize("block", [16, 32, 64])
def test_the_ops_give_the_authors_values(family, file, block):
    name = f"{family}_b{block}"
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / f"golden_{file}.npz") as golden:
        compared = 0
        for key in inputs.files:
            if f"{key}__b{block}__nearest" in golden.files:
                decoded = dequantize(quantize(inputs[key], name), name)
                np.testing.assert_array_equal(decoded, golden[f"{key}__b{block}__nearest"])
                compared += 1
        assert compared > 0
