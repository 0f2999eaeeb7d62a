"""Counts computed by hand: vector operations, products, and each kind of byte."""

import numpy as np
import pytest
from workload_graphs import graph, last

from mxcompile.cost.formulas import VECTOR_OPS
from mxcompile.cost.kinds import PRODUCTS
from mxcompile.cost.shape_rules import DIMS
from mxcompile.cost.workload import count

E, ROWS = 24, 6
"""Elements of x, which is [2, 3, 4], and rows along its last axis."""

_VECTOR = {
    "y = Neg(x)": E,
    "y = Erf(x)": E,
    "y = Add(x, x)": E,
    "y = Mul(x, vector)": E,
    "y = Pow(x, scalar)": E,
    "y = Max(x, vector, scalar)": 2 * E,
    "y = Sum(x, x, x)": 2 * E,
    "c = Greater(x, scalar) y = Where(c, x, scalar)": E,
    "c = Greater(x, scalar)": E,
    "y = Cast<to = 10>(x)": E,
    "y = Cast<to = 1>(x)": 0,
    "y = Clip(x, scalar)": E,
    "y = Clip(x, scalar, scalar)": 2 * E,
    "y = Gelu(x)": 5 * E,
    'y = Gelu<approximate = "tanh">(x)': 8 * E,
    "y = HardSigmoid(x)": 4 * E,
    "y = HardSwish(x)": 5 * E,
    "y = Mish(x)": 3 * E,
    "y = LeakyRelu(x)": 2 * E,
    # maximum and sum 3 each of 4 elements, subtraction, exponential and division 4 each
    "y = Softmax(x)": ROWS * (3 + 4 + 4 + 3 + 4),
    # maximum 3, subtract 4, exponential 4, sum 3, logarithm 1, subtract 4
    "y = LogSoftmax(x)": ROWS * (3 + 4 + 4 + 3 + 1 + 4),
    "y = Softmax<axis = 1>(x)": 5 * E - 2 * 8,
    # mean 4, subtract 4, square 4, mean 4, divide 4, scale 4, shift 4; epsilon, root
    "y = LayerNormalization(x, vector, vector)": ROWS * (7 * 4 + 2),
    "y = LayerNormalization(x, vector)": ROWS * (6 * 4 + 2),
    "y = LayerNormalization<axis = 1>(x, vector)": 6 * E + 2 * 2,
    # square 4, mean 4, times the inverse 4, scale 4; epsilon, root, inverse
    "y = SimplifiedLayerNormalization(x, vector)": ROWS * (4 * 4 + 3),
    "y = ReduceSum(x, axis)": ROWS * 3,
    "y = ReduceMax(x, axis)": ROWS * 3,
    "y = ReduceMean(x, axis)": ROWS * (3 + 1),
    "y = ReduceL1(x, axis)": ROWS * (4 + 3),
    "y = ReduceSumSquare(x, axis)": ROWS * (4 + 3),
    "y = ReduceL2(x, axis)": ROWS * (4 + 3 + 1),
    "y = ReduceLogSumExp(x, axis)": ROWS * (4 + 3 + 1),
    "y = ReduceSum(x)": E - 1,
    "y = ArgMax<axis = -1>(x)": ROWS * 3,
    "v, y = TopK(x, two)": 2 * E,
    "y = CumSum(x, one)": E - 8,
    "y = NonZero(x)": E,
    "y = Trilu(x)": E,
    "n = Size(x) y = Range(zero, n, one)": E,
    "s = Shape(x) y = OneHot(s, three, pair)": 9,
    "i = Unsqueeze(x, starts) y = AveragePool<kernel_shape = [2, 2]>(i)": 2 * 1 * 2 * 3 * 4,
    "i = Unsqueeze(x, starts) y = GlobalAveragePool(i)": E,
    "y = QuantizeLinear(x, scalar, byte)": 4 * E,
    "q = QuantizeLinear(x, scalar, byte) y = DequantizeLinear(q, scalar, byte)": 2 * E,
    "y = Transpose(x)": 0,
    "y = Slice(x, starts, ends, axis)": 0,
    "y = Tile(x, repeats)": 0,
    "y = MatMul(x, weight)": 0,
    "m = Reshape(x, shape) y = Gemm<transB = 1>(m, rows, bias)": 6 * 7,
    "m = Reshape(x, shape) y = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(m, rows, bias)": 3 * 6 * 7,
    "i = Unsqueeze(x, starts) y = Conv(i, kernel, channels)": 2 * 6 * 2 * 2,
}


@pytest.mark.parametrize("body", _VECTOR)
def test_an_operator_has_the_vector_operations_of_its_formula(body: str) -> None:
    assert last(body, shape=np.array([6, 4])).vector_ops == _VECTOR[body]


@pytest.mark.parametrize(
    ("fused", "written_out"),
    [
        (
            "y = LayerNormalization(x, vector, vector)",
            """m = ReduceMean(x, axis) d = Sub(x, m) q = Pow(d, scalar) v = ReduceMean(q, axis) e = Add(v, scalar)
            r = Sqrt(e) n = Div(d, r) g = Mul(n, vector) y = Add(g, vector)""",
        ),
        (
            "y = SimplifiedLayerNormalization(x, vector)",
            """q = Pow(x, scalar) v = ReduceMean(q, axis) e = Add(v, scalar) r = Sqrt(e) i = Reciprocal(r)
            n = Mul(x, i) y = Mul(n, vector)""",
        ),
        (
            "y = Softmax(x)",
            "m = ReduceMax(x, axis) d = Sub(x, m) e = Exp(d) s = ReduceSum(e, axis) y = Div(e, s)",
        ),
        ("y = Gelu(x)", "d = Div(x, scalar) f = Erf(d) p = Add(f, scalar) t = Mul(x, p) y = Mul(t, scalar)"),
    ],
)
def test_an_operator_costs_what_it_costs_written_out(fused: str, written_out: str) -> None:
    nodes = count(graph(written_out)).nodes
    assert last(fused).vector_ops == sum(node.vector_ops for node in nodes)
    if "Norm" in fused:
        assert {node.kind for node in nodes} == {"norm"}


def test_every_formula_has_a_rule_for_the_shape() -> None:
    assert VECTOR_OPS.keys() - DIMS.keys() == set()
    assert VECTOR_OPS.keys() >= PRODUCTS


_PRODUCTS = {
    "y = MatMul(x, weight)": (1, 6, 4, 7),
    "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(x, t)": (2, 3, 4, 3),
    "y = MatMul(x, vector)": (1, 6, 4, 1),
    "t = Transpose<perm = [0, 2, 1]>(x) y = MatMul(vector, t)": (2, 1, 4, 3),
    "m = Reshape(x, shape) y = Gemm(m, weight)": (1, 6, 4, 7),
    "m = Reshape(x, shape) y = Gemm<transA = 1>(m, m)": (1, 4, 6, 4),
    'y = Einsum<equation = "bsk,kn->bsn">(x, weight)': (1, 6, 4, 7),
    'y = Einsum<equation = "bsk,btk->bst">(x, x)': (2, 3, 4, 3),
    # [2, 1, 3, 4] by kernels of 2 x 3 gives [2, 6, 2, 2]
    "i = Unsqueeze(x, starts) y = Conv(i, kernel)": (2, 4, 6, 6),
    "u = Unsqueeze(x, starts) i = Concat<axis = 1>(u, u, u) y = Conv<group = 3>(i, kernel)": (6, 4, 6, 2),
}


@pytest.mark.parametrize("body", _PRODUCTS)
def test_a_product_has_the_shape_of_its_matrices(body: str) -> None:
    work = last(body, shape=np.array([6, 4]))
    assert (work.batch, work.m, work.k, work.n) == _PRODUCTS[body]
    assert work.macs == np.prod(_PRODUCTS[body])
    assert (work.a_format, work.b_format) == ("float32", "float32")


def test_a_product_in_half_precision_says_so() -> None:
    weights = {"w": np.zeros((4, 7), np.float16)}
    work = last("y = MatMul(x, w)", "float16[b,4] x", **weights)
    assert (work.a_format, work.b_format, work.weight_code_bytes) == ("float16", "float16", 4 * 7 * 2)


_BYTES = {
    "y = Add(x, x)": (4 * E, 4 * E, 0),
    "z = Neg(x) y = Add(x, z)": (8 * E, 4 * E, 0),
    "y = Mul(x, vector)": (4 * E, 4 * E, 16),
    "y = MatMul(x, weight)": (4 * E, 4 * 42, 4 * 28),
    "t = Transpose<perm = [1, 0]>(rows) y = MatMul(x, t)": (4 * E, 4 * 42, 4 * 28),
    "y = Transpose(x)": (4 * E, 4 * E, 0),
    "y = Slice(x, starts, ends, axis)": (4 * 12, 4 * 12, 0),
    "y = Tile(x, repeats)": (4 * E, 8 * E, 0),
    "y = Expand(x, wide)": (4 * E, 20 * E, 0),
    "y = Pad(x, pads)": (4 * E, 4 * 36, 0),
    "y = Concat<axis = 0>(x, x)": (4 * E, 8 * E, 0),
    "y = Cast<to = 10>(x)": (4 * E, 2 * E, 0),
    "c = Greater(x, scalar)": (4 * E, E, 4),
    "y = ReduceSum(x, axis)": (4 * E, 4 * ROWS, 0),
    "y = Reshape(x, flat)": (0, 0, 0),
    "y = Shape(x)": (0, 0, 0),
    "y = Unsqueeze(x, two)": (0, 0, 0),
    "y = ConstantOfShape(wide)": (0, 0, 0),
    "s = Shape(x) y = ConstantOfShape(s)": (0, 4 * E, 0),
    "i = Unsqueeze(x, starts) y = Conv(i, kernel, channels)": (4 * E, 4 * 48, 4 * 36 + 4 * 6),
}


@pytest.mark.parametrize("body", _BYTES)
def test_bytes_of_activations_and_weights_are_those_of_their_tensors(body: str) -> None:
    work = last(body)
    assert (work.input_bytes, work.output_bytes, work.weight_code_bytes) == _BYTES[body]
    assert (work.weight_scale_bytes, work.cache_code_bytes, work.cache_scale_bytes) == (0, 0, 0)


def test_an_embedding_reads_the_rows_that_are_looked_up() -> None:
    (at,) = count(graph("y = Gather(table, ids)", "int64[b,s] ids")).at({"b": 2, "s": 3}).nodes
    assert at.kind == "embedding"
    assert (at.weight_code_bytes, at.input_bytes, at.output_bytes) == (6 * 16, 6 * 8, 6 * 16)


def test_appending_to_a_cache_counts_the_new_tokens_and_a_product_reads_all_of_it() -> None:
    inputs = "float[1,2,p,4] past, float[1,2,s,4] k, float[1,4,s,4] q"
    body = (
        "keys = Concat<axis = 2>(past, k) u = Unsqueeze(keys, two) e = Expand(u, shape) "
        "r = Reshape(e, heads) t = Transpose<perm = [0, 1, 3, 2]>(r) y = MatMul(q, t)"
    )
    shape = {"shape": np.array([1, 2, 2, 1, 1]), "heads": np.array([1, 4, -1, 4])}
    model = graph(body, inputs, **shape)
    model.graph.inputs[0].name = "past_key_values.0.key"
    works = {node.op_type: node for node in count(model).at({"p": 5, "s": 2}).nodes}
    concat, product = works["Concat"], works["MatMul"]
    new, whole = 2 * 2 * 4 * 4, 2 * 7 * 4 * 4
    assert (concat.input_bytes, concat.output_bytes, concat.cache_code_bytes) == (new, new, 0)
    assert (product.cache_code_bytes, product.input_bytes) == (whole, 4 * 2 * 4 * 4)
    assert product.macs == 4 * 2 * 4 * 7
    for name in ("Expand", "Transpose", "Reshape", "Unsqueeze"):
        assert (works[name].input_bytes, works[name].output_bytes, works[name].kind) == (0, 0, "movement")


def test_what_only_reads_constants_runs_once_and_counts_nothing() -> None:
    work = count(graph("c = Add(table, vector) t = Mul(c, scalar) y = Gather(t, ids)", "int64[b] ids")).nodes
    assert [node.vector_ops for node in work] == [0, 0, 0]
    assert [node.output_bytes for node in work[:2]] == [0, 0]


def test_a_constant_that_is_repeated_for_each_sequence_is_computed_in_each_run() -> None:
    body = "s = Shape<end = 1>(x) n = Concat<axis = 0>(s, ones) e = Expand(table, n) y = MatMul(e, weight)"
    workload = count(graph(body, "float[b,2] x", ones=np.array([1, 1])))
    product = workload.at({"b": 3}).nodes[-1]
    assert (product.macs, product.weight_code_bytes) == (3 * 50 * 4 * 7, 4 * 50 * 4 + 4 * 4 * 7)
