"""select-formats: which layer gets which formats, and why not."""

import dataclasses
import logging

import onnx_ir as ir
import pytest
from models import DECODER_LAYERS, FORMS, K, N, branches, decoder, linear, nodes, parse, random_weights

from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, UnsupportedModelError
from mxcompile.passes import NormalizeLinears, SelectFormats
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, LAYER, PASSES, SKIPPED, WEIGHTS
from mxcompile.passes.select_formats import HEAD, NO_ATTENTION, NOT_INCLUDED, ROUTER, check_patterns, selectable

DEFAULT = CompileConfig("amxfp4", "amxfp4")
WITH_ATTENTION = {"attention": "mxfp4", "keys": "mxfp8_e4m3", "values": "mxint8"}
QK, PV = "/layers.0/attn/qk", "/layers.0/attn/pv"
ROUTER_LAYER, HEAD_LAYER = "/layers.0/mlp/gating", "/head"


def select(model: ir.Model, **changes: object) -> dict[str, str]:
    """Layer or node -> ``weights/activations``, or the reason why it is left alone."""
    SelectFormats(dataclasses.replace(DEFAULT, **changes))(model)  # type: ignore[arg-type]
    chosen = {}
    for node in nodes(model, "MatMul"):
        data = node.metadata_props
        assert (WEIGHTS in data) == (ACTIVATIONS in data) == (SKIPPED not in data)
        name = data.get(LAYER) or node.name or ""
        chosen[name] = data.get(SKIPPED) or f"{data[WEIGHTS]}/{data[ACTIVATIONS]}"
    return chosen


def selected(chosen: dict[str, str]) -> list[str]:
    return [name for name, choice in chosen.items() if choice.startswith(("amxfp4", "mxfp4"))]


def test_by_default_every_linear_but_head_and_router_is_selected() -> None:
    chosen = select(decoder())
    assert selected(chosen) == list(DECODER_LAYERS)
    assert {chosen[name] for name in DECODER_LAYERS} == {"amxfp4/amxfp4"}
    assert (chosen[ROUTER_LAYER], chosen[HEAD_LAYER]) == (ROUTER, HEAD)
    assert "rotary" in chosen["/rotary_emb/MatMul"]
    assert chosen[QK] == chosen[PV] == NO_ATTENTION


def test_attention_products_get_the_format_of_their_second_operand_as_weights() -> None:
    model = decoder()
    chosen = select(model, **WITH_ATTENTION)
    assert (chosen[QK], chosen[PV]) == ("mxfp8_e4m3/mxfp4", "mxint8/mxfp4")
    roles = {
        data[LAYER]: data.get(ATTENTION)
        for data in (node.metadata_props for node in nodes(model, "MatMul"))
        if LAYER in data
    }
    assert {layer: role for layer, role in roles.items() if role} == {QK: "qk", PV: "pv"}


def test_keys_or_values_without_a_format_leave_their_product_alone() -> None:
    chosen = select(decoder(), **WITH_ATTENTION | {"keys": "none"})
    assert (chosen[QK], chosen[PV]) == (NO_ATTENTION, "mxint8/mxfp4")


def test_patterns_choose_attention_products_like_layers() -> None:
    chosen = select(decoder(), **WITH_ATTENTION, include=("*attn*",), exclude=(QK,))
    assert chosen[QK] == f"--exclude '{QK}' matches it"
    assert chosen[PV] == "mxint8/mxfp4"
    assert select(decoder(), **WITH_ATTENTION, include=("*q_proj",))[PV] == NOT_INCLUDED
    overrides = (("*/qk", "int8", "none"), ("/layers.0/attn/MatMul_1", "none", "none"))
    chosen = select(decoder(), overrides=overrides)
    assert chosen[QK] == "int8/none"
    assert "--set '/layers.0/attn/MatMul_1'" in chosen[PV]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/lm_head/MatMul", HEAD),
        ("/lm_head/dense/MatMul", HEAD),
        ("/model/layers.0/mlp/gate/MatMul", ROUTER),
        ("/block_sparse_moe/router/MatMul", ROUTER),
        ("/model/layers.0/mlp/gate_proj/MatMul", None),
        ("/my_lm_head/MatMul", None),
    ],
)
def test_names_decide_only_as_whole_parts_of_the_path(name: str, reason: str | None) -> None:
    weights = random_weights(w=[K, N], v=[N, K])
    model = parse(
        f'["{name}"] t = MatMul(x, w) ["/plain/MatMul"] y = MatMul(t, v)', f"float[b,{K}] x", f"float[b,{K}] y", weights
    )
    assert select(model)[name.removesuffix("/MatMul")] == (reason or "amxfp4/amxfp4")


def test_include_selects_these_and_no_others_even_the_head() -> None:
    chosen = select(decoder(), include=("*q_proj", "/head"))
    assert selected(chosen) == ["/layers.0/attn/q_proj", "/head"]
    assert chosen["/layers.0/attn/k_proj"] == chosen[ROUTER_LAYER] == NOT_INCLUDED


def test_exclude_leaves_alone_and_beats_include() -> None:
    chosen = select(decoder(), include=("*attn*",), exclude=("*k_proj", "*v_proj"))
    assert selected(chosen) == ["/layers.0/attn/q_proj", "/layers.0/attn/o_proj"]
    assert chosen["/layers.0/attn/k_proj"] == "--exclude '*k_proj' matches it"


def test_overrides_come_last_and_the_last_one_wins() -> None:
    overrides = (("*_proj", "mxfp4", "none"), ("*k_proj", "none", "none"), ("*v_proj", "amxfp4_b16", "mxfp4"))
    chosen = select(decoder(), exclude=("*q_proj",), overrides=(*overrides, ("/head", "mxfp4", "mxfp4")))
    assert chosen["/layers.0/attn/q_proj"] == "mxfp4/none"
    assert "--set '*k_proj'" in chosen["/layers.0/attn/k_proj"]
    assert chosen["/layers.0/attn/v_proj"] == "amxfp4_b16/mxfp4"
    assert chosen["/head"] == "mxfp4/mxfp4"
    assert chosen[ROUTER_LAYER] == ROUTER


def test_an_override_selects_what_include_left_out() -> None:
    chosen = select(decoder(), include=("*q_proj",), overrides=(("*gating", "mxfp4", "none"),))
    assert chosen[ROUTER_LAYER] == "mxfp4/none"


def test_weights_none_leaves_all_but_the_overridden_alone() -> None:
    chosen = select(decoder(), weights="none", activations="none", overrides=(("*o_proj", "mxfp4", "none"),))
    assert selected(chosen) == ["/layers.0/attn/o_proj"]
    assert chosen["/layers.0/attn/q_proj"] == "the settings give no weight format"


@pytest.mark.parametrize("pattern", ["/layers.0/attn/q_proj", "layers.0/attn/q_proj", "/layers.0/attn/q_proj/MatMul"])
def test_a_pattern_matches_the_layer_or_the_node(pattern: str) -> None:
    assert selected(select(decoder(), include=(pattern,))) == ["/layers.0/attn/q_proj"]


@pytest.mark.parametrize(
    "changes",
    [
        {"include": ("*Q_PROJ",)},
        {"exclude": ("q_proj",)},
        {"overrides": (("*rotary*", "mxfp4", "none"),)},
        {"include": ("/layers.0/attn/matmul",)},
    ],
)
def test_a_pattern_that_matches_no_layer_is_an_error_that_lists_some(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"matches no layer; the model has /layers.0/attn/q_proj, .* and 5 more"):
        select(decoder(), **changes)


def test_patterns_of_several_graphs_are_checked_together() -> None:
    config = dataclasses.replace(DEFAULT, include=("*q_proj",))
    first, second = decoder(), linear()
    for model in (first, second):
        SelectFormats(config, partial=True)(model)
    assert nodes(second, "MatMul")[0].metadata_props[SKIPPED] == NOT_INCLUDED
    check_patterns(config, selectable(first) + selectable(second))
    with pytest.raises(ConfigError, match=r"--include '\*q_proj' matches no layer; the model has /layer$"):
        check_patterns(config, selectable(second))


def test_nothing_to_quantize_is_an_error_that_counts_the_reasons() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"nothing to quantize among its 11 .*9 x --exclude '\*'.*1 x rotary"
    ):
        select(decoder(), exclude=("head", "*"))


def test_no_product_at_all_is_an_error_too() -> None:
    model = parse("y = Relu(x)", "float[b] x", "float[b] y", {})
    with pytest.raises(UnsupportedModelError, match="nothing to quantize among its 0 matrix products; a linear"):
        select(model)


def test_only_metadata_changes_and_only_once() -> None:
    model = decoder()
    before = str(model)
    select_formats = SelectFormats(DEFAULT)
    assert select_formats(model).modified
    assert str(model) == before
    assert all(PASSES not in node.metadata_props for node in model.graph)
    assert not select_formats(model).modified


def test_other_settings_replace_what_was_selected() -> None:
    model = decoder()
    assert select(model)["/layers.0/attn/q_proj"] == "amxfp4/amxfp4"
    assert select(model, exclude=("*q_proj",))["/layers.0/attn/q_proj"] == "--exclude '*q_proj' matches it"
    assert select(model, weights="mxfp4")["/layers.0/attn/q_proj"] == "mxfp4/amxfp4"


def test_both_branches_are_selected() -> None:
    model = branches()
    select(model)
    assert [node.metadata_props[WEIGHTS] for node in nodes(model, "MatMul")] == ["amxfp4", "amxfp4"]


def test_heads_in_branches_are_kept() -> None:
    model = branches()
    model.graph.outputs[0].name = "logits"
    with pytest.raises(UnsupportedModelError, match="2 x output head"):
        select(model)


def test_what_is_left_alone_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mxcompile.passes.select_formats"):
        select(decoder())
    assert f"/head is left alone: {HEAD}" in caplog.messages


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("gemm")])
def test_a_gemm_has_to_be_normalized_before(form: str) -> None:
    model = linear(form)
    with pytest.raises(ir.passes.PreconditionError, match="/layer/Gemm: run normalize-linears before"):
        select(model)
    NormalizeLinears()(model)
    assert select(model) == {"/layer": "amxfp4/amxfp4"}


def test_an_unusual_gemm_keeps_its_reason() -> None:
    weights = random_weights(w=[K, N], v=[N, K])
    model = parse("t = MatMul(x, w) y = Gemm<alpha = 2.0>(t, v)", f"float[b,{K}] x", f"float[b,{K}] y", weights)
    NormalizeLinears()(model)
    SelectFormats(DEFAULT)(model)
    assert "alpha = 2" in nodes(model, "Gemm")[0].metadata_props[SKIPPED]
