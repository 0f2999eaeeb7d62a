"""Counts of compiled models: formats, quantized elements, weights and caches to the byte."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import onnx_ir as ir
import pytest
import tiny_models

from mxcompile.compiler import compile_model
from mxcompile.cost.workload import NodeWork, Workload, count
from mxcompile.formats import get_format
from mxcompile.formats.packing import packed_size
from mxcompile.onnx_file import read_model, write_model
from mxcompile.ops import MATMUL, QUANTIZE

SIZES = {"b": 2, "s": 35}
FORMATS = ("amxfp4", "mxfp4_b16", "mxfp6_e3m2", "nvfp4", "amxint4", "dint4", "int8")
"""Codes of 4, 6 and 8 bits, scales of every layout, blocks of two sizes and whole rows."""

Exported = Callable[[str], Path]


def compiled(source: Path, output: Path, **settings: Any) -> ir.Model:
    compile_model(source, output=output, **settings)
    return read_model(output, compiled=True)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of `models.decoder`, whose rows of 40 have a ragged last block."""
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    write_model(models.decoder(), path)
    return path


def products(workload: Workload) -> dict[str, NodeWork]:
    assert workload.uncovered == ()
    return {node.name: node for node in workload.nodes if node.macs}


def bias_bytes(node: NodeWork) -> int:
    """Bytes of a MatMulBlock's bias, a float for each column."""
    has_bias = node.vector_ops > 0
    assert not has_bias or node.vector_ops == node.batch * node.m * node.n
    return 4 * node.n if has_bias else 0


def constant_bytes(model: ir.Model, position: int) -> int:
    """Bytes of the initializers that MatMulBlock nodes read there, each once."""
    values = {node.inputs[position] for node in models.nodes(model, MATMUL)}
    tensors = [value.const_value for value in values if value is not None]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@pytest.mark.parametrize("fmt", FORMATS)
def test_fused_and_unfused_products_ask_for_the_same(fmt: str, decoder: Path, tmp_path: Path) -> None:
    fused, unfused = (
        count(compiled(decoder, tmp_path / f"{fuse}.onnx", format=fmt, fuse=fuse)).at(SIZES) for fuse in (True, False)
    )
    ours, theirs = products(fused), products(unfused)
    assert ours.keys() == theirs.keys()
    for name, node in ours.items():
        other = theirs[name]
        for field in ("macs", "k", "n", "a_format", "b_format", "kind", "weight_scale_bytes"):
            assert getattr(node, field) == getattr(other, field), (name, field)
        assert node.weight_code_bytes - bias_bytes(node) == other.weight_code_bytes
    # Unfused, what several products read is quantized once; MatMulBlock quantizes what it reads itself.
    readers = Counter(node.op_type for node in unfused.nodes)
    assert readers[QUANTIZE] > 0
    quantized = {node.quantized_format for node in fused.nodes if node.quantized}
    assert quantized == {node.quantized_format for node in unfused.nodes if node.quantized}
    assert sum(node.vector_ops for node in unfused.nodes if node.kind == "dequantize") == 0


@pytest.mark.parametrize("fmt", FORMATS)
def test_bytes_of_weights_are_those_in_the_file(fmt: str, decoder: Path, tmp_path: Path) -> None:
    model = compiled(decoder, tmp_path / "out.onnx", format=fmt)
    blocks = [node for node in count(model).at(SIZES).nodes if node.op_type == MATMUL and node.kind == "linear"]
    assert sum(node.weight_code_bytes - bias_bytes(node) for node in blocks) == constant_bytes(model, 1) > 0
    assert sum(map(bias_bytes, blocks)) == 4 * 80
    assert sum(node.weight_scale_bytes for node in blocks) == constant_bytes(model, 2) > 0


def test_a_linear_layer_quantizes_its_activations_and_adds_its_bias(decoder: Path, tmp_path: Path) -> None:
    work = products(count(compiled(decoder, tmp_path / "out.onnx", format="amxfp4")).at(SIZES))
    node = work["/layers.0/mlp/down_proj/MatMul"]
    rows, k, n = 2 * 35, 80, 40
    assert (node.batch, node.m, node.k, node.n, node.macs) == (1, rows, k, n, rows * k * n)
    assert (node.a_format, node.b_format, node.quantized_format) == ("amxfp4", "amxfp4", "amxfp4")
    assert (node.quantized, node.vector_ops) == (rows * k, 0)
    assert (node.weight_code_bytes, node.weight_scale_bytes) == (n * k // 2, n * 3 * 2)
    assert (node.input_bytes, node.output_bytes) == (4 * rows * k, 4 * rows * n)


def test_a_weight_only_layer_quantizes_nothing_and_has_a_float_operand(decoder: Path, tmp_path: Path) -> None:
    model = compiled(decoder, tmp_path / "out.onnx", format="mxfp4", activations="none", attention=False)
    work = products(count(model).at(SIZES))["/layers.0/mlp/down_proj/MatMul"]
    assert (work.a_format, work.b_format, work.quantized, work.quantized_format) == ("float32", "mxfp4", 0, "")


def test_layers_of_several_formats_are_counted_each_in_its_own(decoder: Path, tmp_path: Path) -> None:
    settings = {"format": "dint4", "overrides": [("*q_proj", "mxfp8_e4m3", "mxfp4_b16")], "attention": False}
    work = products(count(compiled(decoder, tmp_path / "out.onnx", **settings)).at(SIZES))
    formats = [
        (work[f"/layers.0/attn/{name}/MatMul"].a_format, work[f"/layers.0/attn/{name}/MatMul"].b_format)
        for name in ("q_proj", "k_proj")
    ]
    assert formats == [("mxfp4_b16", "mxfp8_e4m3"), ("int8", "dint4")]


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "qwen3_moe"])
def test_compiling_changes_no_multiplication(name: str, exported_model_folder: Exported, tmp_path: Path) -> None:
    source = exported_model_folder(name) / "model.onnx"
    before, after = count(read_model(source)), count(compiled(source, tmp_path / "out.onnx", format="amxfp4"))
    given = {"batch_size": 2, "sequence_length": 3, "past_sequence_length": 37}
    sizes = {key: value for key, value in given.items() if key in before.symbols}
    macs = [Counter({each: node.macs for each, node in products(work.at(sizes)).items()}) for work in (before, after)]
    linear = ["Gemm", "MatMul"]
    # normalize-linears makes a MatMul of a Gemm, under its name
    assert {each.replace(*linear): value for each, value in macs[0].items()} == {
        each.replace(*linear): value for each, value in macs[1].items()
    }
    assert before.symbols == after.symbols


BATCH, NEW, PAST = 2, 3, 70
TOKENS, REST = PAST + NEW, PAST % 32
HEADS, HEAD_DIM = tiny_models.HEADS // 2, tiny_models.HIDDEN // tiny_models.HEADS


def attention_works(source: Path, output: Path, kv_cache: str, fmt: str) -> dict[str, list[NodeWork]]:
    """Queries times keys, probabilities times values and the quantizers of one layer of a Llama."""
    model = compiled(source, output, format=fmt, kv_cache=kv_cache)
    nodes = count(model).at({"batch_size": BATCH, "sequence_length": NEW, "past_sequence_length": PAST}).nodes
    layer = [node for node in nodes if "layers.0" in node.name or ".0." in node.name]
    return {
        "products": [node for node in layer if node.kind == "attention"],
        "quantizers": [node for node in layer if node.op_type == QUANTIZE],
    }


@pytest.mark.parametrize("fmt", ["amxfp4", "mxfp6_e2m3", "mxfp8_e4m3"])
def test_products_read_a_packed_cache_to_the_byte(fmt: str, exported_model_folder: Exported, tmp_path: Path) -> None:
    source = exported_model_folder("llama") / "model.onnx"
    works = attention_works(source, tmp_path / "out.onnx", "packed", fmt)
    definition = get_format(fmt)
    bits, per_block = definition.element.bits, definition.scales_per_block
    keys, values = works["products"]
    rows = BATCH * HEADS * TOKENS
    assert keys.cache_code_bytes == rows * packed_size(HEAD_DIM, bits)
    assert keys.cache_scale_bytes == rows * definition.scale_groups(HEAD_DIM) * per_block
    rows = BATCH * HEADS * HEAD_DIM
    assert values.cache_code_bytes == rows * packed_size(TOKENS, bits)
    assert values.cache_scale_bytes == rows * definition.scale_groups(TOKENS) * per_block
    # New keys come from this run; values wait in floating point until their block of 32 is full.
    new_keys, new_values = works["quantizers"]
    assert (new_keys.quantized, new_keys.cache_code_bytes) == (BATCH * HEADS * NEW * HEAD_DIM, 0)
    assert new_values.quantized == BATCH * HEADS * (REST + NEW) * HEAD_DIM
    assert new_values.cache_code_bytes == 4 * new_values.quantized


def test_a_float_cache_is_read_and_quantized_as_a_whole(exported_model_folder: Exported, tmp_path: Path) -> None:
    source = exported_model_folder("llama") / "model.onnx"
    works = attention_works(source, tmp_path / "out.onnx", "float", "amxfp4")
    elements = BATCH * HEADS * TOKENS * HEAD_DIM
    for node in works["quantizers"]:
        assert (node.quantized, node.cache_code_bytes, node.input_bytes) == (elements, 4 * elements, 0)
    for node in works["products"]:
        assert (node.cache_code_bytes, node.cache_scale_bytes) == (0, 0)


def test_both_branches_of_a_compiled_merged_decoder_are_counted(
    exported_model_folder: Exported, tmp_path: Path
) -> None:
    folder = exported_model_folder("t5")
    compile_model(folder / "decoder_model_merged.onnx", format="mxfp4", output=tmp_path / "out.onnx")
    before = count(read_model(folder / "decoder_model_merged.onnx"))
    after = count(read_model(tmp_path / "out.onnx", compiled=True))
    for past in (0, 4):
        sizes = {"batch_size": 2, "decoder_sequence_length": 3, "encoder_sequence_length": 6}
        sizes["past_decoder_sequence_length"] = past
        plain, packed = before.at(sizes), after.at(sizes)
        assert packed.uncovered == ()
        assert sum(node.macs for node in packed.nodes) == sum(node.macs for node in plain.nodes)
        assert {node.b_format for node in packed.nodes if node.kind == "attention"} == {"mxfp4"}
