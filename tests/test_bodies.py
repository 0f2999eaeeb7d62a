"""The function bodies, run by an onnxruntime without our library, against the NumPy definition: bit for bit."""

import functools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mxcompile import ops
from mxcompile.formats import FORMATS, NONE, BlockTensor, get_format
from mxcompile.formats.packing import packed_size

NAMES = [*FORMATS, "amxfp4_b16", "dint4_b128"]
RNG = np.random.default_rng(0)
SHAPES = [((3, 5, 96), -1), ((3, 70, 4), 1), ((33, 2), 0), ((7,), 0), ((2, 3, 100), 2), ((1, 64), -1)]
EMPTY = [((2, 0, 64), -1), ((2, 3, 0), -1), ((0,), 0), ((0, 3), 1)]

SUM_UNITS = 2
"""Bound on a float32 matmul in any order: ``(k + SUM_UNITS) * 2**-24 * sum(|a| * |b|)``: k roundings of products and
running sums (products of two decoded elements are exact, but with ``none`` they are not), one of the bias."""


@functools.cache
def bodies(*formats: str) -> list[onnx.FunctionProto]:
    return [ir.to_proto(body) for body in ops.functions(formats)]


def run(
    op_type: str,
    feeds: dict[str, np.ndarray],
    attributes: dict[str, object],
    outputs: dict[str, tuple[ir.DataType, int]],
    formats: list[str],
    constant: bool = False,
) -> list[np.ndarray]:
    """One node with its bodies for ``formats``, in a session without our library; its inputs may be constants."""
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(x.dtype)), shape=ir.Shape([None] * x.ndim))
        for name, x in feeds.items()
    ]
    node = ir.node(op_type, inputs, attributes, domain=ops.DOMAIN, num_outputs=len(outputs))
    for value, (name, (dtype, rank)) in zip(node.outputs, outputs.items(), strict=True):
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape([None] * rank)
    opsets = {"": ops.OPSET, ops.DOMAIN: ops.VERSION}
    graph = ir.Graph([] if constant else inputs, node.outputs, nodes=[node], opset_imports=opsets, name="one-node")
    for value in inputs if constant else ():
        value.const_value = ir.tensor(feeds[value.name], name=value.name)
        value.shape = value.const_value.shape
        graph.register_initializer(value)
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    proto.functions.extend(bodies(*formats))
    onnx.checker.check_model(proto)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {} if constant else feeds)


def quantize(x: np.ndarray, name: str, axis: int, formats: list[str]) -> BlockTensor:
    outputs = {"codes": (ir.DataType.UINT8, x.ndim), "scales": (ir.DataType.UINT8, x.ndim + 1)}
    codes, scales = run(ops.QUANTIZE, {"X": x}, {"format": name, "axis": axis}, outputs, formats)
    return BlockTensor(codes, scales, size=x.shape[axis], axis=axis % x.ndim)


def dequantize(
    packed: BlockTensor, name: str, axis: int, formats: list[str], *, size: int | None = None, constant: bool = False
) -> np.ndarray:
    feeds = {"codes": packed.codes, "scales": packed.scales}
    attributes = {"format": name, "axis": axis, "size": packed.size if size is None else size}
    outputs = {"X_hat": (ir.DataType.FLOAT, packed.codes.ndim)}
    return run(ops.DEQUANTIZE, feeds, attributes, outputs, formats, constant)[0]


def check(x: np.ndarray, name: str, axis: int, formats: list[str]) -> None:
    expected = get_format(name).quantize(x, axis=axis)
    packed = quantize(x, name, axis, formats)
    np.testing.assert_array_equal(packed.codes, expected.codes)
    np.testing.assert_array_equal(packed.scales, expected.scales)
    x_hat, definition = dequantize(packed, name, axis, formats), get_format(name).dequantize(expected)
    np.testing.assert_array_equal(x_hat, definition)
    np.testing.assert_array_equal(np.signbit(x_hat), np.signbit(definition))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "axis"), SHAPES + EMPTY)
def test_quantize_and_dequantize_give_the_bits_of_the_definition(name, shape, axis):
    check((RNG.standard_normal(shape) * 2).astype(np.float32), name, axis, [name])


@pytest.mark.parametrize("name", NAMES)
def test_float16_is_widened(name):
    check((RNG.standard_normal((3, 70, 4)) * 2).astype(np.float16), name, 1, [name])


@pytest.mark.parametrize("name", NAMES)
def test_every_format_of_a_model_with_several_runs_its_own_branch(name):
    check(RNG.standard_normal((4, 100)).astype(np.float32), name, -1, [*NAMES, NONE])


@pytest.mark.parametrize("name", NAMES)
def test_special_values_give_the_bits_of_the_definition(name):
    size = get_format(name).block_size or 40
    blocks = np.zeros((12, size), np.float32)
    blocks[0, 3], blocks[1, 0], blocks[2, -1] = np.nan, np.inf, -np.inf
    blocks[3], blocks[4, ::2] = -0.0, -1
    blocks[5] = np.clip(RNG.standard_normal(size), -3, 3) * 1e38
    blocks[6] = RNG.standard_normal(size) * 1e-42
    blocks[7, :7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 6.0]
    blocks[8] = RNG.standard_normal(size) * 2.0**-17
    blocks[9] = np.abs(RNG.standard_normal(size))
    blocks[10], blocks[11] = RNG.standard_normal(size) * 1e-30, -np.abs(RNG.standard_normal(size)) * 1e30
    check(blocks.reshape(-1), name, 0, [name])
    for block in blocks:
        check(block, name, 0, [name])


@pytest.mark.parametrize("name", NAMES)
def test_any_codes_and_scale_bytes_decode_as_in_the_definition(name):
    fmt, rng = get_format(name), np.random.default_rng(2)
    size = 2 * (fmt.block_size or 40)
    codes = rng.integers(0, 256, (300, packed_size(size, fmt.element.bits)), np.uint8)
    scales = rng.integers(0, 256, (300, fmt.scale_groups(size), fmt.scales_per_block), np.uint8)
    scales[:256, :, :] = np.arange(256, dtype=np.uint8)[:, None, None]  # every byte, in all places
    packed = BlockTensor(codes, scales, size=size, axis=1)
    np.testing.assert_array_equal(dequantize(packed, name, -1, [name]), fmt.dequantize(packed))


@pytest.mark.parametrize("first", NAMES)
def test_constant_operands_load_beside_the_branch_of_any_other_format(first):
    # With constants, shape inference of onnxruntime 1.20 and 1.23 looks into the branches that are not taken.
    x = RNG.standard_normal((4, 96)).astype(np.float32)
    expected = get_format(first).quantize(x)
    for second in ("amxfp4", "mxfp6_e3m2", "nvfp4", "amxint4", "dint4", "mxfp4_b16"):  # every layout of bytes
        y = dequantize(expected, first, -1, [first, second], constant=True)
        np.testing.assert_array_equal(y, get_format(first).dequantize(expected))


def test_size_zero_stands_for_two_elements_a_byte():
    packed = get_format("amxfp4").quantize(np.ones((2, 64), np.float32))
    assert dequantize(packed, "amxfp4", -1, ["amxfp4"], size=0).shape == (2, 64)


CASES = [
    ((4, 100), (8, 100)),
    ((2, 3, 4, 64), (3, 5, 64)),
    ((64,), (5, 64)),
    ((1, 3, 4, 33), (2, 1, 5, 33)),
    ((0, 64), (5, 64)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), CASES)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("says_k", [True, False], ids=["", "k_of_a"])
@pytest.mark.parametrize(("a_format", "b_format"), [("amxfp4", "amxfp4"), ("mxfp4", "amxfp4_b16"), (NONE, "mxfp4")])
def test_matmul_is_the_product_of_the_decoded_operands(a_shape, b_shape, bias, says_k, a_format, b_format):
    rng = np.random.default_rng(1)
    a = rng.standard_normal(a_shape).astype(np.float32)
    b = get_format(b_format).quantize(rng.standard_normal(b_shape).astype(np.float32))
    feeds = {"A": a, "B_codes": b.codes, "B_scales": b.scales}
    offset = rng.standard_normal(b_shape[-2]).astype(np.float32) if bias else np.zeros(b_shape[-2], np.float32)
    if bias:
        feeds["bias"] = offset
    attributes = {"a_format": a_format, "b_format": b_format, "k": b.size if says_k else 0}
    formats = sorted({a_format, b_format})
    (y,) = run(
        ops.MATMUL, feeds, attributes, {"Y": (ir.DataType.FLOAT, max(a.ndim, b.codes.ndim) - (a.ndim == 1))}, formats
    )
    a_hat = (a if a_format == NONE else get_format(a_format).fake_quantize(a)).astype(np.float64)
    b_hat = np.swapaxes(get_format(b_format).dequantize(b), -1, -2).astype(np.float64)
    expected = a_hat @ b_hat + offset
    bound = (b.size + SUM_UNITS) * 2.0**-24 * (np.abs(a_hat) @ np.abs(b_hat) + np.abs(offset))
    assert y.shape == expected.shape
    assert (np.abs(y - expected) <= bound).all()


@pytest.mark.parametrize("a_format", ["amxfp4", NONE])
def test_a_float16_matmul_rounds_once_at_the_end(a_format):
    a = RNG.standard_normal((4, 64)).astype(np.float16)
    b = get_format("amxfp4").quantize(RNG.standard_normal((8, 64)).astype(np.float32))
    bias = RNG.standard_normal(8).astype(np.float16)
    feeds = {"A": a, "B_codes": b.codes, "B_scales": b.scales, "bias": bias}
    attributes = {"a_format": a_format, "b_format": "amxfp4", "k": 64}
    formats = ["amxfp4", NONE] if a_format == NONE else ["amxfp4"]
    (y,) = run(ops.MATMUL, feeds, attributes, {"Y": (ir.DataType.FLOAT16, 2)}, formats)
    a_hat = (a if a_format == NONE else get_format("amxfp4").fake_quantize(a)).astype(np.float64)
    b_hat = get_format("amxfp4").dequantize(b).astype(np.float64).T
    expected = a_hat @ b_hat + bias
    spread = 66 * 2.0**-24 * (np.abs(a_hat) @ np.abs(b_hat) + np.abs(bias))
    assert y.dtype == np.float16
    assert (y >= (expected - spread).astype(np.float16)).all()  # rounding is monotonic
    assert (y <= (expected + spread).astype(np.float16)).all()


def test_bodies_serve_exactly_the_formats_that_are_asked_for():
    def branches(formats: list[str]) -> int:
        return sum(node.op_type == "If" for body in ops.functions(formats) for node in body.all_nodes())

    assert branches(["amxfp4"]) == 1  # in MatMulBlock, for a k of 0
    assert branches(["amxfp4", NONE]) == 2  # a second one in MatMulBlock
    assert branches(["amxfp4", "mxfp4"]) == 4  # and one each in QuantizeBlock and DequantizeBlock


def test_names_in_a_branch_hide_none_outside():
    for body in ops.functions([*NAMES, NONE]):
        outputs = [value.name for node in body.all_nodes() for value in node.outputs]
        assert len(outputs) == len(set(outputs))
