"""The helpers of the passes."""

import onnx_ir as ir
from models import K, N, branches, linear, nodes, parse, random_weights

from mxcompile.passes.metadata import LAYER, PASSES, provenance, record_pass, recorded_passes
from mxcompile.passes.rewriting import UniqueNames, all_graphs, is_constant, remove_unused


def two_outputs() -> ir.Model:
    return parse(
        "p, q = Split<num_outputs = 2>(w) r = Neg(p) y = Add(x, q)",
        "float[b,4] x",
        "float[b,4] y",
        random_weights(w=[8]),
    )


def test_all_graphs_come_outer_first() -> None:
    assert [graph.name for graph in all_graphs(branches())] == ["main_graph", "then_graph", "else_graph"]


def test_unique_names_avoid_every_graph_and_themselves() -> None:
    names = UniqueNames(branches())
    assert [names.take(name) for name in ("w", "x", "t", "a", "y", "new", "new", "new")] == [
        "w_1",
        "x_1",
        "t_1",
        "a_1",
        "y_1",
        "new",
        "new_1",
        "new_2",
    ]


def test_unused_nodes_go_with_what_only_they_read() -> None:
    model = linear("alias")
    (identity,), (matmul,) = nodes(model, "Identity"), nodes(model, "MatMul")
    matmul.replace_input_with(1, model.graph.inputs[0])
    remove_unused(identity.outputs[0])
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert not model.graph.initializers


def test_a_node_with_another_output_in_use_stays() -> None:
    model = two_outputs()
    remove_unused(nodes(model, "Neg")[0].outputs[0])
    assert [node.op_type for node in model.graph] == ["Split", "Add"]
    assert "w" in model.graph.initializers


def test_a_value_in_use_and_an_output_stay() -> None:
    model = two_outputs()
    for value in (nodes(model, "Split")[0].outputs[1], model.graph.outputs[0]):
        remove_unused(value)
    assert len(model.graph) == 3


def test_an_initializer_that_callers_may_replace_is_no_constant() -> None:
    model = parse("y = Neg(x)", f"float[b] x, float[{N},{K}] w", "float[b] y", random_weights(w=[N, K], v=[N]))
    values = model.graph.initializers
    assert (is_constant(values["w"]), is_constant(values["v"]), is_constant(None)) == (False, True, False)
    for value in list(values.values()):
        remove_unused(value)
    assert list(values) == ["w"]


def test_passes_are_recorded_once_and_in_order() -> None:
    node = ir.node("Neg", [None], metadata_props={LAYER: "/layer"})
    assert recorded_passes(node) == []
    record_pass(node, "first")
    record_pass(node, "second", "first")
    assert node.metadata_props[PASSES] == "first,second"
    assert provenance(node, "third") == {LAYER: "/layer", PASSES: "third"}


def test_names_of_nodes_are_new_among_nodes_only() -> None:
    model = parse('["a"] y = Relu(x)', "float[b] x", "float[b] y", {})
    names = UniqueNames(model)
    assert [names.take_for_node(name) for name in ("a", "a", "y")] == ["a_1", "a_2", "y"]
