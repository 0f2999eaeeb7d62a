"""The custom ops against the NumPy definition and the golden vectors; runs on every supported onnxruntime."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from op_models import dequantize, matmul, quantize

from mxcompile.formats import NONE, BlockTensor, get_format

NAMES = ["amxfp4", "mxfp4", "amxfp4_b16", "mxfp4_b16", "amxfp4_b64", "mxfp4_b64"]
GOLDEN = Path(__file__).parent / "golden"
CONSTANT_B = ("B_codes", "B_scales")

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one float32 rounding. Source: IEEE 754-2019, binary32."""

EXTRA_ROUNDINGS = 2
"""A bound on MatMulBlock is ``(k + EXTRA_ROUNDINGS) * UNIT_ROUNDOFF * (sum(|a| * |b|) + |bias|)``: k fused
multiply-adds round the running sum once each, and none of the sums exceeds the sum of magnitudes by more than those
roundings; one more for the bias, and one for the terms of second order (k**2 * UNIT_ROUNDOFF < 1 here)."""

GOLDEN_SLACK = 1e-7
"""Relative slack of ``absum64`` in the golden products, which is stored in float32. Source: their README."""


def assert_same(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """The same numbers, the same signs of zeros, NaN where NaN is expected."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    not_nan = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[not_nan]), np.signbit(expected[not_nan]))


def assert_like_definition(x: np.ndarray, name: str, axis: int, threads: int = 1) -> None:
    """Codes, scales and decoded values of the ops are those of the NumPy definition."""
    expected = get_format(name).quantize(x, axis=axis)
    packed = quantize(x, name, axis, threads)
    np.testing.assert_array_equal(packed.codes, expected.codes)
    np.testing.assert_array_equal(packed.scales, expected.scales)
    assert packed.codes.dtype == packed.scales.dtype == np.uint8
    assert_same(dequantize(packed, name, axis, threads=threads), get_format(name).dequantize(expected))


def random_tensor(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Numbers of mixed sizes, with zeros among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-3, 4, shape))
    return np.where(rng.random(shape) < 0.05, 0, x).astype(dtype)


# QuantizeBlock and DequantizeBlock -----------------------------------------------------------------------------------

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
    block = get_format(name).block_size
    x = np.zeros((16, block), np.float32)
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
    assert_like_definition(x.reshape(-1), name, 0)
    assert_like_definition(x.T.copy(), name, 0)


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
    fmt = get_format(name)
    byte = np.arange(256, dtype=np.uint8)
    scales = np.stack([byte, byte[::-1]], axis=-1)[:, None, : fmt.scales_per_block]
    codes = np.arange(16, dtype=np.uint8)
    codes = np.tile(np.resize(codes[0::2] | codes[1::2] << 4, fmt.block_size // 2), (256, 1))
    if axis == 0:
        codes, scales = codes.T.copy(), np.moveaxis(scales, 1, 0).copy()
    packed = BlockTensor(codes, scales, size=fmt.block_size, axis=axis)
    assert_same(dequantize(packed, name, axis), fmt.dequantize(packed))


def test_size_zero_stands_for_two_elements_a_byte():
    x = random_tensor((2, 33))
    packed = quantize(x, "amxfp4")
    decoded = dequantize(packed, "amxfp4", size=0)
    assert decoded.shape == (2, 34)
    assert_same(decoded[:, :33], get_format("amxfp4").fake_quantize(x))


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


@pytest.mark.parametrize(
    ("family", "file"), [("amxfp4", "golden_fp4_e2m1_asym_m152.npz"), ("mxfp4", "golden_fp4_e2m1_m0.npz")]
)
@pytest.mark.parametrize("block", [16, 32, 64])
def test_the_ops_give_the_authors_values(family, file, block):
    name = f"{family}_b{block}"
    with np.load(GOLDEN / "inputs.npz") as inputs, np.load(GOLDEN / file) as golden:
        compared = 0
        for key in inputs.files:
            if f"{key}__b{block}__nearest" in golden.files:
                decoded = dequantize(quantize(inputs[key], name), name)
                np.testing.assert_array_equal(decoded, golden[f"{key}__b{block}__nearest"])
                compared += 1
        assert compared > 0


# MatMulBlock ---------------------------------------------------------------------------------------------------------


def exact_product(
    a: np.ndarray, b: BlockTensor, a_format: str, b_format: str, bias: np.ndarray | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The product of the decoded operands plus bias in float64, and the largest error of a float32 accumulation."""
    a_hat = (a if a_format == NONE else get_format(a_format).fake_quantize(a)).astype(np.float64)
    b_hat = np.swapaxes(get_format(b_format).dequantize(b), -1, -2).astype(np.float64)
    offset = np.float64(0) if bias is None else bias.astype(np.float64)
    magnitudes = np.abs(a_hat) @ np.abs(b_hat) + np.abs(offset)
    return a_hat @ b_hat + offset, (b.size + EXTRA_ROUNDINGS) * UNIT_ROUNDOFF * magnitudes


FORMAT_PAIRS = [
    ("amxfp4", "amxfp4"),
    ("mxfp4", "mxfp4"),
    ("mxfp4_b64", "amxfp4_b16"),
    (NONE, "mxfp4"),
    (NONE, "amxfp4"),
]
MATMUL_SHAPES = [
    ((4, 100), (8, 100)),
    ((1, 256), (70, 256)),
    ((2, 33), (1, 33)),
    ((3, 1), (33, 1)),
    ((7, 129), (31, 129)),
    ((133, 300), (65, 300)),
    ((64,), (5, 64)),
    ((64,), (3, 5, 64)),
    ((2, 3, 4, 64), (5, 64)),
    ((2, 3, 4, 64), (3, 5, 64)),
    ((2, 3, 4, 64), (1, 1, 5, 64)),
    ((2, 3, 4, 64), (2, 1, 5, 64)),
    ((1, 3, 4, 33), (2, 1, 5, 33)),
    ((4, 64), (2, 3, 5, 64)),
]
EMPTY_MATMULS = [
    ((0, 64), (5, 64)),
    ((4, 64), (0, 64)),
    ((2, 0, 3, 64), (5, 64)),
    ((0, 4, 64), (1, 5, 64)),
    ((3, 0), (5, 0)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), MATMUL_SHAPES + EMPTY_MATMULS)
@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("a_format", "b_format"), FORMAT_PAIRS)
def test_matmul_is_the_product_of_the_decoded_operands(a_shape, b_shape, with_bias, a_format, b_format):
    a = random_tensor(a_shape)
    b = get_format(b_format).quantize(random_tensor(b_shape, seed=1))
    bias = random_tensor(b_shape[-2:-1], seed=2) if with_bias else None
    y = matmul(a, b, a_format, b_format, bias)
    expected, bound = exact_product(a, b, a_format, b_format, bias)
    assert y.shape == expected.shape
    assert y.dtype == np.float32
    assert (np.abs(y - expected) <= bound).all()
    np.testing.assert_array_equal(matmul(a, b, a_format, b_format, bias, constants=CONSTANT_B), y)


@pytest.mark.parametrize(("a_format", "b_format"), FORMAT_PAIRS)
def test_matmul_adds_up_in_the_documented_order(a_format, b_format):
    a = random_tensor((5, 70))
    b = get_format(b_format).quantize(random_tensor((9, 70), seed=1))
    a_hat = a if a_format == NONE else get_format(a_format).fake_quantize(a)
    b_hat = get_format(b_format).dequantize(b)
    total = np.zeros((5, 9), np.float32)
    for k in range(70):
        # The 64 bits of longdouble hold these sums of a 29-bit product and a 24-bit total: one rounding a step, below.
        exact = a_hat[:, k, None].astype(np.longdouble) * b_hat[:, k].astype(np.longdouble) + total
        total = exact.astype(np.float32)
    np.testing.assert_array_equal(matmul(a, b, a_format, b_format), total)


@pytest.mark.parametrize("a_format", ["amxfp4", NONE])
@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
def test_a_float16_matmul_rounds_once_at_the_end(a_format, with_bias):
    a = random_tensor((21, 100), np.float16)
    b = get_format("amxfp4").quantize(random_tensor((40, 100), seed=1))
    bias = random_tensor((40,), np.float16, seed=2) if with_bias else None
    wide = matmul(a.astype(np.float32), b, a_format, "amxfp4", None if bias is None else bias.astype(np.float32))
    with np.errstate(over="ignore"):
        expected = wide.astype(np.float16)
    for constants in ((), CONSTANT_B):
        y = matmul(a, b, a_format, "amxfp4", bias, constants)
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"), [((1, 512), (600, 512)), ((300, 200), (300, 200)), ((6, 8, 64), (6, 70, 64))]
)
@pytest.mark.parametrize("constants", [(), CONSTANT_B], ids=["", "constant"])
def test_matmul_on_two_threads_gives_the_bits_of_one(a_shape, b_shape, constants):
    a, b = random_tensor(a_shape), get_format("amxfp4").quantize(random_tensor(b_shape, seed=1))
    one, two = (matmul(a, b, "amxfp4", "amxfp4", constants=constants, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["amxfp4", "mxfp4"])
def test_nan_in_an_operand_reaches_exactly_its_row_or_column(name):
    a, b = random_tensor((3, 64)), random_tensor((5, 64), seed=1)
    a[1, 40], b[2, 3] = np.inf, np.nan
    y = matmul(a, get_format(name).quantize(b), name, name)
    expected = np.zeros((3, 5), bool)
    expected[1], expected[:, 2] = True, True
    np.testing.assert_array_equal(np.isnan(y), expected)


@pytest.mark.parametrize(
    ("name", "golden"),
    [(f"amxfp4_b{block}", f"fp4_e2m1_asym_m152_b{block}") for block in (16, 32, 64)] + [("mxfp4", "fp4_e2m1_m0_b32")],
)
def test_matmul_agrees_with_the_golden_products(name, golden):
    with np.load(GOLDEN / "matmul.npz") as data:
        keys = [key.removesuffix("__A_f16") for key in data.files if key.endswith("__A_f16")]
        compared = 0
        for key in keys:
            if f"{key}__{golden}__Y64" not in data.files:
                continue
            a, w = data[f"{key}__A_f16"].astype(np.float32), data[f"{key}__W_f16"].astype(np.float32)
            bound = (a.shape[-1] * UNIT_ROUNDOFF + GOLDEN_SLACK) * data[f"{key}__{golden}__absum64"]
            y = matmul(a, quantize(w, name), name, name)
            assert (np.abs(y - data[f"{key}__{golden}__Y64"]) <= bound).all()
            compared += 1
        assert compared > 0
