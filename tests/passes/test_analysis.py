"""Finding linear layers, output heads, routers and rotary angles."""

import numpy as np
import onnx_ir as ir
import pytest
from models import DECODER_LAYERS, FORMS, ROWS, K, N, branches, decoder, linear, nodes, parse, random_weights

from mxcompile.passes.analysis import (
    classify,
    find_heads,
    find_linears,
    find_other_matmuls,
    find_rotary,
    find_routers,
)


def product(right: str, weights: dict[str, object], body: str = "", left: str = "x") -> ir.Model:
    """``y = left @ right`` after some other nodes."""
    inputs = f"float[b,{K}] x, float[{K},{N}] other"
    return parse(f'{body} ["/layer/MatMul"] y = MatMul({left}, {right})', inputs, "float[b,n] y", weights)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("gemm")])
def test_a_linear_is_found_in_every_form(form: str) -> None:
    (found,) = find_linears(linear(form))
    assert (found.layer, found.weight.name, found.k, found.n) == ("/layer", "w", K, N)
    assert found.transposed is (form in ROWS)
    assert found.node.op_type == "MatMul"


def test_two_transposes_cancel() -> None:
    body = "t = Transpose(w) u = Transpose<perm = [1, 0]>(t)"
    (found,) = find_linears(product("u", random_weights(w=[K, N]), body))
    assert (found.transposed, found.k, found.n) == (False, K, N)


def test_linears_come_in_graph_order_and_the_rest_with_reasons() -> None:
    linears, others = classify(decoder())
    assert [each.layer for each in linears] == [
        *DECODER_LAYERS[:4],
        "/layers.0/mlp/gating",
        *DECODER_LAYERS[4:],
        "/head",
    ]
    assert [(each.node.name, each.reason.split(" ")[0]) for each in others] == [
        ("/rotary_emb/MatMul", "rotary"),
        ("/layers.0/attn/MatMul", "both"),
        ("/layers.0/attn/MatMul_1", "both"),
    ]


def test_both_branches_hold_the_same_layer() -> None:
    found = find_linears(branches())
    assert [each.layer for each in found] == ["/layer", "/layer"]
    assert len({each.node for each in found}) == 2
    assert len({each.weight for each in found}) == 1


@pytest.mark.parametrize(
    ("right", "body", "weights", "reason"),
    [
        ("other", "", {}, "both operands are activations"),
        ("w", "", {"w": np.ones((2, K, N), np.float32)}, "shape [2, 40, 24]"),
        ("w", "", {"w": np.ones(K, np.float32)}, "shape [40]"),
        ("w", "", {"w": np.ones((K, 0), np.float32)}, "shape [40, 0]"),
        ("w", "", {"w": np.ones((K, N), np.int32)}, "is INT32"),
        ("w", "", {"w": np.ones((K, N), np.float64)}, "is DOUBLE"),
        ("other", "", {"other": np.ones((K, N), np.float32)}, "also a graph input"),
        ("v", "v = Cast<to = 1>(w)", {"w": np.ones((K, N), np.float16)}, "computed by Cast"),
        ("v", "u = Cast<to = 1>(w) v = Mul(u, u)", {"w": np.ones((K, N), np.float16)}, "computed by Cast, Mul"),
        ("v", "v = Transpose<perm = [0, 1]>(w)", random_weights(w=[K, N]), "computed by Transpose"),
        ("v", "v = Constant<value = float[1, 1] {1.0}>()", {}, "computed by Constant"),
    ],
)
def test_a_product_that_is_no_linear_says_why(right: str, body: str, weights: dict[str, object], reason: str) -> None:
    model = product(right, weights, body)
    assert find_linears(model) == []
    (other,) = find_other_matmuls(model)
    assert reason in other.reason


def test_a_constant_on_the_left_is_no_linear() -> None:
    (other,) = find_other_matmuls(product("other", random_weights(w=[N, K]), left="w"))
    assert "on the left" in other.reason


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (("/a/MatMul", "/b/MatMul_3"), ["/a", "/b"]),
        (("/a/MatMul", "/a/MatMul_1"), ["/a/MatMul", "/a/MatMul_1"]),
        (("/a/MatMul", "/a/MatMul"), ["t", "y"]),
        (("", ""), ["t", "y"]),
        (("/MatMul", "plain"), ["/MatMul", "plain"]),
        (("/a/MatMul", "/a/q_proj/MatMul"), ["/a", "/a/q_proj"]),
    ],
)
def test_every_layer_of_a_graph_has_its_own_name(names: tuple[str, str], layers: list[str]) -> None:
    body = "t = MatMul(x, w) y = MatMul(t, v)"
    model = parse(body, f"float[b,{K}] x", f"float[b,{K}] y", random_weights(w=[K, N], v=[N, K]))
    for node, name in zip(nodes(model, "MatMul"), names, strict=True):
        node.name = name
    assert [each.layer for each in find_linears(model)] == layers


def test_the_head_is_what_reaches_the_logits() -> None:
    assert [node.name for node in find_heads(decoder())] == ["/head/MatMul"]


@pytest.mark.parametrize(("output", "found"), [("logits", 1), ("start_logits", 1), ("hidden", 0), ("logits_mask", 0)])
def test_the_output_decides_what_a_head_is(output: str, found: int) -> None:
    model = parse(f"{output} = MatMul(x, w)", f"float[b,{K}] x", f"float[b,{N}] {output}", random_weights(w=[K, N]))
    assert len(find_heads(model)) == found


def test_the_head_is_found_in_both_branches() -> None:
    model = branches()
    model.graph.outputs[0].name = "logits"
    assert [node.graph.name for node in find_heads(model) if node.graph] == ["else_graph", "then_graph"]


def test_an_output_of_if_means_the_branch_output_of_the_same_place() -> None:
    body = """
    h, logits = If(c) <
        then_branch = g1 () => (float[b,n] p, float[b,n] q) { p = MatMul(x, w) q = MatMul(x, v) },
        else_branch = g2 () => (float[b,n] r, float[b,n] s) { r = Neg(x) s = MatMul(x, w) }
    >"""
    weights = random_weights(w=[K, N], v=[K, N])
    model = parse(body, f"bool c, float[b,{K}] x", "float[b,n] h, float[b,n] logits", weights)
    assert {node.outputs[0].name for node in find_heads(model)} == {"q", "s"}


def test_positions_are_not_what_an_operator_moves() -> None:
    body = "t = MatMul(x, w) u = MatMul(x, v) i = Cast<to = 7>(u) logits = GatherElements<axis = 1>(t, i)"
    model = parse(body, f"float[b,{K}] x", "float[b,n] logits", random_weights(w=[K, N], v=[K, N]))
    assert [node.outputs[0].name for node in find_heads(model)] == ["t"]


def test_the_router_is_what_topk_ranks() -> None:
    assert [node.name for node in find_routers(decoder())] == ["/layers.0/mlp/gating/MatMul"]


def test_rotary_angles_go_to_sine_and_cosine() -> None:
    assert [node.name for node in find_rotary(decoder())] == ["/rotary_emb/MatMul"]


@pytest.mark.parametrize("activation", ["Sin", "Cos"])
def test_a_periodic_activation_alone_is_not_rotary(activation: str) -> None:
    body = f"t = MatMul(x, w) y = {activation}(t)"
    model = parse(body, f"float[b,{K}] x", f"float[b,{N}] y", random_weights(w=[K, N]))
    assert not find_rotary(model)
    assert len(find_linears(model)) == 1
