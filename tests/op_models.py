"""One-node models of the custom ops, sessions of them with the library, and what their tests share.

Needs numpy, onnx and onnxruntime only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from mxcompile.formats import BlockTensor
from mxcompile.runtime import custom_ops_library

DOMAIN = "mxcompile"
OPSET, IR_VERSION = 21, 10
"""The newest that the oldest supported onnxruntime (1.20.1) reads."""

OUTPUTS: Mapping[str, Mapping[str, int]] = {
    "QuantizeBlock": {"codes": onnx.TensorProto.UINT8, "scales": onnx.TensorProto.UINT8},
    "DequantizeBlock": {"X_hat": onnx.TensorProto.FLOAT},
    "MatMulBlock": {"Y": onnx.TensorProto.FLOAT},
    "LibraryInfo": {"version": onnx.TensorProto.STRING, "isa": onnx.TensorProto.STRING},
}

Array = npt.NDArray[Any]

CONSTANT_B = ("B_codes", "B_scales")
"""The inputs of MatMulBlock that are weights."""

INTEGERS = ("dint4", "dint3", "int4", "int8")
"""The formats that MatMulBlock multiplies exactly with int8 rows."""

GOLDEN = Path(__file__).parent / "golden"


def one_node_model(
    op_type: str,
    inputs: Mapping[str, Array],
    attributes: Mapping[str, Any],
    constants: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int | str | None]] | None = None,
) -> onnx.ModelProto:
    """A model of one custom op.

    Args:
        op_type: One of `OUTPUTS`.
        inputs: The op's inputs in order, as arrays.
        attributes: The node's attributes.
        constants: Which inputs become initializers; the others are graph inputs.
        shapes: Declared shapes of graph inputs; unknown dimensions of the array's rank where there is none.
    """
    dynamic = [name for name in inputs if name not in constants]
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), list(OUTPUTS[op_type]), name="the-node", domain=DOMAIN, **attributes)],
        "one-node",
        [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(inputs[name].dtype),
                (shapes or {}).get(name, [None] * inputs[name].ndim),
            )
            for name in dynamic
        ],
        [
            helper.make_tensor_value_info(
                name, _half_if(op_type == "MatMulBlock" and inputs["A"].dtype == np.float16, type_), None
            )
            for name, type_ in OUTPUTS[op_type].items()
        ],
        initializer=[numpy_helper.from_array(inputs[name], name) for name in constants],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _half_if(condition: bool, type_: int) -> int:
    return onnx.TensorProto.FLOAT16 if condition else type_


def open_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    """A session with the library registered; onnxruntime's own log stays quiet about errors that a test expects."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(custom_ops_library()))
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_op(
    op_type: str,
    inputs: Mapping[str, Array],
    attributes: Mapping[str, Any],
    constants: Sequence[str] = (),
    threads: int = 1,
) -> list[Array]:
    """The outputs of one node."""
    session = open_session(one_node_model(op_type, inputs, attributes, constants), threads)
    feeds = {name: array for name, array in inputs.items() if name not in constants}
    return session.run(None, feeds)


def quantize(x: Array, name: str, axis: int = -1, threads: int = 1) -> BlockTensor:
    """QuantizeBlock."""
    codes, scales = run_op("QuantizeBlock", {"X": x}, {"format": name, "axis": axis}, threads=threads)
    return BlockTensor(codes, scales, size=x.shape[axis], axis=axis % x.ndim)


def dequantize(packed: BlockTensor, name: str, axis: int = -1, size: int | None = None, threads: int = 1) -> Array:
    """DequantizeBlock."""
    attributes = {"format": name, "axis": axis, "size": packed.size if size is None else size}
    inputs = {"codes": packed.codes, "scales": packed.scales}
    return run_op("DequantizeBlock", inputs, attributes, threads=threads)[0]


def matmul(
    a: Array,
    b: BlockTensor,
    a_format: str,
    b_format: str,
    bias: Array | None = None,
    constants: Sequence[str] = (),
    threads: int = 1,
    k: int | None = None,
) -> Array:
    """MatMulBlock; ``k`` in place of B's size."""
    inputs = {"A": a, "B_codes": b.codes, "B_scales": b.scales}
    if bias is not None:
        inputs["bias"] = bias
    attributes = {"a_format": a_format, "b_format": b_format, "k": b.size if k is None else k}
    return run_op("MatMulBlock", inputs, attributes, constants, threads)[0]


def random_tensor(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Numbers of mixed sizes, with zeros among them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-3, 4, shape))
    return np.where(rng.random(shape) < 0.05, 0, x).astype(dtype)


def assert_same(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """The same numbers, the same signs of zeros, NaN where NaN is expected."""
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)
    not_nan = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[not_nan]), np.signbit(expected[not_nan]))
