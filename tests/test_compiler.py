"""Whole compilations: every architecture, from the exported graph to onnxruntime."""

import collections
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_models
from feeds import random_feeds

from mxcompile import onnx_file
from mxcompile.compiler import build_pipeline, compile_model
from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, ExportError, FormatError, UnsupportedModelError
from mxcompile.formats import get_format
from mxcompile.passes import NormalizeLinears, RecordProvenance
from mxcompile.passes.analysis import find_heads, find_linears, find_routers
from mxcompile.passes.analysis.attention import NO_SOFTMAX
from mxcompile.passes.analysis.linears import ROTARY
from mxcompile.passes.select_formats import HEAD, ROUTER

Folder = Callable[[str], Path]


def session(path: Path) -> onnxruntime.InferenceSession:
    """onnxruntime without our library."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.enable_mem_reuse = False  # planning it takes longer than all the rest, see runtime.py
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path: Path, **how: bool) -> dict[str, np.ndarray]:
    """Results of one run on the random feeds, by name."""
    running = session(path)
    names = [each.name for each in running.get_outputs()]
    return dict(zip(names, running.run(names, random_feeds(running, **how)), strict=True))


def assert_close(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Equality to float32 rounding: TOLERANCE of each output's largest magnitude."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if value.size:
            difference = np.abs(actual[name].astype(np.float64) - value).max()
            assert difference <= TOLERANCE * np.abs(value).max(), name


TOLERANCE = 2e-5
"""Two layers of a dozen float32 sums of at most 128 terms each, every one off by at most 128 * 2**-24 = 7.6e-6 of its
absolute sum, and typically by its root, 7e-7: 24 sums add up to less than 2e-5. One code that flips in a W4A4 model
would change an output by a quantization step, a thousand times more, so that comparisons of W4A4 graphs hold only as
long as none does; the inputs are seeded."""


def fake_quantized_reference(source: Path, target: Path, name: str) -> list[str]:
    """Writes the source with the weights of its linear layers fake-quantized by NumPy; returns the layers' names."""
    model, fmt = onnx_file.read_model(source, compiled=True), get_format(name)
    NormalizeLinears()(model)
    kept = find_heads(model) | find_routers(model)
    chosen = [linear for linear in find_linears(model) if linear.node not in kept]
    for linear in chosen:
        weight = linear.weight.const_value
        axis = 1 if linear.transposed else 0
        linear.weight.const_value = ir.tensor(fmt.fake_quantize(weight.numpy(), axis=axis), name=weight.name)
    onnx_file.write_model(model, target)
    return [linear.layer for linear in chosen]


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_weight_only_equals_the_original_graph_with_fake_quantized_weights(
    name: str, tmp_path: Path, exported_model_folder: Folder
):
    source = exported_model_folder(name)
    report = compile_model(source, output=tmp_path / "out", activations="none")
    assert report.quantized
    for file in sorted((tmp_path / "out").glob("*.onnx")):
        original = source / file.name
        reference = tmp_path / f"reference-{file.name}"
        layers = fake_quantized_reference(original, reference, "amxfp4")
        assert [each.layer for each in report.quantized if each.model == file.name] == layers
        for cached in (False, True) if "merged" in file.name else (True,):
            assert_close(outputs(file, cached=cached), outputs(reference, cached=cached))


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_fused_and_unfused_give_the_same_outputs(name: str, tmp_path: Path, exported_model_folder: Folder):
    source = exported_model_folder(name)
    fused = compile_model(source, output=tmp_path / "fused")
    unfused = compile_model(source, output=tmp_path / "unfused", fuse=False)
    assert [vars(layer) for layer in fused.layers] == [vars(layer) for layer in unfused.layers]
    assert fused.bits_per_weight == unfused.bits_per_weight
    for file in sorted((tmp_path / "fused").glob("*.onnx")):
        ops = {node.op_type for node in onnx_file.read_model(file, compiled=True).graph.all_nodes()}
        assert "MatMulBlock" in ops
        assert "DequantizeBlock" not in ops  # QuantizeBlock is left for keys and values
        plain = {
            node.op_type
            for node in onnx_file.read_model(tmp_path / "unfused" / file.name, compiled=True).graph.all_nodes()
        }
        assert "MatMulBlock" not in plain
        assert_close(outputs(file), outputs(tmp_path / "unfused" / file.name))


LEFT_ALONE = {
    "qwen3_moe": {HEAD: 1, ROUTER: tiny_models.LAYERS},
    # No head, but texts times images. Queries, and keys with values, of the attention that pools the image are made by
    # parts of one matrix.
    "siglip": {NO_SOFTMAX: 1, "the weight is computed by Slice, Transpose; only initializers are quantized": 2},
}
"""Where other products are left alone than one output head and rotary angles: the reasons, and how many have them."""


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_every_linear_layer_is_quantized_and_every_other_product_says_why_not(
    name: str, exported_model_folder: Folder, tmp_path: Path
):
    report = compile_model(exported_model_folder(name), output=tmp_path / "out")
    heads = 2 if name in tiny_models.ENCODER_DECODERS else 1  # one in each branch of the decoder
    left_alone = collections.Counter(layer.skipped for layer in report.skipped if layer.skipped != ROTARY)
    assert left_alone == LEFT_ALONE.get(name, {HEAD: heads})
    assert all(layer.k and layer.n for layer in report.quantized if layer.attention is None)
    attentions = sum(tiny_models.ATTENTIONS[name].values())
    for role in ("qk", "pv"):
        assert sum(layer.attention == role for layer in report.quantized) == attentions
    assert report.bits_per_weight >= 4.5  # ragged K costs more


def test_the_report_is_written_beside_the_model(tmp_path: Path, exported_model_folder: Folder):
    report = compile_model(exported_model_folder("llama"), output=tmp_path / "out.onnx")
    written = json.loads((tmp_path / "out.report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert written["bytes_after"] == (tmp_path / "out.onnx").stat().st_size
    assert set(written["seconds"]) == {"export", "passes", "write"}
    assert written["bits_per_weight"] == 4.5


def test_the_file_carries_its_provenance_and_reads_in_old_versions(tmp_path: Path, exported_model_folder: Folder):
    source = exported_model_folder("llama")
    compile_model(source, output=tmp_path / "out.onnx", format="mxfp4")
    model = onnx_file.read_model(tmp_path / "out.onnx", compiled=True)
    assert (model.opset_imports[""], model.opset_imports["mxcompile"]) == (21, 1)
    assert model.ir_version == 10
    assert model.metadata_props["mxcompile.format"] == "mxfp4"
    assert model.metadata_props["mxcompile.source"] == str(source)
    assert model.metadata_props["mxcompile.tokenizer"] == (source / "tokenizer.json").read_text()
    assert json.loads(model.metadata_props["mxcompile.generation"])["eos_token_id"] == [tiny_models.EOS]
    (node,) = (node for node in model.graph if node.name == "/model/layers.0/mlp/up_proj/MatMul")
    assert node.metadata_props["mxcompile.layer"] == "/model/layers.0/mlp/up_proj"
    assert node.metadata_props["mxcompile.weights"] == "mxfp4"
    assert node.metadata_props["mxcompile.passes"].split(",")[-1] == "fuse-matmul-block"


def test_a_folder_gets_tokenizer_and_configurations(tmp_path: Path, exported_model_folder: Folder):
    compile_model(exported_model_folder("llama"), output=f"{tmp_path}/out/")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names >= {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "report.json"}
    assert not [name for name in names if name.startswith(".")]


def test_the_cache_is_packed_in_a_file_and_in_a_folder_as_optimum_knows_it(
    tmp_path: Path, exported_model_folder: Folder
):
    source = exported_model_folder("llama")
    file = compile_model(source, output=tmp_path / "out.onnx")
    folder = compile_model(source, output=f"{tmp_path}/out/")
    assert file.kv_cache is not None
    assert (file.kv_cache["key"]["format"], file.kv_cache["value"]["axis"]) == ("amxfp4", "sequence")
    assert (folder.kv_cache, folder.kv_cache_skipped) == (None, {})
    exported, packed, plain = (
        [each.name for each in session(path).get_inputs() if each.name.startswith("past_key_values")]
        for path in (source / "model.onnx", tmp_path / "out.onnx", tmp_path / "out" / "model.onnx")
    )
    assert plain == exported
    assert not set(packed) & set(exported)


def test_a_cache_that_cannot_be_packed_says_why_in_the_report(tmp_path: Path, exported_model_folder: Folder):
    report = compile_model(exported_model_folder("t5"), output=tmp_path / "out", kv_cache="packed")
    assert report.kv_cache is None
    assert report.kv_cache_skipped
    assert all("main graph" in reason or "reads it" in reason for reason in report.kv_cache_skipped.values())


def test_single_layers_may_have_formats_of_their_own(tmp_path: Path, exported_model_folder: Folder):
    report = compile_model(
        exported_model_folder("llama"),
        output=tmp_path / "out.onnx",
        exclude=("*layers.0*",),
        overrides=(("*down_proj*", "mxfp4", "none"), ("*lm_head*", "amxfp4_b16", "amxfp4"), ("*/pv", "int8", "mxfp4")),
        kv_cache="float",
    )
    chosen = {layer.layer.split("/")[-1]: (layer.weights, layer.activations) for layer in report.quantized}
    assert chosen["down_proj"] == ("mxfp4", "none")
    assert chosen["lm_head"] == ("amxfp4_b16", "amxfp4")
    assert chosen["up_proj"] == ("amxfp4", "amxfp4")
    assert (chosen["qk"], chosen["pv"]) == (("amxfp4", "amxfp4"), ("int8", "mxfp4"))
    assert outputs(tmp_path / "out.onnx")["logits"].shape[-1] == tiny_models.VOCABULARY
    first = {layer.layer.split("/")[-1] for layer in report.quantized if "layers.0" in layer.layer}
    assert first == {"down_proj", "pv"}


def test_dump_keeps_the_model_after_each_pass(tmp_path: Path, exported_model_folder: Folder):
    compile_model(exported_model_folder("llama"), output=tmp_path / "out.onnx", dump=tmp_path / "dump")
    config = CompileConfig.of("amxfp4")
    pipeline = build_pipeline(config, RecordProvenance(version="", format="", source=""))
    expected = {f"{index}-{each.name}.model.onnx" for index, each in enumerate(pipeline)}
    assert {file.name for file in (tmp_path / "dump").iterdir()} == expected
    assert ir.load(tmp_path / "dump" / "2-insert-quantize.model.onnx").graph.num_nodes() > 0


def test_progress_names_the_phases_and_counts_the_weights(tmp_path: Path, exported_model_folder: Folder):
    calls: list[tuple[str, int, int]] = []
    compile_model(
        exported_model_folder("llama"), output=tmp_path / "out.onnx", progress=lambda *call: calls.append(call)
    )
    phases = list(dict.fromkeys(phase for phase, _, _ in calls))
    assert phases[0] == "reading"
    assert phases[-1] == "writing"
    assert ("quantizing weights", 14, 14) in calls


def test_compiling_is_deterministic(tmp_path: Path, exported_model_folder: Folder):
    for name in ("a", "b"):
        compile_model(exported_model_folder("gpt2"), output=tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def failure(kind: type[Exception], tmp_path: Path, source: Path, **options: object) -> str:
    """The message of a compilation that fails; checks that it is one line and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind) as caught:
        compile_model(source, **{"output": tmp_path / "out.onnx", **options})
    assert sorted(tmp_path.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_formats_and_block_sizes_are_refused(tmp_path: Path, exported_model_folder: Folder):
    source = exported_model_folder("llama")
    assert "known are amxfp4, " in failure(FormatError, tmp_path, source, format="int3")
    assert "has 16, 32, 64" in failure(FormatError, tmp_path, source, format="amxfp4_b24")
    assert "known are" in failure(FormatError, tmp_path, source, overrides=(("*", "fp4", "none"),))
    assert "nothing to quantize" in failure(ConfigError, tmp_path, source, format="none")
    assert "weights none with" in failure(ConfigError, tmp_path, source, weights="none", activations="mxfp4")


@pytest.mark.parametrize(
    "option", [{"include": ("*nose*",)}, {"exclude": ("*nose*",)}, {"overrides": (("*nose*", "mxfp4", "mxfp4"),)}]
)
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_pattern_that_matches_nothing_lists_layers(
    name: str, tmp_path: Path, exported_model_folder: Folder, option: dict
):
    message = failure(ConfigError, tmp_path, exported_model_folder(name), output=tmp_path / "out", **option)
    assert "'*nose*' matches no layer" in message


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_nothing_to_quantize_is_an_error(name: str, tmp_path: Path, exported_model_folder: Folder):
    message = failure(
        UnsupportedModelError, tmp_path, exported_model_folder(name), output=tmp_path / "out", exclude=("*",)
    )
    assert "nothing to quantize" in message


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_non_finite_weight_is_named(tmp_path: Path, exported_model_folder: Folder, special: float):
    model = onnx_file.read_model(exported_model_folder("llama") / "model.onnx")
    linear = next(each for each in find_linears(model) if "up_proj" in each.layer)
    values = linear.weight.const_value.numpy().copy()
    values[3, 5] = special
    linear.weight.const_value = ir.tensor(values, name=linear.weight.name)
    onnx_file.write_model(model, tmp_path / "broken.onnx")
    message = failure(UnsupportedModelError, tmp_path, tmp_path / "broken.onnx")
    assert "up_proj" in message
    assert str(special) in message


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path: Path, exported_model_folder: Folder):
    source = exported_model_folder("llama")
    assert "no folder" in failure(ExportError, tmp_path, source, output=tmp_path / "missing" / "out.onnx")
    (tmp_path / "old.onnx").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert "--force" in failure(ExportError, tmp_path, source, output=tmp_path / "old.onnx")
    assert "is a file, not a folder" in failure(ExportError, tmp_path, source, output=f"{tmp_path}/file/")
    assert "is the model to compile" in failure(
        ExportError, tmp_path, source / "model.onnx", output=source / "model.onnx"
    )
    assert "give a folder: -o out/" in failure(ExportError, tmp_path, exported_model_folder("t5"))
    assert (tmp_path / "old.onnx").read_text() == "mine"


def test_force_replaces_the_output(tmp_path: Path, exported_model_folder: Folder):
    (tmp_path / "out.onnx").write_text("old")
    compile_model(exported_model_folder("llama"), output=tmp_path / "out.onnx", force=True)
    assert session(tmp_path / "out.onnx").get_outputs()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "notes.txt").write_text("mine")
    for force in (False, True):
        compile_model(exported_model_folder("llama"), output=tmp_path / "dir", force=force)
    assert (tmp_path / "dir" / "notes.txt").read_text() == "mine"


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, exported_model_folder: Folder, monkeypatch: pytest.MonkeyPatch
):
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_file, "_write_segment", full)
    source = exported_model_folder("llama")
    for output in (tmp_path / "out.onnx", tmp_path / "out"):
        assert "No space left on device" in failure(ExportError, tmp_path, source, output=output)


def test_a_compiled_model_is_not_compiled_again(tmp_path: Path, exported_model_folder: Folder):
    compile_model(exported_model_folder("llama"), output=tmp_path / "once.onnx")
    assert "already compiled" in failure(UnsupportedModelError, tmp_path, tmp_path / "once.onnx")
