"""What a page tells of a compiled model: places, nodes, the settings that it has, and what is measured of it."""

import dataclasses
import functools
import glob
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
import tiny_models
from cost_models import technology_file

from mxcompile import exporter, onnx_file
from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.cost.report import report_model
from mxcompile.evaluation import metrics
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.switched_model import open_switched
from mxcompile.evaluation.switches import switchable
from mxcompile.ops import MATMUL
from mxcompile.page.content import Node, Variant
from mxcompile.page.nodes import describe_nodes, walk
from mxcompile.page.places import Place, place, stack_labels
from mxcompile.page.variant import WINDOWS, describe_variant, recovered_config
from mxcompile.passes.metadata import LAYER
from mxcompile.report import describe_layers

pytest_plugins = ("evaluation.demo_models",)

SEQ_LEN = 32


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/model/layers.3/self_attn/q_proj", Place("/model/layers", 3, "self_attn/q_proj")),
        ("/transformer/h.11/mlp/c_fc", Place("/transformer/h", 11, "mlp/c_fc")),
        ("/bert/encoder/layer.0/attention/self/qk", Place("/bert/encoder/layer", 0, "attention/self/qk")),
        ("/block.1/layer.0/SelfAttention/q", Place("/block", 1, "layer.0/SelfAttention/q")),
        ("/model/layers.2/mlp/experts.3/up_proj", Place("/model/layers", 2, "mlp/experts.3/up_proj")),
        ("layers/4/fc", Place("layers", 4, "fc")),
        ("/classifier/classifier.1", Place("/classifier/classifier", 1, "classifier")),
        ("/lm_head", Place("", None, "lm_head")),
        ("/model/MatMul_1", Place("", None, "model/MatMul_1")),
        ("kv_cache.Shape_1", Place("", None, "kv_cache.Shape_1")),
    ],
)
def test_the_first_component_that_counts_is_the_block(path: str, found: Place) -> None:
    assert place(path) == found


@pytest.mark.parametrize(
    ("stacks", "labels"),
    [
        (["/model/layers"], {"/model/layers": ""}),
        (["", "/a/h", "/a/h"], {"/a/h": ""}),
        (["/v/enc/layers", "/t/enc/layers"], {"/v/enc/layers": "v", "/t/enc/layers": "t"}),
        (["/m/encoder", "/m/decoder"], {"/m/encoder": "encoder", "/m/decoder": "decoder"}),
        (["/a", "/a/b"], {"/a": "a", "/a/b": "a/b"}),
    ],
)
def test_lists_of_blocks_are_told_apart_by_where_they_differ(stacks: list[str], labels: dict[str, str]) -> None:
    assert stack_labels(stacks) == labels


@pytest.fixture(scope="module")
def compiled_model(
    exported_model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Compiles a tiny model."""

    @functools.cache
    def default(name: str, file: str) -> Path:
        return compile(name, file, format="amxfp4")

    def compile(name: str, file: str = "model.onnx", **settings: Any) -> Path:
        if not settings:
            return default(name, file)
        output = tmp_path_factory.mktemp(name) / file
        compile_model(exported_model_folder(name) / file, output=output, **settings)
        return output

    return compile


def products(nodes: tuple[Node, ...]) -> Iterator[Node]:
    return (node for node in nodes if node.product is not None)


ROLES = {
    "llama": {"self_attn/q_proj", "self_attn/qk", "self_attn/pv", "mlp/down_proj"},
    "gpt2": {"attn/c_attn", "attn/qk", "attn/pv", "mlp/c_proj"},
    "bert": {"attention/self/query", "attention/self/qk", "output/dense"},
    "vit": {"attention/attention/key", "attention/attention/pv", "intermediate/dense"},
    "siglip": {"vision_model/self_attn/q_proj", "text_model/self_attn/pv", "text_model/mlp/fc1"},
}


@pytest.mark.parametrize("name", ROLES)
def test_every_block_has_the_same_products(name: str, compiled_model: Callable[..., Path]) -> None:
    model = onnx_file.read_model(compiled_model(name), compiled=True)
    nodes = describe_nodes(model)
    roles = {block: [node.role for node in products(nodes) if node.block == block] for block in (None, 0, 1)}
    assert sorted(roles[0]) == sorted(roles[1])
    assert ROLES[name] <= {*roles[0]}
    for found in roles.values():
        assert len(set(found)) == len(found)
    assert {node.block for node in nodes} <= {None, *range(tiny_models.LAYERS)}
    assert [node.name for node in nodes] == [node.name for node in model.graph]


def test_nodes_tell_formats_and_sizes(compiled_model: Callable[..., Path]) -> None:
    file = compiled_model(
        "gpt2", format="dint4", overrides=[("*h.0/mlp/c_fc", "mxfp4", "none"), ("*qk", "none", "none")]
    )
    nodes = {node.layer: node for node in products(describe_nodes(onnx_file.read_model(file, compiled=True)))}
    assert len(nodes) == 2 * 6 + 1
    plain = nodes["/transformer/h.1/mlp/c_fc"]
    assert (plain.op, plain.product, plain.weights, plain.activations) == (MATMUL, "linear", "dint4", "int8")
    assert (plain.k, plain.n, plain.skipped) == (64, 256, None)
    assert plain.bits == 4 + 5 * 8 / 64  # five bytes of scale and zero point a row of 64
    float_activations = nodes["/transformer/h.0/mlp/c_fc"]
    assert (float_activations.weights, float_activations.activations, float_activations.bits) == ("mxfp4", None, 4.25)
    pv, qk, head = (nodes[layer] for layer in ("/transformer/h.0/attn/pv", "/transformer/h.0/attn/qk", "/lm_head"))
    assert (pv.product, pv.weights, pv.activations, pv.n, pv.bits) == ("pv", "dint4_b32", "int8", None, None)
    assert (qk.product, qk.weights, qk.activations) == ("qk", None, None)
    assert qk.skipped == "--set '*qk' gives it no weight format"
    assert (head.product, head.k, head.n, head.bits, head.block) == ("linear", 64, 128, 32, None)
    assert head.skipped is not None
    assert head.skipped.startswith("output head")


@pytest.mark.parametrize("form", ["matmul", "gemm", "gemm_transposed", "transpose"])
def test_sizes_of_a_layer_that_stays_in_float(form: str, tmp_path: Path) -> None:
    model = models.linear(form, dtype="float16")
    (product,) = (node for node in model.graph if node.op_type in ("MatMul", "Gemm"))
    product.metadata_props["mxcompile.skipped"] = "for a test"
    (node,) = products(describe_nodes(model))
    assert (node.product, node.k, node.n, node.bits) == ("linear", models.K, models.N, 16)


def test_products_in_branches_are_told_apart(compiled_model: Callable[..., Path]) -> None:
    model = onnx_file.read_model(compiled_model("t5", "decoder_model_merged.onnx"), compiled=True)
    nodes = describe_nodes(model)
    inner = [node for node in products(nodes) if node.role.startswith(("then/", "else/"))]
    assert {node.role for node in inner if node.weights} >= {
        f"{branch}/layer.0/SelfAttention/{name}" for branch in ("then", "else") for name in ("q", "qk", "pv", "o")
    }
    assert len({node.name for node in nodes}) == len(nodes)
    assert [node.name for node in nodes if "/then/" not in node.name and "/else/" not in node.name] == [
        path for path, branch, _ in walk(model) if not branch
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "packed": {"format": "dint4"},
    "float cache, blocks of a token": {
        **{"format": "nvfp4", "attention_format": "mxfp8_e4m3", "kv_blocking": "token", "kv_cache": "float"},
    },
    "packed blocks of a token, a mixture": {
        **{"kv_blocking": "token", "overrides": [("*q_proj", "mxint8", "none"), ("*0/*qk", "none", "none")]},
    },
    "not fused": {"format": "dint4", "fuse": False, "kv_cache": "float"},
    "not fused, blocks of a token": {"fuse": False, "kv_cache": "float", "kv_blocking": "token"},
}


def weight_codes(model: ir.Model) -> dict[str, npt.NDArray[np.uint8]]:
    """Codes of the weights of layers, read by MatMulBlock or by DequantizeBlock."""
    found = {}
    for node in model.graph.all_nodes():
        if node.domain == "mxcompile" and LAYER in node.metadata_props:
            for value in node.inputs[:2]:
                if value is not None and value.name is not None and ".codes" in value.name and value.const_value:
                    found[node.metadata_props[LAYER]] = value.const_value.numpy()
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_recovered_settings_make_the_same_products(
    name: str, compiled_model: Callable[..., Path], exported_model_folder: Callable[[str], Path]
) -> None:
    compiled = onnx_file.read_model(compiled_model("llama", **SETTINGS[name]), compiled=True)
    config = recovered_config(compiled)
    assert config.kv_blocking == SETTINGS[name].get("kv_blocking", "sequence")
    with exporter.open_model(str(exported_model_folder("llama") / "model.onnx")) as exported:
        (model,) = exported.models.values()
        switches = switchable(model, config)
        made = weight_codes(model)
        expected = weight_codes(compiled)
        assert made.keys() == expected.keys()
        assert len(expected) == 2 * 7
        for layer, codes in expected.items():
            assert np.array_equal(codes, made[layer])
    layers = [each for each in describe_layers("", compiled) if each.skipped is None]
    assert {each.layer: (each.weights, each.activations) for each in layers} == {
        switch.layer: (switch.weights, switch.activations) for switch in switches
    }
    assert len(switches) == len(layers) > 0


@dataclasses.dataclass(frozen=True)
class Described:
    file: Path
    plain: Path
    samples: Samples
    variant: Variant


@pytest.fixture(scope="module")
def described(plain_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Described:
    """The demo model in amxfp4, its first block only."""
    file = tmp_path_factory.mktemp("variant") / "demo.onnx"
    compile_model(plain_demo, output=file, format="amxfp4", include=["*layers.0/*"])
    tokens = np.random.default_rng(1).integers(3, 2000, (WINDOWS + 1, SEQ_LEN))
    samples = Samples({"input_ids": tokens}, ("random",), seq_len=SEQ_LEN)
    variant = describe_variant("amxfp4", file, plain_demo, samples, threads=1, kl={"/model/layers.0/self_attn/qk": 0.5})
    return Described(file, plain_demo, samples, variant)


def test_errors_of_products_are_measured_over_the_first_windows(described: Described) -> None:
    config = CompileConfig.of("amxfp4", include=("*layers.0/*",), kv_cache="float")
    with open_switched(str(described.plain), config, threads=1) as model:
        windows = [model.powers(described.samples[index]) for index in range(WINDOWS)]
        layers = [switch.layer for switch in model.switches]
    signal, noise = np.sum(windows, axis=0).T
    expected = {layer: metrics.sqnr(*pair) for layer, *pair in zip(layers, signal, noise, strict=True)}
    found = {node.layer: node.sqnr_db for node in products(described.variant.nodes) if node.sqnr_db is not None}
    assert found == pytest.approx(expected, rel=1e-9)  # sums of windows in another order
    assert len(found) == 9


def test_energy_is_that_of_the_cost_model_for_each_token(described: Described) -> None:
    model = onnx_file.read_model(described.file, compiled=True)
    cost = report_model("", model, prefill=SEQ_LEN).phases[0].cost
    nodes = {node.name: node for node in described.variant.nodes}
    assert len(nodes) == len(list(model.graph))
    for each in cost.nodes:
        assert nodes[each.name].energy_pj == each.energy_pj / SEQ_LEN
        assert (nodes[each.name].macs or 0) == each.macs / SEQ_LEN
    q_proj = nodes["/model/layers.0/self_attn/q_proj/MatMul"]
    assert q_proj.macs == 256 * 256
    assert sum(node.energy_pj is not None for node in nodes.values()) == len(cost.nodes)


def test_divergences_are_those_that_are_given(described: Described) -> None:
    assert {node.layer: node.kl for node in described.variant.nodes if node.kl is not None} == {
        "/model/layers.0/self_attn/qk": 0.5
    }


def test_both_operands_of_every_product_have_a_histogram(described: Described) -> None:
    names = {"linear": ["activations", "weights"], "qk": ["queries", "keys"], "pv": ["probabilities", "values"]}
    expected = {
        (node.layer, name): node.weights
        for node in products(described.variant.nodes)
        if node.product is not None and node.skipped is None
        for name in names[node.product]
    }
    found = described.variant.histograms
    assert {(each.layer, each.operand): each.format for each in found} == expected
    assert len(found) == 2 * 9
    order = list(dict.fromkeys(node.layer for node in products(described.variant.nodes) if node.skipped is None))
    assert list(dict.fromkeys(each.layer for each in found)) == order
    assert described.variant.notes == ()


def test_without_data_there_are_weights_only(described: Described) -> None:
    known = {"/model/layers.0/self_attn/qk": 12.0}
    variant = describe_variant("amxfp4", described.file, described.plain, None, sqnr_db=known)
    assert {each.operand for each in variant.histograms} == {"weights"}
    assert {node.layer: node.sqnr_db for node in variant.nodes if node.sqnr_db is not None} == known
    (note,) = variant.notes
    assert note.startswith("No data was read")


def test_another_original_is_told(described: Described, exported_model_folder: Callable[[str], Path]) -> None:
    other = exported_model_folder("gpt2") / "model.onnx"
    variant = describe_variant("amxfp4", described.file, other, described.samples)
    assert not variant.histograms
    assert not any(node.sqnr_db is not None for node in variant.nodes)
    (note,) = variant.notes
    assert note.startswith("SQNR and values were not measured: the original has not the products of the compiled")


def test_an_original_that_is_compiled_is_told(described: Described) -> None:
    variant = describe_variant("amxfp4", described.file, described.file, described.samples)
    assert len(variant.nodes) == len(described.variant.nodes)
    (note,) = variant.notes
    assert "already compiled by mxcompile" in note


def test_a_model_that_is_not_quantized_is_told(plain_demo: Path, described: Described) -> None:
    variant = describe_variant("plain", plain_demo, plain_demo, described.samples)
    assert variant.notes == ("SQNR and values were not measured: no product of the model is quantized.",)
    assert not list(products(variant.nodes))


def test_products_in_branches_are_not_measured(
    compiled_model: Callable[..., Path], exported_model_folder: Callable[[str], Path], described: Described
) -> None:
    file = compiled_model("t5", "decoder_model_merged.onnx")
    original = exported_model_folder("t5") / "decoder_model_merged.onnx"
    variant = describe_variant("amxfp4", file, original, described.samples)
    assert variant.histograms == ()
    errors, values = variant.notes[-2:]
    assert errors.startswith("SQNR was not measured: /decoder/block.0/layer.0/SelfAttention")
    assert "lies in a branch of the graph" in errors
    count = len({node.layer for node in products(variant.nodes) if node.skipped is None})
    assert values == f"Values of {count} products in branches of the graph were not looked at."


def test_a_format_without_a_unit_has_no_energy(tmp_path: Path) -> None:
    onnx_file.write_model(models.linear(), tmp_path / "plain.onnx")
    compile_model(tmp_path / "plain.onnx", output=tmp_path / "out.onnx", format="nvfp4")
    technology = str(technology_file(tmp_path))
    variant = describe_variant("nvfp4", tmp_path / "out.onnx", tmp_path / "plain.onnx", None, technology=technology)
    assert all(node.energy_pj is None for node in variant.nodes)
    assert variant.notes[0].startswith("There is no estimate of energy: ")
    assert len(variant.histograms) == 1


def test_patterns_in_names_mean_themselves(tmp_path: Path) -> None:
    model = models.linear()
    for node in model.graph:
        node.name = "/layer[0]/x*y/MatMul"
    onnx_file.write_model(model, tmp_path / "plain.onnx")
    compile_model(tmp_path / "plain.onnx", output=tmp_path / "out.onnx", format="mxfp4")
    config = recovered_config(onnx_file.read_model(tmp_path / "out.onnx", compiled=True))
    assert config.overrides == ((glob.escape("/layer[0]/x*y"), "mxfp4", "mxfp4"),)
    x = Samples({"x": np.ones((2, 3, models.K), np.float32)}, ("ones",))
    variant = describe_variant("mxfp4", tmp_path / "out.onnx", tmp_path / "plain.onnx", x, threads=1)
    assert [each.operand for each in variant.histograms] == ["activations", "weights"]
    assert "gives neither logits" in variant.notes[-1]
    assert math.isclose(sum(variant.histograms[0].counts), 3 * models.K)
