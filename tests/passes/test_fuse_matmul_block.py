"""fuse-matmul-block: one node for quantizer, product and bias."""

from collections.abc import Callable

import onnx_ir as ir
import pytest
from models import DECODER_LAYERS, FORMS, K, N, branches, counts, decoder, linear, nodes, parse, random_weights

from mxcompile.config import CompileConfig
from mxcompile.passes import FuseMatMulBlock, InsertQuantize, NormalizeLinears, PackWeights, SelectFormats
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, PASSES, WEIGHTS

FUSE = FuseMatMulBlock()
UNFUSED = ("MatMul", "QuantizeBlock", "DequantizeBlock", "Transpose", "Add", "Cast")


def prepare(model: ir.Model, weights: str = "amxfp4", activations: str = "amxfp4", **settings: object) -> ir.Model:
    """The model as fuse-matmul-block gets it."""
    NormalizeLinears()(model)
    SelectFormats(CompileConfig(weights, activations, **settings))(model)  # type: ignore[arg-type]
    InsertQuantize()(model)
    PackWeights()(model)
    return model


def inputs(node: ir.Node) -> list[str | None]:
    return [value.name if value else None for value in node.inputs]


@pytest.mark.parametrize("activations", ["amxfp4", "mxfp4", "none"])
@pytest.mark.parametrize("bias", [None, "left", "right"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_one_node(form: str, bias: str | None, activations: str) -> None:
    model = prepare(linear(form, bias), activations=activations)
    assert FUSE(model).modified
    (fused,) = model.graph
    assert (fused.domain, fused.op_type) == ("mxcompile", "MatMulBlock")
    assert inputs(fused) == ["x", "w.codes", "w.scales", *(["b"] if bias else [])]
    assert {name: attribute.value for name, attribute in fused.attributes.items()} == {
        "a_format": activations,
        "b_format": "amxfp4",
        "k": K,
    }
    assert not FUSE(model).modified


def test_names_shapes_and_metadata_are_kept() -> None:
    model = linear("matmul", "left")
    nodes(model, "MatMul")[0].metadata_props["origin"] = "kept"
    FUSE(prepare(model, activations="mxfp4"))
    (fused,) = model.graph
    assert fused.name == "/layer/MatMul"
    assert fused.metadata_props == {
        LAYER: "/layer",
        WEIGHTS: "amxfp4",
        ACTIVATIONS: "mxfp4",
        PASSES: "insert-quantize,normalize-linears,fuse-matmul-block",
        "origin": "kept",
    }
    assert fused.outputs[0] is model.graph.outputs[0]
    assert (fused.outputs[0].name, str(fused.outputs[0].shape)) == ("y", f"[b,s,{N}]")
    assert fused.outputs[0].dtype is ir.DataType.FLOAT


@pytest.mark.parametrize("activations", ["amxfp4", "none"])
@pytest.mark.parametrize("bias", [None, "right"])
def test_float16_goes_in_and_out_without_casts(bias: str | None, activations: str) -> None:
    model = prepare(linear("matmul", bias, "float16"), activations=activations)
    FUSE(model)
    (fused,) = model.graph
    assert inputs(fused)[0] == "x"
    assert len(fused.inputs) == (4 if bias else 3)
    assert (fused.outputs[0].name, fused.outputs[0].dtype) == ("y", ir.DataType.FLOAT16)
    assert not FUSE(model).modified


@pytest.mark.parametrize("bias", [None, "right"])
def test_bfloat16_keeps_its_casts(bias: str | None) -> None:
    model = prepare(linear("matmul", bias, "bfloat16"))
    FUSE(model)
    assert [node.op_type for node in model.graph] == ["Cast", "MatMulBlock", "Cast", *(["Add"] if bias else [])]


def test_a_decoder_keeps_only_what_was_left_alone() -> None:
    model = prepare(decoder())
    transposes, adds = counts(decoder(), "Transpose", "Add")
    FUSE(model)
    assert counts(model, *UNFUSED) == [5, 0, 0, transposes, adds - 1, 1]
    assert [node.metadata_props[LAYER] for node in nodes(model, "MatMulBlock")] == list(DECODER_LAYERS)
    assert not FUSE(model).modified


def test_branches_read_the_packed_weight_of_the_outer_graph() -> None:
    model = prepare(branches())
    FUSE(model)
    assert counts(model, *UNFUSED) == [0] * len(UNFUSED)
    by_name = {graph.name: next(iter(graph)) for graph in model.graph.subgraphs()}
    then_node, else_node = by_name["then_graph"], by_name["else_graph"]
    assert inputs(then_node) == ["x", "w.codes", "w.scales"]
    assert inputs(else_node) == ["x", "w.codes", "w.scales", "bias"]
    assert [node.outputs[0].name for node in (then_node, else_node)] == ["a", "d"]
    assert all(node.outputs[0].is_graph_output() for node in (then_node, else_node))


NOT_A_BIAS = {
    "read twice": ("y = Add(t, b) z = Relu(t)", {"b": [N]}),
    "an activation": ("y = Add(t, v)", {}),
    "of two axes": ("y = Add(t, b)", {"b": [1, N]}),
    "of one element": ("y = Add(t, b)", {"b": [1]}),
    "another operator": ("y = Mul(t, b)", {"b": [N]}),
    "the second operand": ("y = Sub(b, t)", {"b": [N]}),
    "added to itself": ("y = Add(t, t)", {}),
}


@pytest.mark.parametrize("case", NOT_A_BIAS)
def test_what_is_no_bias_stays(case: str) -> None:
    body, shapes = NOT_A_BIAS[case]
    model = parse(
        f'["/layer/MatMul"] t = MatMul(x, w) {body}',
        f"float[b,{K}] x, float[{N}] v",
        "float[b,n] y",
        random_weights(w=[K, N], **shapes),
    )
    last = [node.op_type for node in model.graph][1:]
    FUSE(prepare(model))
    assert [node.op_type for node in model.graph] == ["MatMulBlock", *last]
    (fused,) = nodes(model, "MatMulBlock")
    assert (len(fused.inputs), fused.outputs[0].name) == (3, "t")


def test_a_result_that_is_also_an_output_keeps_its_bias_apart() -> None:
    body = "t = MatMul(x, w) y = Add(t, b)"
    outputs = f"float[b,{N}] y, float[b,{N}] t"
    model = parse(body, f"float[b,{K}] x", outputs, random_weights(w=[K, N], b=[N]))
    FUSE(prepare(model))
    assert [node.op_type for node in model.graph] == ["MatMulBlock", "Add"]
    assert [output.name for output in model.graph.outputs] == ["y", "t"]


def test_a_bias_inside_a_branch_is_not_drawn_out() -> None:
    body = """t = MatMul(x, w)
    y = If(c) <then_branch = g1 () => (float[m,24] a) { a = Add(t, b) },
               else_branch = g2 () => (float[m,24] d) { d = Identity(z) }>"""
    inputs_ = f"bool c, float[m,{K}] x, float[m,{N}] z"
    model = parse(body, inputs_, f"float[m,{N}] y", random_weights(w=[K, N], b=[N]))
    FUSE(prepare(model))
    assert [node.op_type for node in model.graph] == ["MatMulBlock", "If"]
    assert counts(model, "Add") == [1]


def test_a_quantizer_that_others_read_stays() -> None:
    model = prepare(linear())
    (quantize,), (decode, _) = nodes(model, "QuantizeBlock"), nodes(model, "DequantizeBlock")
    model.graph.append(ir.node("Identity", [decode.outputs[0]]))
    FUSE(model)
    assert [node.op_type for node in model.graph] == ["QuantizeBlock", "DequantizeBlock", "MatMulBlock", "Identity"]
    assert nodes(model, "MatMulBlock")[0].inputs[0] is quantize.inputs[0]


def _change_attribute(op_type: str, which: int, attribute: ir.Attr) -> Callable[[ir.Model], None]:
    return lambda model: nodes(model, op_type)[which].attributes.add(attribute)


def _read_instead(op_type: str, which: int, index: int) -> Callable[[ir.Model], None]:
    """Makes an operator read a new graph input of the same type and shape."""

    def change(model: ir.Model) -> None:
        node = nodes(model, op_type)[which]
        old = node.inputs[index]
        assert old is not None
        model.graph.inputs.append(ir.Value(name="live", type=old.type, shape=old.shape))
        node.replace_input_with(index, model.graph.inputs[-1])

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change_attribute("Transpose", 0, ir.AttrInt64s("perm", [0, 1])),
        _change_attribute("DequantizeBlock", 1, ir.AttrInt64("axis", 0)),
        _read_instead("DequantizeBlock", 1, 1),
        _read_instead("Transpose", 0, 0),
        _read_instead("MatMul", 0, 1),
    ],
)
def test_without_packed_rows_of_k_nothing_is_fused(change: Callable[[ir.Model], None]) -> None:
    model = prepare(linear())
    change(model)
    assert not FUSE(model).modified


def test_codes_that_come_when_the_model_runs_are_read_like_packed_ones() -> None:
    model = prepare(linear())
    _read_instead("DequantizeBlock", 1, 0)(model)
    assert FUSE(model).modified
    (fused,) = nodes(model, "MatMulBlock")
    assert (inputs(fused), fused.attributes["k"].as_int()) == (["x", "live", "w.scales"], K)


@pytest.mark.parametrize(
    "change",
    [
        _change_attribute("DequantizeBlock", 0, ir.AttrString("format", "mxfp4")),
        _change_attribute("DequantizeBlock", 0, ir.AttrInt64("axis", 1)),
        _change_attribute("QuantizeBlock", 0, ir.AttrInt64("axis", 1)),
        _read_instead("DequantizeBlock", 0, 0),
        _read_instead("DequantizeBlock", 0, 1),
    ],
)
def test_activations_quantized_in_another_way_are_read_as_they_are(change: Callable[[ir.Model], None]) -> None:
    model = prepare(linear())
    change(model)
    assert FUSE(model).modified
    (fused,) = nodes(model, "MatMulBlock")
    assert (inputs(fused)[0], fused.attributes["a_format"].as_string()) == ("x.amxfp4.decoded", "none")


def test_a_float16_product_that_goes_on_in_float32_stays() -> None:
    model = prepare(linear(dtype="float16"))
    (matmul,) = nodes(model, "MatMul")
    model.graph.append(ir.node("Identity", [matmul.outputs[0]]))
    assert not FUSE(model).modified


def test_layers_that_share_a_weight_share_its_codes() -> None:
    body = '["/a/MatMul"] p = MatMul(x, w) ["/b/MatMul"] q = MatMul(p, w) y = Add(p, q)'
    model = parse(body, f"float[b,{K}] x", f"float[b,{K}] y", random_weights(w=[K, K]))
    FUSE(prepare(model))
    first, second = nodes(model, "MatMulBlock")
    assert (inputs(first), inputs(second)) == (["x", "w.codes", "w.scales"], ["p", "w.codes", "w.scales"])
    assert len(model.graph) == 3
