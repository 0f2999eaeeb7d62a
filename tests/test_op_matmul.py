"""MatMulBlock against the NumPy definition and the golden vectors; runs on every supported onnxruntime."""

import numpy as np
import numpy.typing as npt
import pytest
from op_models import CONSTANT_B, GOLDEN, INTEGERS, matmul, quantize, random_tensor

from mxcompile.formats import FORMATS, NONE, BlockTensor, get_format
from mxcompile.formats.elements import E4M3

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one float32 rounding. Source: IEEE 754-2019, binary32."""

EXTRA_ROUNDINGS = 2
"""A bound on MatMulBlock is ``(k + EXTRA_ROUNDINGS) * UNIT_ROUNDOFF * (sum(|a| * |b|) + |bias|)``: k fused
multiply-adds round the running sum once each, and none of the sums exceeds the sum of magnitudes by more than those
roundings; one more for the bias, and one for the terms of second order (k**2 * UNIT_ROUNDOFF < 1 here)."""

DECODING_ROUNDINGS = 4
"""More of them where both operands are nvfp4: decoding rounds the product of two scales, and that by an element, in A
and in B. The op leaves that out (it multiplies by the tensor scales at the end, one rounding, and adds up 16 products
without one)."""

GOLDEN_SLACK = 1e-7
"""Relative slack of ``absum64`` in the golden products, which is stored in float32. Source: their README."""


def exact_product(
    a: np.ndarray, b: BlockTensor, a_format: str, b_format: str, bias: np.ndarray | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The product of the decoded operands plus bias in float64, and the largest error of a float32 accumulation."""
    a_hat = (a if a_format == NONE else get_format(a_format).fake_quantize(a)).astype(np.float64)
    b_hat = np.swapaxes(get_format(b_format).dequantize(b), -1, -2).astype(np.float64)
    offset = np.float64(0) if bias is None else bias.astype(np.float64)
    magnitudes = np.abs(a_hat) @ np.abs(b_hat) + np.abs(offset)
    roundings = b.size + EXTRA_ROUNDINGS + DECODING_ROUNDINGS * (a_format == b_format == "nvfp4")
    return a_hat @ b_hat + offset, roundings * UNIT_ROUNDOFF * magnitudes


FEW_ROWS = 3
"""Up to so many rows of A, all batches together, constant amxfp4 weights are multiplied block by block with amxfp4."""

SHORT_PAIRS = [
    ("amxfp4", "amxfp4"),
    ("mxfp4", "mxfp4"),
    ("mxfp4_b64", "amxfp4_b16"),
    ("amxfp4_e4m3", "amxfp4_pot_r"),
    ("amxfp4_pot", "amxfp4_e4m3_b64"),
    ("mxfp8_e5m2", "mxfp8_e4m3"),
    (NONE, "mxfp4"),
    (NONE, "amxfp4"),
    (NONE, "mxfp6_e2m3_b16"),
    (NONE, "mxint8"),
]
"""Pairs whose elements of B have at most 8 significant bits."""
FORMAT_PAIRS = [
    *SHORT_PAIRS,
    ("nvfp4", "nvfp4"),
    (NONE, "nvfp4"),
    ("amxint4", "amxint4"),
    ("int8", "mxfp4_even"),
    ("amxfp4", "dint3"),
    ("int8_b128", "int4"),
    ("int4", "int8_b32"),
    (NONE, "dint4"),
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
    for constants in ((), CONSTANT_B):  # k = 0: as A has it
        np.testing.assert_array_equal(matmul(a, b, a_format, b_format, bias, constants, k=0), y)


@pytest.mark.parametrize(("a_format", "b_format"), SHORT_PAIRS)
def test_matmul_adds_up_in_the_documented_order(a_format, b_format):
    a = random_tensor((5, 70))
    b = get_format(b_format).quantize(random_tensor((9, 70), seed=1))
    a_hat = a if a_format == NONE else get_format(a_format).fake_quantize(a)
    b_hat = get_format(b_format).dequantize(b)
    total = np.zeros((5, 9), np.float32)
    for k in range(70):
        # The 64 bits of longdouble hold these sums of a 32-bit product and a 24-bit total: one rounding a step, below.
        exact = a_hat[:, k, None].astype(np.longdouble) * b_hat[:, k].astype(np.longdouble) + total
        total = exact.astype(np.float32)
    np.testing.assert_array_equal(matmul(a, b, a_format, b_format), total)


def block_elements(packed: BlockTensor, name: str, one: int) -> npt.NDArray[np.float32]:
    """Elements without their scales, ``[rows, blocks, 32]``, zeros behind the row; ``one`` is the scale 1."""
    ones = np.full_like(packed.scales, one)
    elements = get_format(name).dequantize(BlockTensor(packed.codes, ones, packed.size, packed.axis))
    return np.pad(elements, ((0, 0), (0, -packed.size % 32))).reshape(len(elements), -1, 32)


def wide_tensors(m: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A ``[m, 700]`` and B ``[40, 700]`` of such different sizes that the order of additions shows."""
    exponents = np.random.default_rng(2).integers(-10, 10, (m + 40, 22))  # of a block each
    factors = np.exp2(exponents).astype(np.float32).repeat(32, axis=1)[:, :700]
    return random_tensor((m, 700)) * factors[:m], random_tensor((40, 700), seed=1) * factors[m:]


@pytest.mark.parametrize("m", [1, 2, FEW_ROWS])
def test_few_amxfp4_rows_times_constants_add_up_block_by_block(m):
    a, w = wide_tensors(m)
    fmt = get_format("amxfp4")
    operands = fmt.quantize(a), fmt.quantize(w)
    sides = []
    for packed in operands:
        elements = block_elements(packed, "amxfp4", 0x3C)
        sides.append(np.stack([np.maximum(elements, 0), np.maximum(-elements, 0)]))
    sums = np.einsum("imbk,jnbk->ijmnb", *sides).astype(np.longdouble)  # by the signs of both factors
    a_scales, b_scales = (
        (packed.scales.astype(np.uint16) << 8).view(np.float16).astype(np.longdouble) for packed in operands
    )
    total = np.zeros((m, 40), np.float32)
    for block in range(sums.shape[-1]):
        above, below = b_scales[:, block].T
        for side, sign in ((0, 1), (1, -1)):
            s = sums[side, ..., block]
            part = (above * s[0] - below * s[1]).astype(np.float32)  # exact products: one rounding
            total = (sign * a_scales[:, None, block, side] * part + total).astype(np.float32)
    np.testing.assert_array_equal(matmul(a, operands[1], "amxfp4", "amxfp4", constants=CONSTANT_B), total)


@pytest.mark.parametrize("name", ["mxfp4", "mxfp4_even"])
@pytest.mark.parametrize("m", [1, 6, 7, 40])
@pytest.mark.parametrize("constants", [(), CONSTANT_B], ids=["", "constant"])
def test_mxfp4_rows_add_up_block_by_block(m, name, constants):
    a, w = wide_tensors(m)
    fmt = get_format(name)
    packed, b = fmt.quantize(a), fmt.quantize(w)
    sums = np.einsum("mbk,nbk->mnb", *(block_elements(each, name, 127) for each in (packed, b)))
    a_scales, b_scales = (np.ldexp(1.0, each.scales[..., 0].astype(np.int32) - 127) for each in (packed, b))
    total = np.zeros((m, 40), np.float32)
    for block in range(sums.shape[-1]):
        exact = sums[..., block].astype(np.longdouble) * a_scales[:, None, block] * b_scales[:, block] + total
        total = exact.astype(np.float32)
    np.testing.assert_array_equal(matmul(a, b, name, name, constants=constants), total)


def nvfp4_parts(packed: BlockTensor) -> list[npt.NDArray[np.float64]]:
    """Tensor scales ``[rows]``, block scales ``[rows, blocks]``, elements ``[rows, blocks, 16]``."""
    tensor_scales = np.ascontiguousarray(packed.scales[:, :4, 0]).view("<f4")[:, 0]
    ones = np.full_like(packed.scales, 0x38)
    ones[:, :4, 0] = np.array([1], "<f4").view(np.uint8)
    elements = get_format("nvfp4").dequantize(BlockTensor(packed.codes, ones, packed.size, packed.axis))
    blocks = np.pad(elements, ((0, 0), (0, -packed.size % 16))).reshape(len(elements), -1, 16)
    return [x.astype(np.float64) for x in (tensor_scales, E4M3.decode_table[packed.scales[:, 4:, 0]], blocks)]


@pytest.mark.parametrize("m", [1, 6, 7, 40])
@pytest.mark.parametrize("constants", [(), CONSTANT_B], ids=["", "constant"])
def test_nvfp4_rows_add_up_block_by_block_without_their_tensor_scales(m, constants):
    a, w = wide_tensors(m)
    fmt = get_format("nvfp4")
    pieces = [fmt.quantize(w[:20]), fmt.quantize(w[20:] * np.float32(1e-30))]  # each row has its own tensor scale
    b = BlockTensor(*(np.concatenate([getattr(piece, x) for piece in pieces]) for x in ("codes", "scales")), 700, 1)
    (a_tensor, a_scales, a_elements), (b_tensor, b_scales, b_elements) = (
        nvfp4_parts(packed) for packed in (fmt.quantize(a), b)
    )
    sums = np.einsum("mbk,nbk->mnb", a_elements, b_elements)
    total = np.zeros((m, 40), np.float32)
    for block in range(sums.shape[-1]):
        exact = (sums[..., block] * a_scales[:, None, block] * b_scales[:, block]).astype(np.longdouble) + total
        total = exact.astype(np.float32)
    expected = (total.astype(np.float64) * (a_tensor[:, None] * b_tensor)).astype(np.float32)
    np.testing.assert_array_equal(matmul(a, b, "nvfp4", "nvfp4", constants=constants), expected)


@pytest.mark.parametrize(
    ("a_format", "b_format"), [("amxfp4", "amxfp4"), (NONE, "amxfp4"), ("nvfp4", "nvfp4"), ("int8", "dint4")]
)
@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
def test_a_float16_matmul_rounds_once_at_the_end(a_format, b_format, with_bias):
    a = random_tensor((21, 100), np.float16)
    b = get_format(b_format).quantize(random_tensor((40, 100), seed=1))
    bias = random_tensor((40,), np.float16, seed=2) if with_bias else None
    wide = matmul(a.astype(np.float32), b, a_format, b_format, None if bias is None else bias.astype(np.float32))
    with np.errstate(over="ignore"):
        expected = wide.astype(np.float16)
    for constants in ((), CONSTANT_B):
        y = matmul(a, b, a_format, b_format, bias, constants)
        assert y.dtype == np.float16
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"), [((1, 512), (600, 512)), ((300, 200), (300, 200)), ((6, 8, 64), (6, 70, 64))]
)
@pytest.mark.parametrize(
    ("a_format", "b_format"), [("amxfp4", "amxfp4"), ("nvfp4", "nvfp4"), ("mxint8", "dint3"), ("int8", "dint4")]
)
@pytest.mark.parametrize("constants", [(), CONSTANT_B], ids=["", "constant"])
def test_matmul_on_two_threads_gives_the_bits_of_one(a_shape, b_shape, a_format, b_format, constants):
    a, b = random_tensor(a_shape), get_format(b_format).quantize(random_tensor(b_shape, seed=1))
    one, two = (matmul(a, b, a_format, b_format, constants=constants, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def integer_product(a: np.ndarray, b: BlockTensor, b_format: str) -> npt.NDArray[np.float32]:
    """int8 rows times integer rows as the contract has it: an exact sum of integers, then three roundings."""

    def parts(packed: BlockTensor, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The scale of a unit, float32 ``[..., rows, 1]``, and whole units, int64 ``[..., rows, k]``."""
        fmt = get_format(name)
        ones = np.zeros_like(packed.scales)
        ones[..., :4] = np.array([1], "<f4").view(np.uint8)
        ones[..., 4] = packed.scales[..., 4]
        factor = 2 if fmt.half_steps else 1
        steps = fmt.dequantize(BlockTensor(packed.codes, ones, packed.size, packed.axis))
        scale = np.ascontiguousarray(packed.scales[..., 0, :4]).view("<f4")
        return scale / np.float32(factor), (steps * factor).astype(np.int64)

    (a_scale, a_units), (b_scale, b_units) = parts(get_format("int8").quantize(a), "int8"), parts(b, b_format)
    total = a_units @ np.swapaxes(b_units, -1, -2)
    return a_scale * np.swapaxes(b_scale, -1, -2) * total.astype(np.float32)


@pytest.mark.parametrize("b_format", INTEGERS)
@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((4, 100), (8, 100)),
        ((1, 256), (70, 256)),
        ((133, 65), (33, 65)),
        ((3, 1), (5, 1)),
        ((2, 9000), (3, 9000)),
        ((2, 3, 4, 64), (3, 5, 64)),
    ],
)
def test_int8_times_integers_is_an_exact_sum(a_shape, b_shape, b_format):
    a, b = random_tensor(a_shape), get_format(b_format).quantize(random_tensor(b_shape, seed=1))
    expected, bias = integer_product(a, b, b_format), random_tensor(b_shape[-2:-1], seed=2)
    np.testing.assert_array_equal(matmul(a, b, "int8", b_format), expected)
    np.testing.assert_array_equal(matmul(a, b, "int8", b_format, bias, CONSTANT_B), expected + bias)


@pytest.mark.parametrize("b_format", INTEGERS)
def test_int8_times_integers_with_any_bytes_is_an_exact_sum(b_format):
    fmt, rng = get_format(b_format), np.random.default_rng(3)
    codes = fmt.quantize(np.zeros((40, 20000), np.float32)).codes
    scales = np.full((40, 1, 5), np.array([*np.array([1], "<f4").view(np.uint8), 255]), np.uint8)
    scales[:20, :, 4] = rng.integers(0, 256, (20, 1))
    b = BlockTensor(rng.integers(0, 256, codes.shape, np.uint8), scales, size=20000, axis=1)
    a = np.ones((3, 20000), np.float32)  # the largest code and, as a_units, 255
    np.testing.assert_array_equal(matmul(a, b, "int8", b_format), integer_product(a, b, b_format))


@pytest.mark.parametrize("b_format", INTEGERS)
@pytest.mark.parametrize(("a_shape", "b_shape"), EMPTY_MATMULS)
def test_int8_times_integers_of_no_elements_is_zero(a_shape, b_shape, b_format):
    b = get_format(b_format).quantize(np.zeros(b_shape, np.float32))
    y = matmul(np.zeros(a_shape, np.float32), b, "int8", b_format)
    assert y.shape == (*np.broadcast_shapes(a_shape[:-2], b_shape[:-2]), a_shape[-2], b_shape[-2])
    assert (y == 0).all()


@pytest.mark.parametrize("name", FORMATS)
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
