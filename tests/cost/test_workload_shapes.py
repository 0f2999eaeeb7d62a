"""Symbolic shapes against what onnxruntime gives: every value of whole models, at several sizes; and rule by rule."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx_ir as ir
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.cost import quantities
from mxcompile.cost.quantities import Quantity, symbol
from mxcompile.cost.shape_rules import packed_size, scale_groups
from mxcompile.cost.shapes import Visit, input_dims, visit
from mxcompile.errors import CostModelError
from mxcompile.formats import FORMATS, packing
from mxcompile.onnx_file import read_model, write_model

Exported = Callable[[str], Path]

DECODER_SIZES = (
    {"batch_size": 2, "sequence_length": 5, "past_sequence_length": 3},
    {"batch_size": 1, "sequence_length": 7, "past_sequence_length": 0},
    {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 33},
)
"""With and without a cache; 33 tokens are a whole block and a rest."""

NUMPY = {
    ir.DataType.BOOL: np.bool_,
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
    ir.DataType.INT32: np.int32,
    ir.DataType.INT64: np.int64,
    ir.DataType.UINT8: np.uint8,
}


def evaluated(values: Any, dims: Mapping[str, int]) -> list[int | None]:
    sizes = {symbol(name): sympy.Integer(value) for name, value in dims.items()}
    return [None if each is None else quantities.evaluate(each, sizes) for each in values]


def feeds(model: ir.Model, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Inputs of those sizes; all tokens count, so nothing depends on them."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {}
    for value, (name, shape) in zip(model.graph.inputs, input_dims(model).items(), strict=True):
        sizes = [each for each in evaluated(shape, dims) if each is not None]
        assert value.dtype is not None
        dtype = NUMPY[value.dtype]
        if value.dtype is ir.DataType.INT64:
            made[name] = np.ones(sizes, dtype)
        elif value.dtype is ir.DataType.BOOL:
            made[name] = np.full(sizes, dims["past_decoder_sequence_length"] > 0)
        else:
            made[name] = rng.integers(1, 30, sizes).astype(dtype)
    return made


def observed(model: ir.Model, dims: Mapping[str, int], folder: Path) -> dict[str, np.ndarray]:
    """What onnxruntime gives for every value of the main graph, nothing folded or fused."""
    inputs = feeds(model, dims)
    given = list(model.graph.outputs)
    for each in visit(model):
        for value, tensor in zip(each.node.outputs, each.outputs, strict=True):
            if value.graph is model.graph and value.name and value not in given:
                assert tensor.dtype is not None
                value.type = ir.TensorType(tensor.dtype)
                model.graph.outputs.append(value)
    path = folder / "all.onnx"
    write_model(model, path)
    del model.graph.outputs[len(given) :]
    session = runtime.create_session(path, threads=1)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(model: ir.Model, dims: Mapping[str, int], folder: Path) -> int:
    """Compares all values of the main graph; how many."""
    found = observed(model, dims, folder)
    number = 0
    for each in visit(model):
        for value, tensor in zip(each.node.outputs, each.outputs, strict=True):
            if value.graph is not model.graph or not value.name:
                continue
            array = found[value.name]
            assert tensor.dims is not None, tensor
            assert tensor.dtype is not None
            assert tuple(evaluated(tensor.dims, dims)) == array.shape, tensor
            assert array.dtype == NUMPY[tensor.dtype], tensor
            if tensor.elements is not None:
                known = zip(evaluated(tensor.elements, dims), array.reshape(-1).tolist(), strict=True)
                assert all(element in (None, actual) for element, actual in known), tensor
            number += 1
    return number


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "phi3", "opt"])
def test_all_values_of_a_decoder_have_the_shapes_that_onnxruntime_gives(
    name: str, exported_model_folder: Exported, tmp_path: Path
) -> None:
    model = read_model(exported_model_folder(name) / "model.onnx")
    for dims in DECODER_SIZES:
        assert check(model, dims, tmp_path) > 250


@pytest.mark.parametrize("name", ["bert", "modernbert", "vit"])
def test_all_values_of_an_encoder_have_the_shapes_that_onnxruntime_gives(
    name: str, exported_model_folder: Exported, tmp_path: Path
) -> None:
    model = read_model(exported_model_folder(name) / "model.onnx")
    dims = {"batch_size": 2, "sequence_length": 6, "num_channels": 3, "height": 32, "width": 32}
    assert check(model, dims, tmp_path) > 100


@pytest.mark.parametrize("past", [0, 4])
def test_results_of_both_branches_have_the_shapes_that_onnxruntime_gives(
    past: int, exported_model_folder: Exported, tmp_path: Path
) -> None:
    model = read_model(exported_model_folder("t5") / "decoder_model_merged.onnx")
    dims = {"batch_size": 2, "decoder_sequence_length": 3, "encoder_sequence_length": 6}
    dims["past_decoder_sequence_length"] = past
    branch = "/then/" if past else "/else/"
    results = {value.name: value for value in model.graph.outputs}
    found = observed(model, dims, tmp_path)
    inside = [tensor for each in visit(model) if branch in each.path for tensor in each.outputs]
    shapes = {tensor.name: tensor.dims for tensor in inside}
    for name in results:
        shape = shapes.get(name or "")
        if shape is not None:
            assert tuple(evaluated(shape, dims)) == found[name or ""].shape
    assert len(shapes.keys() & results.keys()) > 4


@pytest.mark.parametrize("kv_cache", ["packed", "float"])
@pytest.mark.parametrize("kv_blocking", ["sequence", "token"])
def test_all_values_of_a_compiled_decoder_have_the_shapes_that_onnxruntime_gives(
    kv_cache: Any, kv_blocking: Any, exported_model_folder: Exported, tmp_path: Path
) -> None:
    source, output = exported_model_folder("llama") / "model.onnx", tmp_path / "compiled.onnx"
    compile_model(source, format="amxfp4", output=output, kv_cache=kv_cache, kv_blocking=kv_blocking)
    model = read_model(output, compiled=True)
    for dims in DECODER_SIZES:
        assert check(model, dims, tmp_path) > 250


@pytest.mark.parametrize("name", FORMATS)
def test_sizes_of_quantized_rows_are_those_of_the_format(name: str) -> None:
    fmt, k = FORMATS[name], symbol("k")
    for size in (0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129):
        want = [packing.packed_size(size, fmt.element.bits), fmt.scale_groups(size)]
        assert evaluated([packed_size(fmt, k), scale_groups(fmt, k)], {"k": size}) == want
        assert [packed_size(fmt, size), scale_groups(fmt, size)] == want


_SLICES = [
    (start, end, step)
    for start, end, step in itertools.product([None, 0, 1, 3, -1, -2, -9, 9], [0, 2, 5, -1, -9, 99], [1, 2])
    if start is not None
]


@pytest.mark.parametrize(("start", "end", "step"), [*_SLICES, (-1, -99, -1), (3, 0, -1), (-1, -3, -2)])
def test_a_slice_of_a_vector_is_the_one_that_onnxruntime_cuts(start: int, end: int, step: int, tmp_path: Path) -> None:
    ints = {"start": [start], "end": [end], "axis": [0], "step": [step]}
    weights = {name: np.array(value, np.int64) for name, value in ints.items()}
    body = "shape = Shape(x) y = Slice(shape, start, end, axis, step)"
    model = models.parse(body, "float[a,b,2,c,5] x", "int64[n] y", weights)
    assert check(model, {"a": 7, "b": 1, "c": 3}, tmp_path) == 2


_OPERATORS = {
    "Range": "n = Size(x) size = Cast<to = 7>(n) y = Range(zero, size, two)",
    "Split": "y, z, u = Split<axis = 1, num_outputs = 3>(x)",
    "Split by sizes": "y, z = Split<axis = 2>(x, sizes)",
    "Pad": "y = Pad(x, pads)",
    "Pad one axis": "y = Pad(x, two_pads, nothing, axis)",
    "Tile": "y = Tile(x, repeats)",
    "Expand": "s = Shape(x) two_more = Concat<axis = 0>(ones, s) y = Expand(x, two_more)",
    "Reshape": "y = Reshape(x, minus)",
    "Reshape with zeros": "y = Reshape(x, keep)",
    "Flatten": "y = Flatten<axis = 2>(x)",
    "ReduceSum": "y = ReduceSum<keepdims = 0>(x, axis)",
    "ReduceMax of all": "y = ReduceMax(x)",
    "ArgMax": "y = ArgMax<axis = 1, keepdims = 0>(x)",
    "TopK": "y, z = TopK<axis = 2>(x, one)",
    "Gather": "y = Gather<axis = 1>(x, ones)",
    "GatherElements": "y = GatherElements<axis = 1>(x, indices)",
    "OneHot": "s = Shape(x) y = OneHot<axis = 0>(s, depth, pair)",
    "Transpose": "y = Transpose(x)",
    "CumSum": "y = CumSum(x, zero)",
    "Trilu": "y = Trilu<upper = 1>(x)",
    "Unsqueeze": "y = Unsqueeze(x, ends)",
    "Squeeze": "u = Unsqueeze(x, ends) y = Squeeze(u)",
    "Einsum": 'y = Einsum<equation = "bsk, bnk -> bsn">(x, x)',
    "Gemm": "m = Flatten<axis = 1>(x) y = Gemm<transB = 1>(m, m)",
    "MatMul by a vector": "y = MatMul(x, vector)",
    "MatMul of batches": "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t)",
    "Max of three": "y = Max(x, scalar, vector)",
    "Where": "c = Equal(x, scalar) y = Where(c, x, vector)",
    "ConstantOfShape": "s = Shape<start = 1>(x) y = ConstantOfShape(s)",
    "ScatterElements": "y = ScatterElements<axis = 1>(x, indices, updates)",
    "LayerNormalization": "y, mean, deviation = LayerNormalization(x, vector)",
    "Conv": "image = Unsqueeze(x, one) y = Conv<strides = [2, 1], pads = [1, 0, 1, 2]>(image, kernel)",
    "Conv, padded alike": 'i = Unsqueeze(x, one) y = Conv<strides = [2, 2], auto_pad = "SAME_UPPER">(i, kernel)',
    "AveragePool": "image = Unsqueeze(x, one) y = AveragePool<kernel_shape = [2, 2], ceil_mode = 1>(image)",
    "GlobalAveragePool": "image = Unsqueeze(x, one) y = GlobalAveragePool(image)",
    "sizes in floor divisions": "s = Shape(x) half = Div(s, two_vector) more = Add(half, s) y = ConstantOfShape(more)",
    "sizes in remainders": "s = Shape(x) rest = Mod(s, two_vector) y = Expand(scalar, rest)",
    "sizes behind masks": (
        "s = Shape(x) n = Shape(s) ones_too = ConstantOfShape<value = int64[1] {1}>(n) "
        "less = Mul(ones_too, minus_one) same = Equal(s, less) "
        "shape = Where(same, ones_too, s) y = Expand(scalar, shape)"
    ),
}
_CONSTANTS = {
    "zero": np.int64(0),
    "two": np.int64(2),
    "one": np.array([1]),
    "ones": np.array([1, 1]),
    "two_vector": np.array([2]),
    "minus_one": np.array([-1]),
    "sizes": np.array([1, 3]),
    "pads": np.array([0, 1, 2, 0, 0, 1]),
    "two_pads": np.array([2, 1]),
    "axis": np.array([1]),
    "repeats": np.array([1, 2, 3]),
    "minus": np.array([2, -1]),
    "keep": np.array([0, 0, 2, -1]),
    "ends": np.array([0, -1]),
    "depth": np.int64(9),
    "scalar": np.float32(1),
    "pair": np.array([0, 1], np.float32),
    "vector": np.arange(4, dtype=np.float32),
    "nothing": np.float32(0),
    "indices": np.zeros((1, 3, 4), np.int64),
    "updates": np.zeros((1, 3, 4), np.float32),
    "kernel": np.zeros((5, 1, 3, 2), np.float32),
}


@pytest.mark.parametrize("name", _OPERATORS)
def test_an_operator_has_the_shape_that_onnxruntime_gives(name: str, tmp_path: Path) -> None:
    body = _OPERATORS[name]
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    constants = {key: np.asarray(value) for key, value in _CONSTANTS.items() if key in words}
    model = models.parse(body, "float[a,b,4] x", "int64 y", constants)
    (y,) = model.graph.outputs
    *_, last = visit(model)
    y.type = ir.TensorType(last.outputs[0].dtype or ir.DataType.FLOAT)
    y.shape = None
    for dims in ({"a": 2, "b": 3}, {"a": 6, "b": 5}):
        assert check(model, dims, tmp_path) > 0


def found(body: str, weights: dict[str, Any] | None = None, inputs: str = "float[a,b,4] x") -> Visit:
    """The last node of a graph."""
    return list(visit(models.parse(body, inputs, "float[unknown] y", weights or {})))[-1]


def test_an_operator_without_a_rule_has_an_unknown_shape_and_says_so() -> None:
    last = found("z = Det(x) y = Neg(z)")
    assert last.outputs[0].dims is None
    assert last.outputs[0].unknown == "what Det gives is not known"


def test_a_malformed_node_has_an_unknown_shape() -> None:
    last = found("y = MatMul(x)")
    assert last.outputs[0].dims is None
    assert "MatMul has no input 1" in last.outputs[0].unknown


def test_a_reshape_to_a_size_from_outside_is_unknown() -> None:
    last = found("y = Reshape(x, size)", inputs="float[a,b,4] x, int64[2] size")
    assert last.outputs[0].dims is None


def test_shape_inference_leaves_the_model_as_it_is(exported_model_folder: Exported) -> None:
    model = read_model(exported_model_folder("llama") / "model.onnx")
    before = ir.to_proto(model).SerializeToString()
    assert sum(1 for _ in visit(model)) > 0
    assert ir.to_proto(model).SerializeToString() == before


def test_names_of_dimensions_are_read_as_arithmetic_of_other_dimensions() -> None:
    known = {"past", "seq"}
    sizes = {"past": 70, "seq": 3}
    texts = ["past", "past + seq", "(past + seq) // 32 * 16", "past % 32", "past - seq"]
    assert evaluated([quantities.parse(text, known) for text in texts], sizes) == [70, 73, 32, 6, 67]


@pytest.mark.parametrize("text", ["batch-size", "past + other", "decoder::x", "f(past)", "past ** 2", ""])
def test_a_name_that_is_no_arithmetic_of_dimensions_is_a_dimension_of_its_own(text: str) -> None:
    assert quantities.parse(text, {"past"}) == symbol(text)


def test_a_dimension_without_a_value_is_named_with_the_option_that_gives_it() -> None:
    with pytest.raises(CostModelError, match="dimension b has no value; give it with --dim 'b=NUMBER'"):
        quantities.evaluate(quantities.add(symbol("a"), symbol("b")), {symbol("a"): sympy.Integer(1)})


@given(st.integers(0, 200), st.integers(1, 70), st.integers(0, 99))
def test_arithmetic_of_quantities_is_that_of_numbers(a: int, b: int, c: int) -> None:
    x, y, z = map(symbol, "xyz")
    made: list[Quantity] = [
        quantities.floor_divide(x, b),
        quantities.ceil_divide(quantities.add(x, z), b),
        quantities.remainder(x, b),
        quantities.divide_exactly(quantities.multiply(x, y), y),
        quantities.smaller(x, z),
        quantities.larger(x, z),
        quantities.broadcast(y, quantities.multiply(y, 1)),
    ]
    assert evaluated(made, {"x": a, "y": b, "z": c}) == [a // b, -(-(a + c) // b), a % b, a, min(a, c), max(a, c), b]


@pytest.mark.parametrize(("a", "b", "want"), [(1, 1, 1), (1, 5, 5), (5, 1, 5), (5, 5, 5), (0, 1, 0), (1, 0, 0)])
def test_two_dimensions_of_unknown_relation_broadcast_as_their_values_do(a: int, b: int, want: int) -> None:
    assert evaluated([quantities.broadcast(symbol("a"), symbol("b"))], {"a": a, "b": b}) == [want]
