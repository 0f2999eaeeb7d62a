"""pack-cache: which tensors of a cache are packed, and that nothing but their form changes."""

import functools
import json
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from cache_models import (
    HEAD_DIM,
    AttentionGraph,
    Steps,
    assert_same_numbers,
    attention,
    described,
    names,
    open_model,
    random_feeds,
    split,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from models import counts, nodes

from mxcompile.formats import get_format
from mxcompile.graph_writer import GraphWriter
from mxcompile.kv_cache import METADATA, SKIPPED
from mxcompile.passes import PackCache
from mxcompile.passes.metadata import ATTENTION, LAYER, PASSES, WEIGHTS, recorded_passes

PACK = PackCache()
PARTS = ["key.codes", "key.scales", "value.codes", "value.scales", "value.tail"]
KEY, VALUE = "past_key_values.0.key", "past_key_values.0.value"

PLAIN = AttentionGraph()
KINDS = (
    PLAIN,
    AttentionGraph(axis="head_dim"),
    AttentionGraph("mxfp4", "mxfp4"),
    AttentionGraph("mxfp6_e3m2", "mxfp6_e3m2_b16"),
    AttentionGraph("nvfp4", "amxfp4_b64"),
    AttentionGraph("int8", "dint3_b32"),
    AttentionGraph(dtype=ir.DataType.FLOAT16),
    AttentionGraph("amxint4", "amxint4", axis="head_dim"),
)


def packed(kind: AttentionGraph = PLAIN) -> ir.Model:
    model = attention(kind)
    PACK(model)
    return model


# What changes --------------------------------------------------------------------------------------------------------


def test_parts_stand_in_the_place_of_the_tensor_they_replace() -> None:
    model = packed()
    assert names(model.graph.inputs) == ["mask", "q0", "k0", "v0", *(f"past_key_values.0.{part}" for part in PARTS)]
    assert names(model.graph.outputs) == ["y0", *(f"present.0.{part}" for part in PARTS), "past_shape"]


def test_shapes_say_what_grows_and_how() -> None:
    model = packed()
    past, total = "past_sequence_length", "(past_sequence_length + sequence_length)"
    assert described(model.graph.inputs[4:]) == {
        f"{KEY}.codes": f"UINT8[batch_size,2,{past},20]",
        f"{KEY}.scales": f"UINT8[batch_size,2,{past},2,2]",
        f"{VALUE}.codes": f"UINT8[batch_size,2,40,{past} // 32 * 16]",
        f"{VALUE}.scales": f"UINT8[batch_size,2,40,{past} // 32,2]",
        f"{VALUE}.tail": f"FLOAT[batch_size,2,{past} % 32,40]",
    }
    assert described(model.graph.outputs[1:6]) == {
        "present.0.key.codes": "UINT8[batch_size,2,past_sequence_length + sequence_length,20]",
        "present.0.key.scales": "UINT8[batch_size,2,past_sequence_length + sequence_length,2,2]",
        "present.0.value.codes": f"UINT8[batch_size,2,40,{total} // 32 * 16]",
        "present.0.value.scales": f"UINT8[batch_size,2,40,{total} // 32,2]",
        "present.0.value.tail": f"FLOAT[batch_size,2,{total} % 32,40]",
    }


def test_token_blocking_packs_values_like_keys() -> None:
    model = packed(AttentionGraph(axis="head_dim"))
    shapes = described(model.graph.inputs[4:])
    assert shapes[f"{VALUE}.codes"] == shapes[f"{KEY}.codes"]
    assert shapes[f"{VALUE}.scales"] == shapes[f"{KEY}.scales"]
    assert len(shapes) == 4


def test_the_tail_has_the_type_of_the_graph() -> None:
    model = packed(AttentionGraph(dtype=ir.DataType.FLOAT16))
    assert [value.dtype for value in model.graph.inputs[4:]] == [ir.DataType.UINT8] * 4 + [ir.DataType.FLOAT16]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_changes_nothing(kind: AttentionGraph) -> None:
    model = attention(kind)
    assert PACK(model).modified
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not PACK(model).modified
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_only_new_tokens_are_quantized() -> None:
    model = packed()
    sources = [node.inputs[0].name for node in nodes(model, "QuantizeBlock")]  # type: ignore[union-attr]
    keys = [name for name in sources if name == "k0"]
    (columns,) = [node for node in nodes(model, "Transpose") if node.outputs[0].name in sources]
    (rows,) = [node for node in nodes(model, "Concat") if node.outputs[0] is columns.inputs[0]]
    assert keys == ["k0"]
    assert names(rows.inputs) == [f"{VALUE}.tail", "v0"]
    assert len(sources) == 4  # and of queries and probabilities


def test_where_blocks_end_is_computed_once_for_all_layers() -> None:
    one, three = (counts(packed(AttentionGraph(layers=layers)), "Div", "Mul", "Add") for layers in (1, 3))
    before = [counts(attention(AttentionGraph(layers=layers)), "Div", "Mul", "Add") for layers in (1, 3)]
    assert np.subtract(one, before[0]).tolist() == np.subtract(three, before[1]).tolist()
    assert one[0] == 1


def test_layers_whose_lengths_have_other_names_have_ends_of_their_own() -> None:
    model = attention(AttentionGraph(layers=2))
    for value in model.graph.inputs[-2:]:
        value.shape = ir.Shape(["batch_size", 2, "window", HEAD_DIM])
    PACK(model)
    assert counts(model, "Div") == [2]
    assert described(model.graph.inputs)["past_key_values.1.value.scales"] == "UINT8[batch_size,2,40,window // 32,2]"


def test_unnamed_lengths_are_taken_to_differ() -> None:
    model = attention(AttentionGraph(layers=2))
    for value in model.graph.inputs:
        if value.name is not None and value.name.startswith("past"):
            value.shape = ir.Shape([None, 2, None, HEAD_DIM])
    PACK(model)
    assert counts(model, "Div") == [2]
    assert described(model.graph.inputs)[f"{VALUE}.codes"] == "UINT8[None,2,40,None]"
    steps = Steps(open_model(model))
    steps.cache = {name: np.zeros((2, *array.shape[1:]), array.dtype) for name, array in steps.cache.items()}
    for piece in split(random_feeds(40, AttentionGraph(layers=2)), [33, 7]):
        steps.run(piece)
    assert steps.cache[f"{VALUE}.tail"].shape == (2, 2, 8, HEAD_DIM)


def test_nodes_name_the_pass() -> None:
    before = {node.name for node in attention().graph}
    model = packed()
    made = [node for node in model.graph if node.name not in before]
    assert made
    assert all(recorded_passes(node) == [PACK.name] for node in made)
    assert sum(PACK.name in recorded_passes(node) for node in nodes(model, "QuantizeBlock")) == 2


def test_several_quantizers_of_a_tensor_become_one() -> None:
    model = attention()
    (first,) = [node for node in nodes(model, "QuantizeBlock") if node.inputs[0].name == "present.0.key"]  # type: ignore[union-attr]
    again = ir.node(first.op_type, first.inputs, {"format": "amxfp4", "axis": 3}, domain=first.domain, num_outputs=2)
    again.outputs[0].name, again.outputs[1].name = "again.codes", "again.scales"
    model.graph.insert_after(first, again)
    (reader,) = [node for node, _ in first.outputs[0].uses()]
    for index in range(2):
        reader.replace_input_with(index, again.outputs[index])
    PACK(model)
    assert counts(model, "QuantizeBlock") == [4]
    assert_same_numbers(attention(), model)


def test_values_with_one_scale_a_row_get_blocks() -> None:
    kind = AttentionGraph("int8", "dint4")
    model = attention(kind)
    place = {LAYER: "/layer", ATTENTION: "pv", WEIGHTS: "dint4", PASSES: "insert-attention"}
    for node in nodes(model, "QuantizeBlock")[-1:] + nodes(model, "MatMul")[-1:]:
        node.metadata_props.update(place)
    PACK(model)
    assert json.loads(model.metadata_props[METADATA])["value"]["format"] == "dint4_b32"
    formats = [node.attributes["format"].as_string() for node in nodes(model, "DequantizeBlock")]
    assert formats == ["int8", "int8", "dint4", "dint4_b32"]  # queries, keys, probabilities, values
    assert nodes(model, "MatMul")[-1].metadata_props[WEIGHTS] == "dint4_b32"
    assert not PACK(model).modified


def test_products_that_are_not_yet_quantized_are_refused() -> None:
    model = attention()
    matmul = nodes(model, "MatMul")[0]
    matmul.name = "/layer/MatMul"
    matmul.metadata_props.update({ATTENTION: "qk", WEIGHTS: "amxfp4"})
    with pytest.raises(
        ir.passes.PreconditionError, match="MatMul /layer/MatMul: run insert-attention before pack-cache"
    ):
        PACK(model)


# Numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [True, False], ids=["library", "stock"])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_those_of_the_float_cache_bit_for_bit(kind: AttentionGraph, library: bool) -> None:
    model = attention(kind)
    PACK(model)
    if kind.key == "nvfp4":  # whose keys stay in float
        assert set(json.loads(model.metadata_props[SKIPPED])) == {KEY}
    assert_same_numbers(attention(kind), model, library=library)


def test_every_layer_has_its_own_cache() -> None:
    kind = AttentionGraph(layers=3)
    assert_same_numbers(attention(kind), packed(kind), layers=3)


@functools.cache
def steps_of(kind: AttentionGraph) -> Callable[[], Steps]:
    """Makes runs with an empty cache, all over one session."""
    session = open_model(packed(kind))
    return lambda: Steps(session)


APPENDS = st.lists(st.integers(1, 40), min_size=1, max_size=6)
GROWING = tuple(kind for kind in KINDS if kind.key != "nvfp4")


@settings(max_examples=60)
@given(st.sampled_from(GROWING), APPENDS, st.integers(0, 2**32 - 1), st.booleans())
def test_any_appends_give_the_bytes_of_the_whole_sequence(
    kind: AttentionGraph, lengths: list[int], seed: int, special: bool
) -> None:
    tokens = sum(lengths)
    feeds = random_feeds(tokens, kind, seed)
    if special:
        rng = np.random.default_rng(seed)
        for array in feeds.values():
            array[rng.random(array.shape) < 0.01] = rng.choice([0.0, -0.0, np.inf, np.nan, 6e-8])
    steps = steps_of(kind)()
    for piece in split(feeds, lengths):
        steps.run(piece)
    k, v = feeds["k0"], feeds["v0"]
    keys, value_format = get_format(kind.key).quantize(k), get_format(kind.value)
    expected = {f"{KEY}.codes": keys.codes, f"{KEY}.scales": keys.scales}
    if kind.axis == "sequence":
        complete = tokens // value_format.block_size * value_format.block_size
        values = value_format.quantize(np.swapaxes(v[:, :, :complete], 2, 3))
        expected[f"{VALUE}.tail"] = v[:, :, complete:]
    else:
        values = value_format.quantize(v)
    expected |= {f"{VALUE}.codes": values.codes, f"{VALUE}.scales": values.scales}
    assert steps.cache.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(steps.cache[name], array, name, strict=True)


# Padding -------------------------------------------------------------------------------------------------------------

PADDING = (0, 10, 64)
"""Positions of padding before three sequences: none, a part of a block, two blocks."""


@functools.cache
def padded_run(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Results and cache of three sequences of 100 positions; the seed decides about the padding, the mask hides it."""
    feeds = {name: np.concatenate([x, x[:1]]) for name, x in random_feeds(100).items()}
    rng = np.random.default_rng(seed)
    mask = np.zeros((3, 1, 1, 100), np.float32)
    for row, padding in enumerate(PADDING):
        mask[row, ..., :padding] = -np.inf
        for array in feeds.values():
            hidden = array[row, :, :padding]
            hidden[...] = rng.standard_normal(hidden.shape) * np.exp2(rng.integers(-8, 9, hidden.shape))
    steps, ends = Steps(open_model(packed()), batch=3), (90, 91, 100)
    pieces = zip(split(feeds, [90, 1, 9]), ends, strict=True)
    results = [steps.run(piece | {"mask": mask[..., :end]})["y0"] for piece, end in pieces]
    return np.concatenate(results, axis=2), steps.cache


def test_padding_changes_no_key_of_a_token() -> None:
    (_, one), (_, other) = padded_run(1), padded_run(2)
    for row, padding in enumerate(PADDING):
        for part in ("codes", "scales"):
            a, b = (cache[f"{KEY}.{part}"][row] for cache in (one, other))
            np.testing.assert_array_equal(a[:, padding:], b[:, padding:])
            assert padding == 0 or (a[:, :padding] != b[:, :padding]).any()


def test_padding_changes_values_only_in_the_block_that_it_shares_with_tokens() -> None:
    (_, one), (_, other) = padded_run(1), padded_run(2)
    np.testing.assert_array_equal(one[f"{VALUE}.tail"], other[f"{VALUE}.tail"])
    for row, padding in enumerate(PADDING):
        a, b = (cache[f"{VALUE}.scales"][row] for cache in (one, other))
        codes_a, codes_b = (cache[f"{VALUE}.codes"][row].reshape(2, HEAD_DIM, 3, 16) for cache in (one, other))
        whole = -(-padding // 32)  # the first block of tokens alone
        np.testing.assert_array_equal(a[:, :, whole:], b[:, :, whole:])
        np.testing.assert_array_equal(codes_a[:, :, whole:], codes_b[:, :, whole:])
        if padding % 32:
            assert (a[:, :, whole - 1] != b[:, :, whole - 1]).any()
            assert (codes_a[:, :, whole - 1, padding // 2 :] != codes_b[:, :, whole - 1, padding // 2 :]).any()


def test_padding_of_whole_blocks_changes_no_result() -> None:
    (one, _), (other, _) = padded_run(1), padded_run(2)
    changed = [bool((one[row, :, padding:] != other[row, :, padding:]).any()) for row, padding in enumerate(PADDING)]
    assert changed == [False, True, False]


# Shapes --------------------------------------------------------------------------------------------------------------

BOUNDS = [
    {},
    {"end": 3},
    {"start": 2},
    {"start": 2, "end": 3},
    {"start": -1},
    {"start": -3, "end": -1},
    {"start": 3, "end": 1},
]


def with_shapes(kind: AttentionGraph) -> ir.Model:
    """The model with Shapes of all kinds as outputs, of past and present."""
    model = attention(kind)
    op = GraphWriter()
    for source in [*model.graph.inputs[4:6], *model.graph.outputs[1:3]]:
        for index, bounds in enumerate(BOUNDS):
            value = op.Shape(source, **bounds)
            value.name, value.type = f"shape {source.name} {index}", ir.TensorType(ir.DataType.INT64)
            model.graph.outputs.append(value)
    model.graph.extend(op.nodes)
    return model


@pytest.mark.parametrize("axis", ["sequence", "head_dim"])
def test_shapes_of_the_cache_stay_what_they_were(axis: str) -> None:
    kind = AttentionGraph(axis=axis)  # type: ignore[arg-type]
    model = with_shapes(kind)
    PACK(model)
    assert len(model.graph.outputs) == (len(PARTS) if axis == "sequence" else 4) + 2 + 4 * len(BOUNDS)
    assert_same_numbers(with_shapes(kind), model)


def test_a_shape_in_a_branch_is_replaced_too() -> None:
    def branch(name: str, source: ir.Value, **bounds: int) -> ir.Graph:
        shape = ir.node("Shape", [source], bounds)
        shape.outputs[0].name, shape.outputs[0].type = name, ir.TensorType(ir.DataType.INT64)
        return ir.Graph([], shape.outputs, nodes=[shape], name=name)

    def build() -> ir.Model:
        model = attention()
        branches = {
            "then_branch": branch("then", model.graph.outputs[2]),
            "else_branch": branch("else", model.graph.inputs[5], start=1),
        }
        yes = ir.Value(name="yes", type=ir.TensorType(ir.DataType.BOOL), const_value=ir.tensor(np.array(True)))
        model.graph.register_initializer(yes)
        chosen = ir.node("If", [yes], branches)
        chosen.outputs[0].name, chosen.outputs[0].type = "chosen", ir.TensorType(ir.DataType.INT64)
        model.graph.append(chosen)
        model.graph.outputs.append(chosen.outputs[0])
        return model

    model = build()
    PACK(model)
    assert_same_numbers(build(), model)
