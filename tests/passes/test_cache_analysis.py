"""Which tensors of a cache stay in float, and the reasons that users read."""

import json
from collections.abc import Callable

import onnx_ir as ir
import pytest
from cache_models import AttentionGraph, assert_same_numbers, attention, described, names
from models import nodes

from mxcompile.kv_cache import METADATA, SKIPPED
from mxcompile.passes import PackCache
from mxcompile.passes.analysis.cache import find_cache

PACK = PackCache()
KEY, VALUE = "past_key_values.0.key", "past_key_values.0.value"


def add(
    model: ir.Model, op_type: str, source: str, *, domain: str = "", **attributes: str | int | list[int]
) -> ir.Node:
    """Another reader of an input or output, at the end of the graph."""
    (value,) = [value for value in [*model.graph.inputs, *model.graph.outputs] if value.name == source]
    node = ir.node(op_type, [value], attributes, domain=domain, name="/other", num_outputs=1 + bool(domain))
    for index, output in enumerate(node.outputs):
        output.name = f"other_{index}"
    model.graph.append(node)
    return node


def without_output(model: ir.Model) -> None:
    model.graph.outputs[2].name = "new_values"


def read_in_float(model: ir.Model) -> None:
    (transpose,) = [node for node in nodes(model, "Transpose") if node.inputs[0].name == "present.0.value"]  # type: ignore[union-attr]
    (quantizer,) = [node for node, _ in transpose.outputs[0].uses()]
    quantizer.name = "/quantizer"
    cast = ir.node("Cast", [transpose.outputs[0]], {"to": 1}, name="/cast")
    cast.outputs[0].name = "float32"
    quantizer.replace_input_with(0, cast.outputs[0])
    model.graph.insert_before(quantizer, cast)


def reordered(model: ir.Model) -> None:
    (concat,) = [node for node in nodes(model, "Concat") if node.outputs[0].name == "present.0.value"]
    gather = ir.node("Gather", [concat.inputs[0], model.graph.inputs[0]], {"axis": 0}, name="/beams")
    gather.outputs[0].name = "chosen"
    concat.replace_input_with(0, gather.outputs[0])
    concat.name = "/concat"
    model.graph.insert_before(concat, gather)


def put_in_front(model: ir.Model) -> None:
    (concat,) = [node for node in nodes(model, "Concat") if node.outputs[0].name == "present.0.value"]
    past, new = concat.inputs
    concat.replace_input_with(0, new)
    concat.replace_input_with(1, past)
    concat.name = "/concat"


def from_branches(model: ir.Model) -> None:
    value = model.graph.outputs[2]
    value.name = "inner"
    chosen = ir.node("If", [None], name="optimum::if")
    chosen.outputs[0].name = "present.0.value"
    model.graph.append(chosen)
    model.graph.outputs[2] = chosen.outputs[0]


def unread(model: ir.Model) -> None:
    for node, index in list(model.graph.outputs[2].uses()):
        if node.op_type != "Shape":
            node.replace_input_with(index, model.graph.inputs[3])


def unknown_shape(model: ir.Model) -> None:
    model.graph.inputs[5].shape = ir.Shape(["batch_size", 2, "past_sequence_length", "head_dim"])


NEAR_MATCHES: dict[str, tuple[Callable[[ir.Model], object], str]] = {
    "no output": (without_output, "the model does not give it back as present.0.value"),
    "cast": (read_in_float, "present.0.value is read by Cast /cast, in float"),
    "beams": (reordered, "present.0.value comes from Concat /concat, which does more than to put new tokens behind"),
    "front": (put_in_front, "present.0.value comes from Concat /concat, which does more than"),
    "branches": (from_branches, "comes from the branches of If optimum::if; only a cache in the main graph is packed"),
    "unread": (unread, "nothing reads present.0.value"),
    "shape": (unknown_shape, "its shape is [batch_size,2,past_sequence_length,head_dim], not"),
    "past": (lambda model: add(model, "Neg", VALUE), "Neg /other reads it too"),
    "present": (lambda model: add(model, "Neg", "present.0.value"), "present.0.value is read by Neg /other, in float"),
    "another axis": (
        lambda model: add(model, "Transpose", "present.0.value", perm=[1, 0, 2, 3]),
        "present.0.value is read by Transpose /other, in float",
    ),
    "two formats": (
        lambda model: add(model, "QuantizeBlock", "present.0.value", domain="mxcompile", format="amxfp4", axis=-1),
        "present.0.value is read in 2 formats",
    ),
}


@pytest.mark.parametrize("change", NEAR_MATCHES)
def test_a_tensor_that_others_need_stays_in_float_with_the_reason(change: str) -> None:
    model = attention()
    act, reason = NEAR_MATCHES[change]
    act(model)
    before = described(model.graph.inputs)[VALUE]
    assert PACK(model).modified
    reasons = json.loads(model.metadata_props[SKIPPED])
    assert list(reasons) == [VALUE]
    assert reason in reasons[VALUE]
    assert described(model.graph.inputs)[VALUE] == before
    assert f"{KEY}.codes" in names(model.graph.inputs)
    assert json.loads(model.metadata_props[METADATA])["value"] is None
    assert not PACK(model).modified


@pytest.mark.parametrize(
    ("fmt", "reason"),
    [
        ("nvfp4", "nvfp4 scales by the largest element of the whole tensor, which later tokens may change"),
        ("amxint4", "blocks of amxint4 depend on the length of the whole sequence"),
    ],
)
def test_values_whose_codes_later_tokens_change_stay_in_float(fmt: str, reason: str) -> None:
    model = attention(AttentionGraph(value=fmt))
    assert PACK(model).modified
    assert json.loads(model.metadata_props[SKIPPED]) == {VALUE: reason}
    assert_same_numbers(attention(AttentionGraph(value=fmt)), model)


def test_a_model_of_which_nothing_is_packed_says_only_why() -> None:
    model = attention(AttentionGraph("nvfp4", "nvfp4"))
    inputs = names(model.graph.inputs)
    assert PACK(model).modified
    assert names(model.graph.inputs) == inputs
    assert set(model.metadata_props) == {SKIPPED}
    assert not PACK(model).modified


def test_a_quantizer_in_a_branch_keeps_the_tensor_in_float() -> None:
    model = attention()
    (node,) = [node for node in nodes(model, "QuantizeBlock") if node.inputs[0].name == "present.0.key"]  # type: ignore[union-attr]
    model.graph.remove(node)
    inner = ir.Graph([], node.outputs, nodes=[node], name="inner")
    model.graph.append(ir.node("If", [None], {"then_branch": inner}, num_outputs=2))
    assert find_cache(model)[1] == {KEY: "present.0.key is read inside a branch"}


def test_a_model_without_a_cache_stays_as_it_is() -> None:
    model = attention()
    for value in list(model.graph.inputs):
        if value.name is not None and value.name.startswith("past"):
            value.name = value.name.replace("past_key_values", "cross")
    assert not PACK(model).modified
    assert not model.metadata_props


def test_layers_that_differ_stand_in_the_metadata() -> None:
    kind = AttentionGraph(layers=3)
    model = attention(kind)
    add(model, "Neg", "present.1.value")
    PACK(model)
    assert json.loads(model.metadata_props[METADATA]) == {
        "version": 1,
        "layers": 3,
        "key": {"format": "amxfp4", "axis": "head_dim"},
        "value": {"format": "amxfp4", "axis": "sequence", "block": 32},
        "exceptions": {"past_key_values.1.value": None},
    }
    assert_same_numbers(attention(kind), model, layers=3)
