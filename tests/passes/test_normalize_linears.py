"""normalize-linears: Gemm, bias order and aliases."""

import numpy as np
import pytest
from models import FORMS, UNIT_ROUNDOFF, K, N, branches, counts, decoder, linear, nodes, parse, random_weights, run

from mxcompile.passes import NormalizeLinears
from mxcompile.passes.analysis import find_linears
from mxcompile.passes.metadata import PASSES, SKIPPED

NORMALIZE = NormalizeLinears()

LARGEST = 4.0
"""What no random number of these tests exceeds."""

REORDER_BOUND = 2 * (K + 2) * UNIT_ROUNDOFF * (K * LARGEST**2 + LARGEST)
"""Difference of two float32 sums of K products and a bias in other orders.

Each is off by ``(K + 2) * UNIT_ROUNDOFF * (sum |x| |w| + |b|)``; see `models.witness`.
"""


@pytest.mark.parametrize("bias", [None, "left", "right"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_matmul_and_add_and_gives_the_same(form: str, bias: str | None) -> None:
    model = linear(form, bias)
    feeds = random_weights(2, x=[3, K] if form.startswith("gemm") else [2, 3, K])
    constants = [value.const_value.numpy() for value in model.graph.initializers.values() if value.const_value]
    assert all(np.abs(each).max() < LARGEST for each in [*feeds.values(), *constants])
    expected = run(model, **feeds)
    NORMALIZE(model)
    assert counts(model, "MatMul", "Add", "Gemm", "Identity") == [1, int(bias is not None), 0, 0]
    assert counts(model, "Transpose") == [int(form in ("transpose", "gemm_transposed"))]
    for add in nodes(model, "Add"):
        assert add.inputs[0] is nodes(model, "MatMul")[0].outputs[0]
        assert add.inputs[1].name == "b"
    np.testing.assert_allclose(run(model, **feeds), expected, rtol=0, atol=REORDER_BOUND)
    assert find_linears(model)[0].layer == "/layer"


@pytest.mark.parametrize(("form", "bias"), [("gemm", "right"), ("gemm_transposed", None), ("alias", "left")])
def test_a_second_run_changes_nothing(form: str, bias: str | None) -> None:
    model = linear(form, bias)
    assert NORMALIZE(model).modified
    assert not NORMALIZE(model).modified


@pytest.mark.parametrize("form", ["matmul", "transpose"])
def test_a_normal_linear_stays(form: str) -> None:
    model = linear(form, "right")
    assert not NORMALIZE(model).modified
    assert PASSES not in nodes(model, "MatMul")[0].metadata_props


def test_names_shapes_metadata_and_the_weight_are_kept() -> None:
    model = linear("gemm_transposed", "right")
    weight = model.graph.initializers["w"]
    (gemm,) = nodes(model, "Gemm")
    gemm.metadata_props["origin"] = "somewhere"
    NORMALIZE(model)
    (matmul,), (add,) = nodes(model, "MatMul"), nodes(model, "Add")
    assert matmul.name == "/layer/Gemm"
    assert matmul.metadata_props == add.metadata_props == {"origin": "somewhere", PASSES: "normalize-linears"}
    assert add.outputs[0] is model.graph.outputs[0]
    assert (add.outputs[0].name, str(add.outputs[0].shape)) == ("y", f"[b,{N}]")
    assert (matmul.outputs[0].name, str(matmul.outputs[0].shape)) == ("y.product", f"[b,{N}]")
    assert model.graph.initializers["w"] is weight
    assert list(model.graph.initializers) == ["w", "b"]


def test_a_tied_weight_is_not_copied() -> None:
    model = decoder()
    before = list(model.graph.initializers.values())
    NORMALIZE(model)
    assert list(model.graph.initializers.values()) == before


@pytest.mark.parametrize(
    ("attributes", "inputs", "reason"),
    [
        ("alpha = 0.5", "x, w, b", "alpha = 0.5"),
        ("beta = 2.0", "x, w, b", "beta = 2"),
        ("transA = 1", "xt, w, b", "transA = 1"),
        ("alpha = 2.0, beta = 0.0", "x, w, b", "alpha = 2, beta = 0"),
    ],
)
def test_an_unusual_gemm_stays_and_says_why(attributes: str, inputs: str, reason: str) -> None:
    weights = random_weights(w=[K, N], b=[N])
    body = f"y = Gemm<{attributes}>({inputs})"
    model = parse(body, f"float[m,{K}] x, float[{K},m] xt", "float[m,n] y", weights)
    assert NORMALIZE(model).modified  # the reason is new
    (gemm,) = nodes(model, "Gemm")
    assert reason in gemm.metadata_props[SKIPPED]
    assert not NORMALIZE(model).modified


def test_beta_without_a_bias_means_nothing() -> None:
    model = parse("y = Gemm<beta = 2.0>(x, w)", f"float[m,{K}] x", "float[m,n] y", random_weights(w=[K, N]))
    NORMALIZE(model)
    assert counts(model, "Gemm", "MatMul", "Add") == [0, 1, 0]


def test_a_gemm_of_activations_stays() -> None:
    model = parse("y = Gemm(x, z)", f"float[m,{K}] x, float[{K},{N}] z", "float[m,n] y", {})
    assert not NORMALIZE(model).modified
    assert counts(model, "Gemm") == [1]


@pytest.mark.parametrize(
    "body", ["y = Add(z, t)", "y = Add(t, z)", "u = Relu(t) y = Add(b, u)", "u = MatMul(x, v) y = Add(b, u)"]
)
def test_other_additions_stay(body: str) -> None:
    weights = random_weights(w=[K, N], b=[N])
    model = parse(
        f"t = MatMul(x, w) {body}", f"float[m,{K}] x, float[m,{N}] z, float[{K},{N}] v", "float[m,n] y", weights
    )
    assert not NORMALIZE(model).modified


def test_an_alias_that_is_an_output_stays_one() -> None:
    weights = random_weights(w=[K, N])
    model = parse("a = Identity(w) y = MatMul(x, a)", f"float[m,{K}] x", f"float[m,{N}] y, float[{K},{N}] a", weights)
    assert NORMALIZE(model).modified
    assert nodes(model, "MatMul")[0].inputs[1] is model.graph.initializers["w"]
    assert [output.name for output in model.graph.outputs] == ["y", "a"]
    assert not NORMALIZE(model).modified


def test_branches_are_rewritten_too() -> None:
    model = branches()
    assert NORMALIZE(model).modified
    (add,) = nodes(model, "Add")
    assert [value.name for value in add.inputs] == ["t", "bias"]
    assert add.outputs[0] is add.graph.outputs[0]
    assert not NORMALIZE(model).modified


def test_a_gemm_in_a_branch_keeps_the_branch_output() -> None:
    body = """y = If(c) <then_branch = g1 () => (float[m,24] a) { a = Gemm(x, w, b) },
                         else_branch = g2 () => (float[m,24] d) { d = Gemm<transB = 0>(x, w) }>"""
    model = parse(body, f"bool c, float[m,{K}] x", f"float[m,{N}] y", random_weights(w=[K, N], b=[N]))
    x, c = random_weights(2, x=[3, K])["x"], np.array(True)
    expected = run(model, x=x, c=c)
    NORMALIZE(model)
    assert counts(model, "Gemm", "MatMul", "Add") == [0, 2, 1]
    assert [graph.outputs[0].name for graph in model.graph.subgraphs()] == ["a", "d"]
    np.testing.assert_allclose(run(model, x=x, c=c), expected, rtol=0, atol=REORDER_BOUND)
