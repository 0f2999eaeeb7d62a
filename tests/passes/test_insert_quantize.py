"""insert-quantize: quantizers on both operands, shared where they can be."""

import numpy as np
import onnx_ir as ir
import pytest
from models import DECODER_LAYERS, ROWS, K, N, branches, counts, decoder, linear, nodes, parse, random_weights

from mxcompile.config import CompileConfig
from mxcompile.passes import InsertQuantize, NormalizeLinears, SelectFormats
from mxcompile.passes.insert_quantize import TransposedTensor
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, PASSES, WEIGHTS

INSERT = InsertQuantize()
CUSTOM = ("QuantizeBlock", "DequantizeBlock")


def prepare(model: ir.Model, weights: str = "amxfp4", activations: str = "amxfp4", **settings: object) -> ir.Model:
    """The model as insert-quantize gets it."""
    NormalizeLinears()(model)
    SelectFormats(CompileConfig(weights, activations, **settings))(model)  # type: ignore[arg-type]
    return model


def chain(value: ir.Value | None) -> list[str]:
    """The operators that make a value, last first, up to an initializer, a graph input or another operator."""
    types = []
    while value is not None and (node := value.producer()) is not None:
        types.append(node.op_type)
        value = node.inputs[0]
    return [*types, value.name or "" if value is not None else ""]


@pytest.mark.parametrize("form", ["matmul", "transpose", "gemm", "gemm_transposed"])
def test_both_operands_are_quantized(form: str) -> None:
    model = prepare(linear(form, "right"))
    assert INSERT(model).modified
    (matmul,) = nodes(model, "MatMul")
    assert chain(matmul.inputs[0]) == ["DequantizeBlock", "QuantizeBlock", "x"]
    rows = "w" if form in ROWS else "w.rows"
    assert chain(matmul.inputs[1]) == ["Transpose", "DequantizeBlock", "QuantizeBlock", rows]
    assert list(model.graph.initializers) == (["w", "b"] if form in ROWS else ["b", "w.rows"])
    assert counts(model, *CUSTOM, "Transpose", "Cast") == [2, 2, 1, 0]
    assert not INSERT(model).modified


def test_rows_of_k_are_a_view_and_hold_the_same_values() -> None:
    model = prepare(linear())
    weight = ir.tensor(random_weights(w=[K, N])["w"])
    model.graph.initializers["w"].const_value = weight
    INSERT(model)
    rows = model.graph.initializers["w.rows"].const_value
    assert isinstance(rows, TransposedTensor)
    assert np.shares_memory(rows.numpy(), weight.numpy())
    np.testing.assert_array_equal(rows.numpy(), weight.numpy().T)
    assert (rows.shape, rows.dtype, rows.name) == (ir.Shape([N, K]), ir.DataType.FLOAT, "w.rows")
    assert rows.tobytes() == weight.numpy().T.tobytes()


def test_types_shapes_attributes_and_names() -> None:
    model = prepare(linear(), activations="mxfp4")
    INSERT(model)
    described = {
        value.name: (value.dtype.name if value.dtype else None, str(value.shape), node.attributes.get_string("format"))
        for node in model.graph
        for value in node.outputs
    }
    assert described == {
        "x.mxfp4.codes": ("UINT8", f"[b,s,{K // 2}]", "mxfp4"),
        "x.mxfp4.scales": ("UINT8", "[b,s,2,1]", "mxfp4"),
        "x.mxfp4.decoded": ("FLOAT", f"[b,s,{K}]", "mxfp4"),
        "/layer.amxfp4.codes": ("UINT8", f"[{N},{K // 2}]", "amxfp4"),
        "/layer.amxfp4.scales": ("UINT8", f"[{N},2,2]", "amxfp4"),
        "/layer.amxfp4.decoded": ("FLOAT", f"[{N},{K}]", "amxfp4"),
        "/layer.amxfp4.columns": ("FLOAT", f"[{K},{N}]", None),
        "y": ("FLOAT", f"[b,s,{N}]", None),
    }
    for node in nodes(model, "DequantizeBlock"):
        assert (node.attributes["size"].as_int(), node.attributes["axis"].as_int()) == (K, -1)


def test_metadata_says_layer_formats_and_pass() -> None:
    model = prepare(linear(), activations="mxfp4")
    nodes(model, "MatMul")[0].metadata_props["origin"] = "kept"
    INSERT(model)
    expected = {LAYER: "/layer", WEIGHTS: "amxfp4", ACTIVATIONS: "mxfp4", PASSES: "insert-quantize"}
    assert all(node.metadata_props == expected for node in model.graph if node.op_type != "MatMul")
    assert nodes(model, "MatMul")[0].metadata_props == expected | {"origin": "kept"}


def test_activations_none_stay_as_they_are() -> None:
    model = prepare(linear(), activations="none")
    INSERT(model)
    assert nodes(model, "MatMul")[0].inputs[0] is model.graph.inputs[0]
    assert counts(model, *CUSTOM) == [1, 1]


def test_layers_left_alone_are_not_touched() -> None:
    model = prepare(decoder(), include=("*q_proj",))
    embedding = model.graph.initializers["embed"]
    INSERT(model)
    assert counts(model, *CUSTOM) == [2, 2]
    assert model.graph.initializers["embed"] is embedding
    assert chain(nodes(model, "MatMul")[-1].inputs[1]) == ["Transpose", "embed"]


def test_layers_with_the_same_input_share_its_quantizer() -> None:
    model = prepare(decoder())
    INSERT(model)
    # Inputs: turned (q and k), e, mixed, h, active.
    assert counts(model, *CUSTOM) == [5 + len(DECODER_LAYERS)] * 2
    q, k = (node for node in nodes(model, "MatMul") if (node.name or "").endswith(("q_proj/MatMul", "k_proj/MatMul")))
    assert q.inputs[0] is k.inputs[0]


def test_another_format_needs_another_quantizer() -> None:
    model = prepare(decoder(), overrides=(("*k_proj", "amxfp4", "mxfp4"),))
    INSERT(model)
    assert counts(model, "QuantizeBlock") == [6 + len(DECODER_LAYERS)]


def test_a_weight_is_shared_in_one_format_and_not_across_formats() -> None:
    body = (
        '["/a/MatMul"] p = MatMul(x, w) ["/b/MatMul"] q = MatMul(x, w) ["/c/MatMul"] r = MatMul(x, w) y = Sum(p, q, r)'
    )
    model = parse(body, f"float[b,{K}] x", f"float[b,{N}] y", random_weights(w=[K, N]))
    prepare(model, overrides=(("/c", "mxfp4", "amxfp4"),))
    INSERT(model)
    a, b, c = nodes(model, "MatMul")
    assert a.inputs[1] is b.inputs[1]
    assert chain(c.inputs[1]) == chain(a.inputs[1])
    assert c.inputs[1] is not a.inputs[1]
    assert list(model.graph.initializers) == ["w.rows"]


def test_a_square_weight_and_its_transpose_are_two_weights() -> None:
    body = "t = Transpose(w) p = MatMul(x, w) q = MatMul(x, t) y = Add(p, q)"
    model = prepare(parse(body, f"float[b,{K}] x", f"float[b,{K}] y", random_weights(w=[K, K])))
    INSERT(model)
    plain, transposed = nodes(model, "MatMul")
    assert (chain(plain.inputs[1])[-1], chain(transposed.inputs[1])[-1]) == ("w.rows", "w")


def test_a_head_tied_to_the_embedding_uses_it_as_rows() -> None:
    model = prepare(decoder(), include=("/head",))
    INSERT(model)
    assert chain(nodes(model, "MatMul")[-1].inputs[1]) == ["Transpose", "DequantizeBlock", "QuantizeBlock", "embed"]
    assert nodes(model, "Gather")[0].inputs[0] is model.graph.initializers["embed"]


def test_branches_get_their_own_quantizers_over_the_outer_weight() -> None:
    model = prepare(branches())
    INSERT(model)
    for graph in model.graph.subgraphs():
        assert [node.op_type for node in graph].count("QuantizeBlock") == 2
        assert list(graph.initializers) == []
    assert list(model.graph.initializers) == ["bias", "w.rows"]
    names = [output.name for node in model.graph.all_nodes() for output in node.outputs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("dtype", "activations", "casts"),
    [
        ("float16", "amxfp4", ["y"]),
        ("float16", "none", ["x.float32", "y"]),
        ("bfloat16", "amxfp4", ["x.float32", "y"]),
        ("bfloat16", "none", ["x.float32", "y"]),
    ],
)
def test_half_precision_computes_in_float32_and_goes_back(dtype: str, activations: str, casts: list[str]) -> None:
    model = prepare(linear(dtype=dtype), activations=activations)
    INSERT(model)
    assert [node.outputs[0].name for node in nodes(model, "Cast")] == casts
    (matmul,), back = nodes(model, "MatMul"), nodes(model, "Cast")[-1]
    assert (matmul.outputs[0].name, matmul.outputs[0].dtype) == ("y.float32", ir.DataType.FLOAT)
    assert back.outputs[0] is model.graph.outputs[0]
    assert (back.outputs[0].dtype, str(back.outputs[0].shape)) == (ir.DataType[dtype.upper()], f"[b,s,{N}]")
    assert back.attributes["to"].as_int() == ir.DataType[dtype.upper()]
    assert not INSERT(model).modified


def test_select_formats_has_to_come_before() -> None:
    with pytest.raises(ir.passes.PreconditionError, match="/layer/MatMul: run select-formats before"):
        INSERT(linear())


def test_names_that_are_taken_get_a_number() -> None:
    body = "t = MatMul(x, w) y = Add(t, codes)"
    model = parse(body, f"float[b,{K}] x, float[{N}] codes", f"float[b,{N}] y", random_weights(w=[K, N]))
    model.graph.inputs[1].name = "x.amxfp4.codes"
    INSERT(prepare(model))
    assert nodes(model, "QuantizeBlock")[0].outputs[0].name == "x.amxfp4.codes_1"
