"""What is counted, in what order and under what name: kinds, branches, functions, and what is not covered."""

import models
import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from workload_graphs import graph, last

from mxcompile.cost.workload import Workload, count, nodes_by_name
from mxcompile.errors import CostModelError


def test_kinds_follow_from_operators_and_places() -> None:
    workload = count(models.decoder()).at({"b": 2, "s": 3})
    kinds = {node.name: node.kind for node in workload.nodes}
    assert {name: kinds[f"/layers.0/{name}/MatMul"] for name in ("attn/q_proj", "mlp/gating")} == {
        "attn/q_proj": "linear",
        "mlp/gating": "linear",
    }
    assert (kinds["/layers.0/attn/MatMul"], kinds["/layers.0/attn/MatMul_1"]) == ("attention", "attention")
    assert (kinds["/embed/Gather"], kinds["/rotary_emb/MatMul"], kinds["/head/MatMul"]) == (
        "embedding",
        "linear",
        "linear",
    )
    assert {kinds["Softmax:p"], kinds["Softmax:gates"]} == {"softmax"}
    assert (kinds["Cos:cosines"], kinds["TopK:top"]) == ("elementwise", "elementwise")
    assert (kinds["Concat:turn"], kinds["Unsqueeze:column"]) == ("movement", "movement")


def test_both_branches_are_counted_and_one_of_them_runs() -> None:
    workload = count(models.branches())
    assert [node.name for node in workload.nodes] == [
        "If:y/then//layer/MatMul",
        "If:y/else//layer/MatMul",
        "If:y/else//layer/Add",
    ]
    sizes = {"b": 2, "s": 3}
    assert workload.symbols == ("b", "s", "c")
    assert [node.op_type for node in workload.at({**sizes, "c": 1}).nodes] == ["MatMul"]
    assert [node.op_type for node in workload.at({**sizes, "c": 0}).nodes] == ["MatMul", "Add"]
    with pytest.raises(CostModelError, match="dimension c has no value"):
        workload.at(sizes)


def test_a_branch_that_can_never_run_is_not_counted() -> None:
    body = """
    r = Shape(x) n = Size(r) c = Equal(n, three)
    y = If(c) <then_branch = one_graph () => (float[a] t) { t = Neg(x) },
               else_branch = other_graph () => (float[a] e) { e = Exp(x) }>
    """
    assert [node.op_type for node in count(graph(body)).nodes][-1] == "Neg"


def test_the_branch_of_a_merged_decoder_follows_from_the_length_of_its_cache() -> None:
    body = """
    y = If(use_cache_branch) <then_branch = one_graph () => (float[past,2] t) { t = Neg(x) },
                              else_branch = other_graph () => (float[past,2] e) { e = Exp(x) }>
    """
    workload = count(graph(body, "bool use_cache_branch, float[past,2] x"))
    assert [node.op_type for node in workload.at({"past": 3}).nodes] == ["Neg"]
    assert [node.op_type for node in workload.at({"past": 0}).nodes] == ["Exp"]
    assert [node.op_type for node in workload.at({"past": 3, "use_cache_branch": 0}).nodes] == ["Exp"]


def test_bodies_of_functions_are_counted_at_each_call_with_its_attributes() -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    main_graph (float[b,4] x, float[b,9] z) => (float[b] p, float[b] q) {
        ["first"] p = other.mean <keep = 0> (x)
        ["second"] q = other.mean <keep = 1> (z)
    }
    <domain: "other", opset_import: ["" : 21]>
    mean <keep> (a) => (m) {
        axis = Constant <value_ints = [-1]> ()
        ["square"] s = Mul(a, a)
        ["reduce"] m = ReduceMean <keepdims: int = @keep> (s, axis)
    }
    """
    workload = count(ir.from_proto(onnx.parser.parse_model(text))).at({"b": 3})
    assert [node.name for node in workload.nodes] == ["first/square", "first/reduce", "second/square", "second/reduce"]
    assert [node.vector_ops for node in workload.nodes] == [12, 12, 27, 27]
    assert workload.uncovered == ()


def test_an_operator_without_a_formula_is_uncovered_with_its_size() -> None:
    workload = count(graph("z = BatchNormalization(x, v, v, v, v) y = Neg(z)", v=np.zeros(3, np.float32)))
    (uncovered,) = workload.uncovered
    assert (uncovered.op_type, uncovered.elements) == ("BatchNormalization", 24)
    assert uncovered.reason == "there is no formula for BatchNormalization"
    assert [node.op_type for node in workload.nodes] == ["Neg"]


def test_what_reads_results_of_unknown_size_is_uncovered_with_the_reason() -> None:
    workload = count(graph("z = Det(x) y = Neg(z)"))
    assert [each.op_type for each in workload.uncovered] == ["Det", "Neg"]
    assert workload.uncovered[1].reason == "what Det gives is not known; so is the size of what it gives"
    assert workload.uncovered[1].elements == 0


def test_a_loop_is_uncovered() -> None:
    body = """
    y = Loop(n, c, x) <body = step (int64 i, bool go, float[2,3,4] a) => (bool again, float[2,3,4] b) {
        again = Identity(go) b = Neg(a) }>
    """
    workload = count(graph(body, "int64 n, bool c, float[2,3,4] x"))
    assert [each.op_type for each in workload.uncovered] == ["Loop"]


def test_operators_of_other_domains_are_uncovered_even_if_they_are_called_alike() -> None:
    proto = ir.to_proto(graph("y = Neg(x)"))
    proto.graph.node[0].domain = "other"
    (uncovered,) = count(ir.from_proto(proto)).uncovered
    assert uncovered.op_type == "other::Neg"


def test_tokens_of_an_expert_are_an_even_share_unless_given() -> None:
    body = """
    v, chosen = TopK(x, two) hot = OneHot(chosen, three, pair) t = Transpose<perm = [2, 1, 0]>(hot)
    mine = Gather(t, zero) places = NonZero(mine) where = Transpose(places)
    token = Gather<axis = 1>(where, one) rows_of = Gather(x, token) y = MatMul(rows_of, weight)
    """
    workload = count(graph(body, "float[n,4] x"))
    assert workload.symbols == ("n", "tokens_per_expert")
    assert set(workload.assumed) == {"tokens_per_expert"}
    assert workload.at({"n": 6}).nodes[-1].macs == 6 * 2 // 3 * 28
    assert workload.at({"n": 5}).nodes[-1].macs == 4 * 28
    assert workload.at({"n": 6, "tokens_per_expert": 1}).nodes[-1].macs == 28


def test_a_count_that_depends_on_data_has_to_be_given() -> None:
    workload = count(graph("y = NonZero(x)", "float[a] x"))
    with pytest.raises(CostModelError, match=r"'NonZero:y\.count=NUMBER'"):
        workload.at({"a": 3})
    assert workload.at({"a": 3, "NonZero:y.count": 2}).nodes[0].output_bytes == 16


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"b": 1}, "dimension s has no value; give it with --dim 's=NUMBER'"),
        ({"b": 1, "s": 2, "t": 3}, "dimension t: the model has no such dimension; it has b, s"),
        ({"b": 1, "s": -2}, "dimension s = -2: a dimension is at least 0"),
    ],
)
def test_dimensions_that_do_not_fit_are_named(dims: dict[str, int], message: str) -> None:
    with pytest.raises(CostModelError, match=message):
        count(models.decoder()).at(dims)


def test_a_model_without_dimensions_is_counted_as_it_is() -> None:
    workload = count(graph("y = MatMul(x, weight)"))
    assert workload.symbols == ()
    assert workload.at({}) == Workload(workload.nodes, (), (), {"x": (2, 3, 4)}, {})


def test_counting_changes_nothing_and_reads_no_weights() -> None:
    model = models.decoder()
    before = ir.to_proto(model).SerializeToString()
    count(model)
    assert ir.to_proto(model).SerializeToString() == before
    weight = model.graph.initializers["wq"]
    assert weight.const_value is not None
    weight.const_value = ir.ExternalTensor(
        "nowhere", 0, 4 * 40 * 40, ir.DataType.FLOAT, shape=ir.Shape([40, 40]), name="wq", base_dir="/missing"
    )
    assert count(model).uncovered == ()


def test_names_are_unique_and_lead_to_their_nodes() -> None:
    proto = ir.to_proto(models.decoder())
    for node in proto.graph.node:
        node.name = "same"
    model = ir.from_proto(proto)
    names = [node.name for node in count(model).nodes]
    assert len(set(names)) == len(names)
    found = nodes_by_name(model)
    assert [found[node.name].op_type for node in count(model).nodes] == [node.op_type for node in count(model).nodes]


@pytest.mark.parametrize("op_type", ["Gather", "Unsqueeze", "Conv", "Expand", "TopK", "CumSum", "MatMul"])
def test_a_node_without_its_inputs_is_uncovered(op_type: str) -> None:
    workload = count(graph(f"y = {op_type}(x)"))
    assert [each.op_type for each in workload.uncovered] == [op_type]
    assert workload.nodes == ()


def test_a_model_in_which_products_cannot_be_followed_is_refused() -> None:
    with pytest.raises(CostModelError, match=r"the model is not as ONNX defines it .*; onnx\.checker says more"):
        count(graph("z = Transpose() y = MatMul(x, z)"))


def test_elements_of_all_results_are_counted() -> None:
    assert last("v, y = TopK(x, two)").elements == 2 * 6 * 2


def test_a_declared_shape_is_taken_for_an_operator_without_a_rule() -> None:
    model = graph("z = Det(x) y = Neg(z)")
    model.graph[0].outputs[0].shape = ir.Shape([2, 5])
    model.graph[0].outputs[0].dtype = ir.DataType.FLOAT
    workload = count(model)
    assert [each.elements for each in workload.uncovered] == [10]
    assert workload.nodes[0].vector_ops == 10


def test_a_declared_shape_of_unknown_names_is_not_taken() -> None:
    model = graph("z = Det(x) y = Neg(z)")
    model.graph[0].outputs[0].shape = ir.Shape([2, "unk__7"])
    assert [each.elements for each in count(model).uncovered] == [0, 0]
