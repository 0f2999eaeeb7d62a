"""find_attention: which products are attention, where their operands come from, and why others are none."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_models
from attention_models import MATCHES, NO_ATTENTION, PLAIN_KEYS, Form, attention
from models import decoder, nodes, parse, random_weights

from mxcompile import onnx_file
from mxcompile.passes.analysis import Attention, find_attention, find_other_matmuls, find_rotary, find_unrecognized
from mxcompile.passes.analysis.attention import EINSUM, FUSED, NO_SOFTMAX
from mxcompile.passes.analysis.linears import ACTIVATIONS_ONLY

SOURCES = {"q": "q", "k": "k", "v": "v"}
PROBABILITIES = {"guarded": "kept", "dropped out": "kept", "cast": "kept"}
PERMS = {"keys transposed at once": (0, 2, 1, 3), "keys kept as columns": (0, 1, 3, 2), "three dimensions": (1, 0, 2)}
PERMS |= {"keys transposed twice": (0, 2, 1, 3)}
SCALES = {
    "scaled on both sides": [("half", False), ("half", False)],
    "scaled before transposing": [("half", False)],
    "divided": [("four", True), ("half", True)],
    "scaled by one": [("one", False)],
    "scaled by what is computed": [("q2", False), ("qr", True)],
    "divided by what is computed": [("qr", True)],
}


def only(model: ir.Model) -> Attention:
    (found,) = find_attention(model)
    return found


@pytest.mark.parametrize("case", MATCHES)
def test_every_form_is_recognized_with_its_operands(case: str) -> None:
    model = attention(MATCHES[case])
    found = only(model)
    assert find_unrecognized(model) == []
    assert [found.qk.name, found.softmax.name, found.pv.name] == [
        "/layers.0/attn/MatMul",
        "/layers.0/attn/Softmax",
        "/layers.0/attn/MatMul_1",
    ]
    assert found.layer == "/layers.0/attn"
    assert {"q": found.q.name, "k": found.k.source.name, "v": found.v.source.name} == SOURCES
    assert found.p.name == PROBABILITIES.get(case, "soft")
    assert (found.k.perm, found.v.perm) == (PERMS.get(case), None)
    assert [(scale.value.name, scale.divides) for scale in found.scales] == SCALES.get(case, [])
    repeated = [operand.repeated and operand.repeated.name for operand in (found.k, found.v)]
    assert repeated == (["k_all", "v_all"] if case.startswith("grouped") else [None, None])
    assert found.k.rank == found.v.rank == (3 if case == "three dimensions" else 4)


@pytest.mark.parametrize("case", PLAIN_KEYS)
def test_what_is_no_repetition_for_groups_is_read_as_it_is(case: str) -> None:
    found = only(attention(PLAIN_KEYS[case]))
    assert [(each.source.name, each.repeated) for each in (found.k, found.v)] == [("k_all", None), ("v_all", None)]


def test_a_scale_for_each_feature_belongs_to_the_queries() -> None:
    found = only(attention(Form(q=("qs = Mul(q, features)", "qs"))))
    assert (found.q.name, found.scales) == ("qs", ())


@pytest.mark.parametrize("case", NO_ATTENTION)
def test_what_is_no_attention_says_why(case: str) -> None:
    form, reason = NO_ATTENTION[case]
    model = attention(form)
    assert find_attention(model) == []
    reasons = [each.reason for each in find_unrecognized(model)]
    assert any(reason in each for each in reasons)
    assert all("attention" in each for each in reasons)
    assert [other.reason for other in find_other_matmuls(model)] == reasons


def test_probabilities_on_the_right_are_no_attention() -> None:
    body = "raw = MatMul(k, q) soft = Softmax(raw) y = MatMul(v, soft)"
    model = parse(body, "float[b,t,8] k, float[b,8,s] q, float[b,d,t] v", "float[b,d,s] y", {})
    assert find_attention(model) == []
    assert {each.reason for each in find_unrecognized(model)} == {
        "its probabilities are the right operand; only probabilities @ values is followed"
    }


def test_scores_of_two_products_are_no_attention() -> None:
    """Content and positions, each with its own scores."""
    body = "c = MatMul(q, k) r = MatMul(q, e) raw = Add(c, r) soft = Softmax(raw) y = MatMul(soft, v)"
    inputs = "float[b,s,8] q, float[b,8,t] k, float[b,8,t] e, float[b,t,d] v"
    model = parse(body, inputs, "float[b,s,d] y", {})
    assert find_attention(model) == []
    assert len(find_unrecognized(model)) == 3
    assert all("stands between 2 and 1 products" in each.reason for each in find_unrecognized(model))


def test_operators_that_hide_their_products_say_so() -> None:
    body = """
        ["/a/Einsum"] raw = Einsum<equation = "bsd,btd->bst">(q, k) soft = Softmax(raw)
        ["/a/MatMul"] x = MatMul(soft, v)
        ["/b/Attention"] y = com.microsoft.MultiHeadAttention<num_heads = 2>(x, k, v)
        ["/c/Einsum"] z = Einsum<equation = "bsd,de->bse">(y, w)
    """
    inputs = "float[b,s,8] q, float[b,t,8] k, float[b,t,8] v"
    model = parse(body, inputs, "float[b,s,4] z", random_weights(w=[8, 4]))
    assert find_attention(model) == []
    reasons = {each.node.name: each.reason for each in find_unrecognized(model)}
    assert reasons.keys() == {"/a/MatMul", "/a/Einsum", "/b/Attention"}
    assert "no product of activations makes the scores" in reasons["/a/MatMul"]
    assert (reasons["/a/Einsum"], reasons["/b/Attention"]) == (EINSUM, FUSED)
    assert {each.node.name: each.reason for each in find_other_matmuls(model)} == reasons


def test_keys_of_unknown_rank_are_no_attention() -> None:
    body = "k = Reshape(x, n) raw = MatMul(q, k) soft = Softmax(raw) y = MatMul(soft, v)"
    model = parse(body, "float[b,s,8] q, float[m] x, int64[r] n, float[b,t,d] v", "float[b,s,d] y", {})
    assert find_attention(model) == []
    assert "how many dimensions" in find_unrecognized(model)[0].reason


def test_products_with_weights_and_rotary_angles_are_no_attention() -> None:
    """A router's Softmax too stands behind a product, and rotary angles are a product of activations."""
    model = decoder()
    found = only(model)
    assert (found.layer, found.q.name, found.k.source.name, found.v.source.name) == ("/layers.0/attn", "q", "k", "v")
    assert len(find_rotary(model)) == 1
    assert find_unrecognized(model) == []


def test_a_gate_before_a_stored_weight_is_no_attention() -> None:
    """Softmax(x @ w1) @ w2, with weights that are cut, turned and widened before they are read."""
    body = "g = MatMul(x, w) p = Softmax(g) h = Cast<to = 1>(u) c = Slice(h, lo, hi) t = Transpose(c) y = MatMul(p, t)"
    weights = random_weights(w=[8, 4], u=[9, 6]) | {"lo": np.array([0]), "hi": np.array([4])}
    model = parse(body, "float[b,8] x", "float[b,n] y", weights)
    assert (find_attention(model), find_unrecognized(model)) == ([], [])


def test_attentions_without_paths_are_named_after_their_softmax() -> None:
    body = """
        raw = MatMul(q, k) [a] soft = Softmax(raw) x = MatMul(soft, v)
        raw2 = MatMul(x, k) soft2 = Softmax(raw2) y = MatMul(soft2, v)
    """
    model = parse(body, "float[b,s,8] q, float[b,8,t] k, float[b,t,8] v", "float[b,s,8] y", {})
    assert [each.layer for each in find_attention(model)] == ["a", "soft2"]


def test_the_reason_of_an_attention_product_is_that_it_is_one() -> None:
    assert [each.reason for each in find_other_matmuls(attention())] == [ACTIVATIONS_ONLY] * 2


# Every architecture

GROUPED = set(tiny_models.DECODERS) - {"phi", "gpt2", "opt"}
UNSCALED = {"t5", "gemma2"}
"""Without a scale, and with one behind the product of queries and keys."""

POOLING = "/vision_model/head/attention"
"""The attention with which SigLIP pools an image: torch's own class, which scales queries alone."""

COMPARED = {name: [NO_SOFTMAX] for name in tiny_models.TWO_TOWERS}
"""Texts with images."""


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_every_attention_of_an_architecture_is_found(name: str, exported_model_folder) -> None:
    for file, count in tiny_models.ATTENTIONS[name].items():
        model = onnx_file.read_model(exported_model_folder(name) / file)
        found = find_attention(model)
        assert len(found) == count
        assert [each.reason for each in find_unrecognized(model)] == COMPARED.get(name, [])
        for each in found:  # Half of the scale stands on either side.
            assert len(each.scales) == (0 if name in UNSCALED else 1 if each.layer == POOLING else 2)
        products = {node for each in found for node in (each.qk, each.pv)}
        assert len(products) == 2 * count
        assert not products & find_rotary(model).keys()
        for graph in {each.softmax.graph for each in found}:
            layers = [each.layer for each in found if each.softmax.graph is graph]
            assert len(set(layers)) == len(layers)
            assert all(layer.startswith("/") and "MatMul" not in layer for layer in layers)


@pytest.mark.parametrize("name", tiny_models.DECODERS)
def test_a_decoder_reads_keys_and_values_of_its_cache(name: str, exported_model_folder) -> None:
    model = onnx_file.read_model(exported_model_folder(name) / "model.onnx")
    for layer, found in enumerate(find_attention(model)):
        assert (found.k.source.name, found.v.source.name) == (f"present.{layer}.key", f"present.{layer}.value")
        assert (found.k.perm, found.v.perm) == (None, None)
        assert (found.k.repeated is not None) == (found.v.repeated is not None) == (name in GROUPED)


def test_scores_may_be_capped(exported_model_folder) -> None:
    for found in find_attention(onnx_file.read_model(exported_model_folder("gemma2") / "model.onnx")):
        between, node = list[str](), found.softmax.inputs[0].producer()
        while node is not found.qk:
            between.append(node.op_type)
            node = node.inputs[0].producer()
        assert between == ["Add", "Mul", "Tanh", "Div", "Mul"]


def test_values_may_be_taken_from_one_tensor_of_all_three(exported_model_folder) -> None:
    model = onnx_file.read_model(exported_model_folder("modernbert") / "model.onnx")
    for found in find_attention(model):
        squeeze = found.v.source.producer()
        assert (squeeze.op_type, squeeze.inputs[0].producer().op_type) == ("Squeeze", "Split")


def test_a_merged_decoder_reads_the_cache_in_its_second_branch(exported_model_folder) -> None:
    model = onnx_file.read_model(exported_model_folder("t5") / "decoder_model_merged.onnx")
    cached = [each for each in find_attention(model) if each.softmax.graph.name == "with_past"]
    assert [(each.k.source.name, each.v.source.name) for each in cached[:2]] == [
        ("present.0.decoder.key", "present.0.decoder.value"),
        ("past_key_values.0.encoder.key", "past_key_values.0.encoder.value"),
    ]
    assert len(nodes(model, "Softmax")) == 2 * len(cached)


def test_nothing_is_changed() -> None:
    model = attention(MATCHES["grouped"])
    before = ir.to_proto(model).SerializeToString()
    find_attention(model)
    assert ir.to_proto(model).SerializeToString() == before
