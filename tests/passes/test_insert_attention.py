"""insert-attention: quantizers on both operands of attention products, and nothing else changed."""

import onnx_ir as ir
import pytest
from attention_models import HEAD_DIM, HEADS, MATCHES, REPEATED, Form, attention
from attention_reference import PRODUCTS_ONLY
from models import counts, linear, nodes, parse

from mxcompile.config import CompileConfig
from mxcompile.passes import FuseMatMulBlock, InsertAttention, SelectFormats
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, LAYER, PASSES, SKIPPED, WEIGHTS
from mxcompile.passes.rewriting import producer

INSERT = InsertAttention()
CONFIG = CompileConfig("amxfp4", "none", PRODUCTS_ONLY, attention="mxfp4", keys="amxfp4", values="amxfp4_b16")


def select(model: ir.Model, config: CompileConfig = CONFIG) -> ir.Model:
    SelectFormats(config, partial=True)(model)
    return model


def inserted(form: Form | None = None, config: CompileConfig = CONFIG, dtype: str = "float") -> ir.Model:
    model = select(attention(form, dtype), config)
    assert InsertAttention(config.kv_blocking)(model).modified
    return model


def chain(value: ir.Value | None, index: int = 0) -> list[str]:
    """Operators from the value back to a graph input, along the input of that index of the first node."""
    found = []
    while value is not None and (node := value.producer()) is not None:
        found.append(node.op_type)
        value = node.inputs[index]
        index = 0
    return [*found, str(value.name) if value is not None else ""]


def products(model: ir.Model) -> tuple[ir.Node, ir.Node]:
    qk, pv = nodes(model, "MatMul")
    return qk, pv


def test_both_products_read_quantized_operands() -> None:
    model = inserted()
    qk, pv = products(model)
    decoded = ["DequantizeBlock", "QuantizeBlock"]
    assert chain(qk.inputs[0]) == [*decoded, "q"]
    assert chain(qk.inputs[1]) == ["Transpose", *decoded, "k"]
    assert chain(pv.inputs[0])[:4] == ["Slice", *decoded, "Softmax"]
    assert chain(pv.inputs[1]) == ["Transpose", "Slice", *decoded, "Transpose", "v"]
    quantizers = {
        str(node.inputs[0].name): node.attributes["format"].as_string()
        for node in nodes(model, "QuantizeBlock")
        if node.inputs[0] is not None
    }
    assert quantizers == {"q": "mxfp4", "k": "amxfp4", "soft": "mxfp4", "v.rows": "amxfp4_b16"}
    sizes = [node.attributes["size"].as_int() for node in nodes(model, "DequantizeBlock")]
    assert sizes == [HEAD_DIM, HEAD_DIM, 0, 0]


def test_by_token_values_are_quantized_as_they_are() -> None:
    model = inserted(config=CompileConfig.of("amxfp4", include=PRODUCTS_ONLY, kv_blocking="token"))
    pv = products(model)[1]
    assert chain(pv.inputs[1]) == ["DequantizeBlock", "QuantizeBlock", "v"]
    FuseMatMulBlock()(model)
    assert counts(model, "MatMulBlock", "MatMul") == [1, 1]
    assert nodes(model, "MatMul") == [pv]


@pytest.mark.parametrize("case", MATCHES)
def test_a_second_run_changes_nothing(case: str) -> None:
    model = inserted(MATCHES[case])
    before = ir.to_proto(model).SerializeToString()
    assert not INSERT(model).modified
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize("case", MATCHES)
def test_every_form_is_fused_into_two_nodes(case: str) -> None:
    model = inserted(MATCHES[case])
    assert FuseMatMulBlock()(model).modified
    assert counts(model, "MatMul", "MatMulBlock", "QuantizeBlock", "DequantizeBlock") == [0, 2, 2, 0]
    qk, pv = nodes(model, "MatMulBlock")
    assert [qk.attributes[name].value for name in ("a_format", "b_format")] == ["mxfp4", "amxfp4"]
    assert [pv.attributes[name].value for name in ("a_format", "b_format", "k")] == ["mxfp4", "amxfp4_b16", 0]
    known = case not in ("head_dim not known", "grouped, nothing known")
    assert qk.attributes["k"].as_int() == (HEAD_DIM if known else 0)
    assert [node.metadata_props[PASSES] for node in (qk, pv)] == ["insert-attention,fuse-matmul-block"] * 2
    assert not FuseMatMulBlock()(model).modified
    assert not INSERT(model).modified


@pytest.mark.parametrize("case", MATCHES)
def test_names_and_metadata_are_kept(case: str) -> None:
    model = select(attention(MATCHES[case]))
    for node in nodes(model, "MatMul"):
        node.metadata_props["origin"] = "kept"
    INSERT(model)
    qk, pv = products(model)
    assert [qk.name, pv.name] == ["/layers.0/attn/MatMul", "/layers.0/attn/MatMul_1"]
    for node, role, second in ((qk, "qk", "amxfp4"), (pv, "pv", "amxfp4_b16")):
        assert node.metadata_props == {
            LAYER: f"/layers.0/attn/{role}",
            ATTENTION: role,
            ACTIVATIONS: "mxfp4",
            WEIGHTS: second,
            PASSES: "insert-attention",
            "origin": "kept",
        }
    for node in model.graph:
        if node.op_type in ("QuantizeBlock", "DequantizeBlock"):
            assert node.metadata_props[PASSES] == "insert-attention"
            assert node.metadata_props[LAYER].startswith("/layers.0/attn/")
    names = [output.name for node in model.graph for output in node.outputs]
    assert len(set(names)) == len(names)
    assert len({node.name for node in model.graph if node.name}) == sum(bool(node.name) for node in model.graph)
    assert model.graph.outputs[0].name == "y"
    assert (softmax := producer(model.graph.outputs[0], "MatMul")) is None or softmax is pv
    assert "raw" in names


def test_the_factors_of_both_sides_become_one() -> None:
    model = inserted(MATCHES["scaled on both sides"])
    (scale,) = nodes(model, "Mul")
    constant = producer(scale.inputs[1], "Constant")
    assert constant is not None
    assert constant.attributes["value"].as_tensor().numpy() == pytest.approx(0.16, rel=2**-23)
    assert (scale.inputs[0], scale.outputs[0].name) == (products(model)[0].outputs[0], "raw")


def test_factors_of_one_disappear() -> None:
    assert nodes(inserted(MATCHES["scaled by one"]), "Mul") == []


def test_a_scaled_operand_that_others_read_stays() -> None:
    model = inserted(Form(q=("qs = Mul(q, half)", "qs"), rest=("extra = Relu(qs)", "extra")))
    assert [node.outputs[0].name for node in nodes(model, "Mul")] == ["qs", "raw"]


def test_heads_of_a_group_are_quantized_once() -> None:
    model = inserted(MATCHES["grouped, shapes computed"])
    assert counts(model, "Expand", "Unsqueeze", "QuantizeBlock") == [0, 0, 4]
    read = [node.inputs[0] for node in nodes(model, "QuantizeBlock")]
    assert [value.name for value in read if value is not None] == ["q.grouped", "k", "soft.grouped", "v.rows"]
    assert [str(value.shape) for value in (model.graph.inputs[1], model.graph.outputs[0])] == [
        f"[b,{HEADS // 2},t,{HEAD_DIM}]",
        f"[b,{HEADS},s,{HEAD_DIM}]",
    ]


@pytest.mark.parametrize(("axis", "repeated"), [("third", False), ("second", True)])
def test_the_length_of_repeated_heads_is_asked_of_the_heads_themselves(axis: str, repeated: bool) -> None:
    form = MATCHES["grouped"]
    rest = (
        f"shape = Shape(k_all) dim = Gather(shape, {axis}) extra0 = Cast<to = 1>(dim) extra = Relu(extra0)",
        "extra",
    )
    model = inserted(Form(k=form.k, v=form.v, kv_heads=form.kv_heads, rest=rest))
    assert len(nodes(model, "Expand")) == repeated
    (shape,) = [node for node in nodes(model, "Shape") if node.outputs[0].name == "shape"]
    assert shape.inputs[0] is not None
    assert shape.inputs[0].name == ("k_all" if repeated else "k")


def test_an_existing_transpose_to_rows_of_keys_is_used() -> None:
    """As in the first branch of a merged decoder, whose output is the cache."""
    form = MATCHES["keys transposed at once"]
    rows = ("rows = Transpose<perm = [0, 2, 1, 3]>(k) extra = Relu(rows) columns = Transpose<perm = [0, 2, 3, 1]>(k)",)
    model = inserted(Form(k=(*rows, "columns"), shapes=form.shapes, rest=("", "extra")))
    assert chain(products(model)[0].inputs[1])[1:4] == ["DequantizeBlock", "QuantizeBlock", "Transpose"]
    readers = [node.op_type for node, _ in nodes(model, "Relu")[0].inputs[0].uses()]  # type: ignore[union-attr]
    assert sorted(readers) == ["QuantizeBlock", "Relu"]


def test_a_later_transpose_is_not_used() -> None:
    form = MATCHES["keys transposed at once"]
    rest = ("rows = Transpose<perm = [0, 2, 1, 3]>(k) extra = Relu(rows)", "extra")
    model = inserted(Form(k=form.k, shapes=form.shapes, rest=rest))
    order = [node.outputs[0].name for node in model.graph]
    quantize = producer(products(model)[0].inputs[1], "Transpose")
    assert quantize is not None
    assert chain(quantize.inputs[0]) == ["DequantizeBlock", "QuantizeBlock", "Transpose", "k"]
    assert order.index("k.rows") < order.index("raw") < order.index("rows")


_SHARED = """
    columns = Transpose<perm = [0, 2, 1]>(k)
    ["/a/MatMul"] ra = MatMul(q, columns) ["/b/MatMul"] rb = MatMul(r, columns)
    ["/b/Softmax"] sb = Softmax(rb) ["/a/Softmax"] sa = Softmax(ra)
    ["/b/MatMul_1"] yb = MatMul(sb, v) ["/a/MatMul_1"] ya = MatMul(sa, v)
"""
_SHARED_INPUTS = "float[b,s,40] q, float[b,s,40] r, float[b,t,40] k, float[b,t,8] v"


def test_products_that_share_keys_and_values_share_their_codes() -> None:
    model = select(parse(_SHARED, _SHARED_INPUTS, "float[b,s,8] ya, float[b,s,8] yb", {}))
    INSERT(model)
    assert len(nodes(model, "QuantizeBlock")) == 6
    FuseMatMulBlock()(model)
    assert counts(model, "MatMulBlock", "QuantizeBlock") == [4, 2]
    order = {node: index for index, node in enumerate(model.graph)}
    for node in model.graph:
        makers = [value.producer() for value in node.inputs if value is not None]
        assert all(order[maker] < order[node] for maker in makers if maker is not None)


def test_products_that_share_keys_in_two_formats_do_not() -> None:
    model = select(parse(_SHARED, _SHARED_INPUTS, "float[b,s,8] ya, float[b,s,8] yb", {}))
    nodes(model, "MatMul")[0].metadata_props[WEIGHTS] = "mxfp8_e4m3"
    INSERT(model)
    assert len(nodes(model, "QuantizeBlock")) == 7


@pytest.mark.parametrize(("pattern", "kept"), [("*/qk", "pv"), ("*/pv", "qk")])
def test_a_product_left_alone_stays_as_it_is(pattern: str, kept: str) -> None:
    config = CompileConfig.of("amxfp4", include=(pattern,))
    model = inserted(MATCHES["grouped"], config)
    (other,) = [node for node in nodes(model, "MatMul") if node.metadata_props[ATTENTION] == kept]
    assert SKIPPED in other.metadata_props
    assert [value.name for value in other.inputs if value is not None] == (
        ["soft", "v_all"] if kept == "pv" else ["q", "columns"]
    )
    assert (len(nodes(model, "QuantizeBlock")), len(nodes(model, "Expand"))) == (2, 1)


def test_nothing_selected_changes_nothing() -> None:
    model = select(attention(), CompileConfig.of("amxfp4", attention=False))
    assert not INSERT(model).modified
    assert counts(model, "QuantizeBlock") == [0]


def test_linear_layers_are_not_touched() -> None:
    model = select(linear(), CompileConfig.of("amxfp4"))
    assert not INSERT(model).modified


def test_select_formats_has_to_run_first() -> None:
    with pytest.raises(ir.passes.PreconditionError, match="run select-formats before insert-attention"):
        INSERT(attention())


def test_an_unknown_blocking_is_refused() -> None:
    with pytest.raises(ir.passes.PreconditionError, match="allowed are sequence and token"):
        InsertAttention("block")(select(attention()))


def test_formats_of_whole_bytes_need_no_cut() -> None:
    assert nodes(inserted(config=CompileConfig.of("int8", include=PRODUCTS_ONLY)), "Slice") == []


def test_unquantized_queries_are_read_as_they_are() -> None:
    config = CompileConfig("amxfp4", "none", PRODUCTS_ONLY, attention="none", keys="amxfp4", values="amxfp4")
    model = inserted(config=config)
    assert [chain(node.inputs[0])[0] for node in products(model)] == ["q", "Softmax"]
    FuseMatMulBlock()(model)
    assert [node.attributes["a_format"].as_string() for node in nodes(model, "MatMulBlock")] == ["none", "none"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("case", ["plain", "grouped", "scaled on both sides"])
def test_half_precision_goes_back_to_its_type(case: str, dtype: str) -> None:
    model = inserted(MATCHES[case], dtype=dtype)
    types = {value.name: value.dtype for node in model.graph for value in node.outputs}
    for name in ("raw", "y"):
        assert types[name] is ir.DataType[dtype.upper()]
    assert all(node.outputs[0].dtype is ir.DataType.FLOAT for node in nodes(model, "MatMul"))
    FuseMatMulBlock()(model)
    fused = [node.outputs[0].dtype for node in nodes(model, "MatMulBlock")]
    half = dtype == "float16"
    scaled = case == "scaled on both sides"
    expected = [ir.DataType.FLOAT16 if half and not scaled else ir.DataType.FLOAT]
    assert fused == [*expected, ir.DataType.FLOAT16 if half else ir.DataType.FLOAT]


def test_branches_are_rewritten_each_for_itself() -> None:
    """Keys and values of the graph outside are quantized in the branch that reads them."""
    branch = """
        {p}c = Transpose<perm = [0, 2, 1]>(k) ["/a/MatMul"] {p}r = MatMul(q, {p}c)
        ["/a/Softmax"] {p}s = Softmax({p}r) ["/a/MatMul_1"] {p}y = MatMul({p}s, v)
    """
    then, other = branch.format(p="t"), branch.format(p="e")
    body = f"""
        y = If(c) <then_branch = one () => (float[b,s,8] ty) {{ {then} }},
                   else_branch = two () => (float[b,s,8] ey) {{ {other} }}>
    """
    inputs = "bool c, float[b,s,40] q, float[b,t,40] k, float[b,t,8] v"
    model = select(parse(body, inputs, "float[b,s,8] y", {}))
    INSERT(model)
    for graph in model.graph.subgraphs():
        assert sum(node.op_type == "QuantizeBlock" for node in graph) == 4
    assert len(list(model.graph)) == 1
    FuseMatMulBlock()(model)
    assert counts(model, "MatMul", "MatMulBlock") == [0, 4]
    assert not INSERT(model).modified


def test_the_repetition_of_values_alone_is_looked_through() -> None:
    form = Form(v=(REPEATED.format(x="v"), "v_all"), kv_heads=HEADS // 2, shapes=("", f"b,{HEADS},t,f", "", ""))
    model = inserted(form)
    assert counts(model, "Expand", "Reshape") == [0, 2]
