"""What the graph says about its values is what they are when it runs."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny_models
from feeds import random_feeds
from models import parse

from mxcompile import onnx_file
from mxcompile.passes.analysis.values import Shapes, constant, element_type

SINGLE_GRAPHS = (*tiny_models.DECODERS, *tiny_models.ENCODERS, *tiny_models.TWO_TOWERS)


def values_of(model: ir.Model) -> list[ir.Value]:
    return [output for node in model.graph for output in node.outputs if output.name]


@pytest.mark.parametrize("name", SINGLE_GRAPHS)
def test_every_value_of_an_architecture_is_as_the_graph_says(name: str, exported_model_folder, tmp_path: Path) -> None:
    """Dimensions, elements of vectors of integers, and types, of all values at once."""
    model = onnx_file.read_model(exported_model_folder(name) / "model.onnx")
    shapes, values = Shapes(), values_of(model)
    dims = {value.name: shapes.dims(value) for value in values}
    elements = {value.name: shapes.elements(value) for value in values}
    types = {value.name: element_type(value) for value in values}
    scalars = {value.name for value in values if shapes.is_scalar(value)}
    for value in values:
        if not value.is_graph_output():
            value.dtype = types[value.name]
            model.graph.outputs.append(value)
    onnx_file.write_model(model, tmp_path / "model.onnx")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    actual = dict(zip(names, session.run(None, random_feeds(session)), strict=True))
    for each, array in actual.items():
        assert types[each] is not None
        assert types[each].numpy() == array.dtype
        known = dims[each]
        if known is not None:
            assert len(known) == array.ndim
            assert all(dim in (None, size) for dim, size in zip(known, array.shape, strict=True))
        vector = elements[each]
        if vector is not None:
            assert array.ndim <= 1
            assert len(vector) == array.size
            assert all(said in (None, is_) for said, is_ in zip(vector, array.reshape(-1), strict=True))
        assert each not in scalars or array.size == 1
    assert sum(known is None for known in dims.values()) <= len(dims) // 10


def one(body: str, weights: dict[str, np.ndarray] | None = None) -> ir.Value:
    """The value ``y`` of a graph over ``x [b, 4, t, 40]``, ``i [2, n]``, ``u`` of unknown rank, and the weights."""
    model = parse(body, "float[b,4,t,40] x, int64[2,n] i, float u, bool c", "float y", weights or {})
    model.graph.inputs[2].shape = None
    (y,) = [value for value in values_of(model) if value.name == "y"]
    y.shape = None
    return y


INT = {"one": np.array([1]), "axes": np.array([0, 3]), "sizes": np.array([0, -1, 20]), "twice": np.array([1, 2])}
DIMS = {
    "y = Transpose<perm = [0, 2, 3, 1]>(x)": [None, None, 40, 4],
    "y = Transpose(x)": [40, None, 4, None],
    "y = Transpose<perm = [1, 0]>(u)": [None, None],
    "y = Reshape(x, sizes)": [None, None, 20],
    "y = Reshape<allowzero = 1>(x, sizes)": [0, None, 20],
    "y = Unsqueeze(x, axes)": [1, None, 4, 1, None, 40],
    "z = Unsqueeze(x, axes) y = Squeeze(z, axes)": [None, 4, None, 40],
    "y = Concat<axis = 1>(x, x)": [None, 8, None, 40],
    "y = Concat<axis = 2>(x, x)": [None, 4, None, 40],
    "y = Concat<axis = 3>(x, u)": [None, 4, None, None],
    "y = Slice(x, one, twice, one)": [None, None, None, 40],
    "y, z = Split<axis = 3>(x)": [None, 4, None, None],
    "y = Gather<axis = 1>(x, i)": [None, 2, None, None, 40],
    "z = Transpose<perm = [0, 1, 3, 2]>(x) y = MatMul(x, z)": [None, 4, None, None],
    "z = Transpose<perm = [0, 1, 3, 2]>(x) y = MatMul(z, x)": [None, 4, 40, 40],
    "y = MatMul(x, u)": None,
    "y = Add(x, u)": None,
    "z = Cast<to = 1>(i) y = Reshape(z, one)": [1],
    "y = ReduceMean(x, axes)": [1, 4, None, 1],
    "y = ReduceMean<keepdims = 0>(x, axes)": None,
    "z = Shape(x) y = ConstantOfShape(z)": [None, 4, None, 40],
    "z = Shape(x) w = Expand(one, z) y = Cast<to = 1>(w)": [None, 4, None, 40],
    "y = Expand(x, one)": [None, 4, None, 40],
    "y = Softmax(x)": [None, 4, None, 40],
    "y = NonZero(x)": None,
    "y = Where(c, x, u)": None,
    "y = Flatten(u)": [None, None],
}
ELEMENTS = {
    "y = Shape(x)": [None, 4, None, 40],
    "y = Shape<start = 1, end = -1>(x)": [4, None],
    "y = Shape<start = -1>(x)": [40],
    "y = Shape(u)": None,
    "z = Shape(x) y = Gather(z, axes)": [None, 40],
    "z = Shape(u) y = Gather(z, axes)": [None, None],
    "z = Shape(x) y = Slice(z, one, end)": [4, None, 40],
    "z = Shape(x) y = Slice(z, last, end)": [40],
    "z = Shape(x) y = Concat<axis = 0>(z, one)": [None, 4, None, 40, 1],
    "z = Shape(x) w = Gather(z, one) y = Mul(w, twice)": [4, 8],
    "y = Constant<value_ints = [3, 4]>()": [3, 4],
    "y = Constant<value_int = 3>()": [3],
    "y = Constant<value_floats = [3.0]>()": None,
    "z = Shape(x) n = Shape(z) y = ConstantOfShape<value = int64[1] {7}>(n)": [7, 7, 7, 7],
    "z = Shape(x) e = Equal(z, four) y = Where(e, one, z)": [None, 1, None, 40],
    "y = Where(c, twice, sizes2)": [1, None],
    "y = Add(i, one)": None,
}


@pytest.mark.parametrize("body", DIMS)
def test_dimensions(body: str) -> None:
    assert Shapes().dims(one(body, INT)) == DIMS[body]


@pytest.mark.parametrize("body", ELEMENTS)
def test_elements(body: str) -> None:
    weights = INT | {"end": np.array([np.iinfo(np.int64).max]), "last": np.array([-1]), "four": np.array([4])}
    assert Shapes().elements(one(body, weights | {"sizes2": np.array([1, 3])})) == ELEMENTS[body]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Where(c, x, u)", "FLOAT"),
        ("z = Cast<to = 10>(x) y = CastLike(i, z)", "FLOAT16"),
        ("y = Shape(x)", "INT64"),
        ("y = IsNaN(x)", "BOOL"),
        ("y, z = TopK(x, one)", "FLOAT"),
        ("z, y = TopK(x, one)", "INT64"),
        ("z = Add(i, i) y = Unsqueeze(z, axes)", "INT64"),
        ("y = Constant<value_float = 1.0>()", "FLOAT"),
    ],
)
def test_types(body: str, expected: str) -> None:
    y = one(body, INT)
    y.type = None
    assert element_type(y) is ir.DataType[expected]


def test_a_weight_that_is_an_input_too_is_no_constant() -> None:
    model = parse("y = Add(x, w)", "float[1] x, float[1] w", "float[1] y", {"w": np.ones(1, np.float32)})
    assert constant(model.graph.inputs[1]) is None


def test_a_graph_deeper_than_the_walk_is_not_followed() -> None:
    """No error of recursion: what is too far back is unknown, and known from nearby."""
    steps = " ".join(f"v{i + 1} = Relu(v{i})" for i in range(1000))
    model = parse(f"v0 = Transpose<perm = [1, 0]>(x) {steps} y = Identity(v1000)", "float[2,3] x", "float y", {})
    values = values_of(model)
    values[-1].shape = None
    assert Shapes().dims(values[-1]) is None
    shapes = Shapes()
    assert all(shapes.dims(value) == [3, 2] for value in values)
