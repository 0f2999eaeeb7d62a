"""annotate-cost: what is written, that a second run changes nothing, and that the model still computes the same."""

import dataclasses
import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from cost_models import engine, technology
from models import DECODER_LAYERS, K, branches, decoder, nodes, parse, random_weights, run

from mxcompile.config import CompileConfig
from mxcompile.cost.estimate import ModelCost, estimate
from mxcompile.cost.report import node_dict
from mxcompile.cost.storage import as_kept
from mxcompile.cost.totals import total
from mxcompile.cost.workload import count
from mxcompile.errors import CostModelError
from mxcompile.passes import (
    AttachFunctions,
    FuseMatMulBlock,
    InsertQuantize,
    NormalizeLinears,
    PackWeights,
    SelectFormats,
)
from mxcompile.passes.annotate_cost import MODEL_KEYS, NODE_KEYS, PREFIX, AnnotateCost
from mxcompile.runtime import create_session

DIMS = (("b", 2), ("s", 5))
ANNOTATE = AnnotateCost(DIMS, technology(), engine(), tokens=10)
ROUNDED = 5e-6
"""Relative: figures are written with six significant digits, so rounding is off by half a unit of the sixth."""


def compiled(model: ir.Model) -> ir.Model:
    """The model in amxfp4, fused, with the bodies of its operators."""
    config = CompileConfig("amxfp4", "amxfp4")
    for each in (NormalizeLinears(), SelectFormats(config), InsertQuantize(), PackWeights(), FuseMatMulBlock()):
        each(model)
    AttachFunctions()(model)
    return model


def cost_of(model: ir.Model) -> ModelCost:
    """What the pass must find."""
    return estimate(as_kept(count(model).at(dict(DIMS)), 4, 2), engine(), technology(), tokens=10)


def written(metadata: dict[str, str], phase: str = "") -> dict[str, str]:
    """The keys of a phase, without what they all begin with."""
    prefix = PREFIX + (f"{phase}." if phase else "")
    found = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    return {key: value for key, value in found.items() if "." not in key}


def call(op_type: str, output: str) -> ir.Model:
    """Two calls of a model-local function with a product of 4 x 4 in it, the second behind the first."""
    model = parse(f"t = Relu(x) {output} = Relu(t)", "float[b,4] x", f"float[b,4] {output}", {})
    x, w = ir.Value(name="a"), ir.Value(name="w")
    product = ir.node("MatMul", [x, w], name="inside")
    graph = ir.Graph([x, w], product.outputs, nodes=[product], opset_imports={"": 21})
    function = ir.Function("local", op_type, graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    model.opset_imports["local"] = 1
    weight = ir.Value(name="weight", const_value=ir.tensor(random_weights(weight=[4, 4])["weight"], name="weight"))
    weight.type, weight.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([4, 4])
    model.graph.register_initializer(weight)
    for index, node in enumerate(list(model.graph)):
        made = ir.node(op_type, [node.inputs[0], weight], domain="local", name=f"call{index}")
        made.outputs[0].name = node.outputs[0].name
        made.outputs[0].type, made.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [made], node.outputs, made.outputs)
    return model


def test_every_node_gets_the_figures_of_the_estimate() -> None:
    model = compiled(decoder())
    costs = {node.name: node_dict(node) for node in cost_of(model).nodes}
    assert ANNOTATE(model).modified
    for node in model.graph:
        found, expected = written(node.metadata_props), costs[node.name or f"{node.op_type}:{node.outputs[0].name}"]
        assert set(found) == {key for key in NODE_KEYS if expected[key] or key == "energy_pj"}
        for key, value in found.items():
            if isinstance(expected[key], str):
                assert value == expected[key]
            else:
                assert float(value) == pytest.approx(expected[key], rel=ROUNDED)


def test_products_say_unit_and_area() -> None:
    model = compiled(decoder())
    ANNOTATE(model)
    for node in nodes(model, "MatMulBlock"):
        found = written(node.metadata_props)
        assert (found["unit"], found["bound"]) == ("amxfp4_tagged", "compute")
        assert float(found["area_um2"]) == 16 * 150 + 2 * 60
    assert len(nodes(model, "MatMulBlock")) == len(DECODER_LAYERS)


def test_the_model_gets_the_sums_and_what_they_rest_on() -> None:
    model = compiled(decoder())
    whole = dataclasses.asdict(total(cost_of(model)))
    ANNOTATE(model)
    found = written(model.metadata_props)
    for key in MODEL_KEYS:
        if isinstance(whole[key], str):
            assert found[key] == whole[key]
        elif whole[key]:
            assert float(found[key]) == pytest.approx(whole[key], rel=ROUNDED)
    assert json.loads(found["dims"]) == dict(DIMS)
    assert json.loads(found["technology"])["node_nm"] == 45
    assert json.loads(found["engine"])["name"] == "small"
    assert (found["status"], found["uncovered"]) == ("assumed", "0")


def test_a_second_run_changes_nothing() -> None:
    model = compiled(decoder())
    assert ANNOTATE(model).modified
    assert not ANNOTATE(model).modified


def test_another_run_replaces_what_the_first_one_wrote() -> None:
    model, other = compiled(decoder()), compiled(decoder())
    ANNOTATE(model)
    slower = dataclasses.replace(ANNOTATE, engine=engine(clock_hz=1e8, constants=()))
    assert slower(model).modified
    slower(other)
    assert [node.metadata_props for node in model.graph] == [node.metadata_props for node in other.graph]
    assert model.metadata_props == other.metadata_props


def test_phases_stand_beside_each_other() -> None:
    model = compiled(decoder())
    ANNOTATE(model)
    before = written(model.metadata_props)
    decode = AnnotateCost((("b", 1), ("s", 1)), technology(), engine(), tokens=1, phase="decode")
    assert decode(model).modified
    assert written(model.metadata_props) == before
    assert int(written(model.metadata_props, "decode")["macs"]) < int(before["macs"])
    assert not ANNOTATE(model).modified


def test_other_metadata_stays() -> None:
    model = compiled(decoder())
    before = [dict(node.metadata_props) for node in model.graph]
    ANNOTATE(model)
    for node, old in zip(model.graph, before, strict=True):
        assert {key: node.metadata_props[key] for key in old} == old


@pytest.mark.parametrize("library", [True, False])
def test_the_annotated_model_is_valid_and_computes_the_same(library: bool) -> None:
    plain, annotated = compiled(decoder()), compiled(decoder())
    ANNOTATE(annotated)
    feeds = {"ids": np.arange(6).reshape(2, 3)}
    outputs = []
    for model in (plain, annotated):
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto)
        session = create_session(proto.SerializeToString(), threads=1, library=library)
        outputs.append(session.run(None, feeds)[0])
    np.testing.assert_array_equal(*outputs)


def test_nodes_in_the_branch_that_runs_are_annotated() -> None:
    model = branches()
    dims = (*DIMS, ("c", 1)) if "c" in count(model).symbols else DIMS
    dataclasses.replace(ANNOTATE, dims=dims)(model)
    then, otherwise = nodes(model, "MatMul")
    assert int(written(then.metadata_props)["macs"]) == 2 * 5 * K * 24
    assert written(otherwise.metadata_props) == {}
    dataclasses.replace(ANNOTATE, dims=(*DIMS, ("c", 0)))(model)
    assert written(then.metadata_props) == {}
    assert int(written(otherwise.metadata_props)["macs"]) == 2 * 5 * K * 24


def test_nodes_of_a_function_are_summed_up_at_each_call() -> None:
    model = call("Twice", "y")
    AnnotateCost((("b", 3),), technology(), engine(), tokens=3)(model)
    for node in model.graph:
        assert int(written(node.metadata_props)["macs"]) == 3 * 4 * 4
    (function,) = model.functions.values()
    assert all(not node.metadata_props for node in function)
    x = random_weights(5, x=[3, 4])["x"]
    np.testing.assert_array_equal(run(model, x=x), run(call("Twice", "y"), x=x))


def test_a_node_without_a_formula_gets_the_reason() -> None:
    model = parse("t = MatMul(x, w) y = Det(t)", "float[8,8] x", "float y", random_weights(w=[8, 8]))
    AnnotateCost((), technology(), engine())(model)
    product, odd = model.graph
    assert "uncovered" not in written(product.metadata_props)
    assert "Det" in written(odd.metadata_props)["uncovered"]
    assert written(model.metadata_props)["uncovered"] == "1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dims": (("b", 2),)}, "dimension s has no value"),
        ({"technology": technology(units={})}, "needs the unit"),
        ({"engine": engine(clock_hz=1e12)}, "clock_hz"),
    ],
)
def test_what_is_missing_is_an_error_and_leaves_the_model_alone(change: dict[str, object], message: str) -> None:
    model = compiled(decoder())
    before = dict(model.metadata_props)
    with pytest.raises(CostModelError, match=message):
        dataclasses.replace(ANNOTATE, **change)(model)
    assert model.metadata_props == before
    assert all(not written(node.metadata_props) for node in model.graph)
