"""Hugging Face models to onnx_ir models: every architecture against torch, sources, and errors."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny_models
import torch
import transformers
from optimum.exporters.tasks import TasksManager

from mxcompile import exporter, onnx_file
from mxcompile.errors import UnsupportedModelError

# torch and onnxruntime sum the same products in another order: each dot product of n terms differs by at most
# about n * u of the largest value (u = 2^-24, Higham 2002, (3.5)); n <= MLP here, and the longest path has eight
# sums a layer (norm, q or k, scores, softmax, weighted values, output, and two of the MLP) and one for the head.
# A cross-attention decoder has four more a layer and as many layers again in its encoder. The similarity of two towers
# multiplies what both give, and their pooling has at most one more layer and another norm.
TOLERANCE = tiny_models.MLP * 2.0**-24 * (8 * tiny_models.LAYERS + 1)
ENCODER_DECODER_TOLERANCE = TOLERANCE + tiny_models.MLP * 2.0**-24 * (12 * tiny_models.LAYERS)
TWO_TOWERS_TOLERANCE = 2 * (TOLERANCE + tiny_models.MLP * 2.0**-24 * 9)

BATCH, LENGTH = 3, 7  # optimum traces batch 2, length 16.
EOS = tiny_models.EOS


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(model: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs the model on those feeds that it has inputs for; its other inputs, the cache, are empty."""
    wanted = {}
    for value in model.get_inputs():
        if value.name in feeds:
            wanted[value.name] = feeds[value.name]
        else:
            batch, heads, _, size = value.shape
            assert value.name.startswith("past_key_values")
            assert isinstance(batch, str)
            wanted[value.name] = np.zeros((BATCH, heads, 0, size), np.float32)
    names = [value.name for value in model.get_outputs()]
    return dict(zip(names, model.run(names, wanted), strict=True))


def assert_close(actual: np.ndarray, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    expected = expected.numpy()
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def token_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, tiny_models.VOCABULARY, shape)


def tensors(**arrays: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# Every architecture


@pytest.mark.parametrize("name", tiny_models.DECODERS)
def test_a_decoder_computes_what_torch_computes(name, tiny_model_folder, exported_model_folder):
    """Prefill of a left-padded batch, then one step on the cache."""
    model, onnx_model = tiny_models.load(tiny_model_folder(name)), session(exported_model_folder(name) / "model.onnx")
    names = {value.name for value in onnx_model.get_inputs()}
    ids = token_ids(BATCH, LENGTH + 1)
    mask = np.ones_like(ids)
    mask[0, :2] = 0
    positions = (mask.cumsum(1) - 1).clip(0)
    cache: dict[str, np.ndarray] = {}
    past = None
    for now in (slice(0, LENGTH), slice(LENGTH, LENGTH + 1)):
        feeds = {"input_ids": ids[:, now], "attention_mask": mask[:, : now.stop], "position_ids": positions[:, now]}
        feeds = {key: value for key, value in feeds.items() if key in names}
        actual = run(onnx_model, feeds | cache)
        with torch.no_grad():
            expected = model(**tensors(**feeds), past_key_values=past, use_cache=True)
        past = expected.past_key_values
        seen = mask[:, now].astype(bool)
        assert_close(actual["logits"][seen], expected.logits[torch.from_numpy(seen)])
        cache = {k.replace("present", "past_key_values"): v for k, v in actual.items() if k != "logits"}
    assert len(cache) == 2 * tiny_models.LAYERS
    assert all(value.shape[2] == LENGTH + 1 for value in cache.values())


@pytest.mark.parametrize("name", tiny_models.ENCODERS)
def test_an_encoder_computes_what_torch_computes(name, tiny_model_folder, exported_model_folder):
    ids = token_ids(BATCH, LENGTH)
    mask = np.ones_like(ids)
    mask[0, -2:] = 0
    pixels = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32), np.float32)
    feeds = {"pixel_values": pixels} if name in tiny_models.IMAGES_ONLY else {"input_ids": ids, "attention_mask": mask}
    onnx_feeds = feeds | {"token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        expected = tiny_models.load(tiny_model_folder(name))(**tensors(**feeds)).logits
    actual = run(session(exported_model_folder(name) / "model.onnx"), onnx_feeds)
    assert_close(actual["logits"], expected)


@pytest.mark.parametrize("name", tiny_models.TWO_TOWERS)
def test_two_towers_compute_what_torch_computes(name, tiny_model_folder, exported_model_folder):
    """Texts against images, of which there may be another number."""
    ids = token_ids(BATCH, LENGTH)
    pixels = np.random.default_rng(0).standard_normal((BATCH + 1, 3, 32, 32), np.float32)
    feeds = {"input_ids": ids, "pixel_values": pixels}
    with torch.no_grad():
        expected = tiny_models.load(tiny_model_folder(name))(**tensors(**feeds))
    actual = run(session(exported_model_folder(name) / "model.onnx"), feeds)
    assert set(actual) == {"logits_per_image", "logits_per_text", "text_embeds", "image_embeds"}
    for output, values in actual.items():
        assert_close(values, expected[output], TWO_TOWERS_TOLERANCE)


@pytest.mark.parametrize("name", tiny_models.ENCODER_DECODERS)
def test_an_encoder_decoder_computes_what_torch_computes(name, tiny_model_folder, exported_model_folder):
    """The encoder; then the merged decoder's two branches: a prompt without a cache, one step with it."""
    folder, model = exported_model_folder(name), tiny_models.load(tiny_model_folder(name))
    ids, decoder_ids = token_ids(BATCH, LENGTH), token_ids(BATCH, 4)
    mask = np.ones_like(ids)
    mask[0, -2:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    hidden = run(session(folder / "encoder_model.onnx"), feeds)["last_hidden_state"]
    decoder = session(folder / "decoder_model_merged.onnx")
    cache: dict[str, np.ndarray] = {}
    past = None
    for step, now in enumerate((slice(0, 3), slice(3, 4))):
        actual = run(
            decoder,
            {
                "input_ids": decoder_ids[:, now],
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([step > 0]),
                **cache,
            },
        )
        with torch.no_grad():
            decoder_feeds = tensors(**feeds, decoder_input_ids=decoder_ids[:, now])
            expected = model(**decoder_feeds, past_key_values=past, use_cache=True)
        past = expected.past_key_values
        assert_close(hidden, expected.encoder_last_hidden_state)
        assert_close(actual["logits"], expected.logits, ENCODER_DECODER_TOLERANCE)
        cache = {k.replace("present", "past_key_values"): v for k, v in actual.items() if "present" in k}


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_an_exported_folder_opens_at_the_target_versions_with_lazy_weights(name, exported_model_folder):
    with exporter.open_model(str(exported_model_folder(name))) as exported:
        models = exported.models
        assert list(models) == list(tiny_models.ATTENTIONS[name])
        for model in models.values():
            assert model.opset_imports == {"": onnx_file.TARGET_OPSET}
            assert model.ir_version == exporter.IR_VERSION
            values = [v.const_value for g in model.graphs() for v in g.initializers.values()]
            big = [tensor for tensor in values if tensor.nbytes >= onnx_file.DETACH_BYTES]
            assert big
            assert all(isinstance(tensor, ir.ExternalTensor) and tensor.raw is None for tensor in big)


# What comes with a model


def test_a_decoder_brings_its_task_tokenizer_and_special_tokens(tiny_model_folder):
    phases: list[str] = []
    with exporter.open_model(str(tiny_model_folder("llama")), progress=phases.append) as exported:
        assert exported.task == "text-generation-with-past"
        assert json.loads(exported.tokenizer)["model"]["vocab"]["w7"] == 7
        assert exported.generation == {
            "bos_token_id": 1,
            "pad_token_id": 0,
            "eos_token_id": [EOS],
            "max_position_embeddings": tiny_models.POSITIONS,
        }
        assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= {f.name for f in exported.files}
        weights = [v.const_value for v in exported.models["model.onnx"].graph.initializers.values()]
        assert not any(isinstance(w, ir.ExternalTensor) and w.raw is not None for w in weights)
        folder = exported.files[0].parent
        assert folder.is_dir()
    assert phases == ["exporting", "reading"]
    assert not folder.exists()


def test_an_image_model_has_no_tokenizer_and_no_special_tokens(exported_model_folder):
    with exporter.open_model(str(exported_model_folder("vit"))) as exported:
        assert exported.tokenizer is None
        assert exported.generation == {}


def test_generation_config_wins_over_config(tmp_path, exported_model_folder):
    shutil.copytree(exported_model_folder("llama"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 5], "pad_token_id": null}')
    with exporter.open_model(str(tmp_path)) as exported:
        assert exported.generation["eos_token_id"] == [2, 5]
        assert exported.generation["pad_token_id"] == 0


def test_the_task_can_be_chosen(tiny_model_folder):
    with exporter.open_model(str(tiny_model_folder("bert")), task="feature-extraction") as exported:
        assert exported.task == "feature-extraction"
        assert [value.name for value in exported.models["model.onnx"].graph.outputs] == ["last_hidden_state"]


def test_exporting_says_nothing(tiny_model_folder, tmp_path):
    """In a fresh process, where the libraries set up their loggers; tied weights and shards make them talk."""
    folder = tiny_model_folder("qwen2")
    tiny_models.load(folder).save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    code = "import sys; from mxcompile.exporter import open_model\nwith open_model(sys.argv[1]): pass"
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_the_loggers_of_the_libraries_are_restored(tiny_model_folder):
    names = ("transformers", "optimum", "torch", "huggingface_hub")
    before = [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names]
    with exporter.open_model(str(tiny_model_folder("gpt2"))):
        pass
    assert [(logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names] == before
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_optimum_loads_other_models_as_before(tiny_model_folder):
    """It is told how to load one whose scores are capped, only while that one is exported."""
    before = TasksManager.get_model_from_task
    with exporter.open_model(str(tiny_model_folder("gemma2"))):
        assert TasksManager.get_model_from_task is before


# .onnx sources


def test_an_onnx_file_brings_the_files_beside_it(exported_model_folder):
    path = exported_model_folder("llama") / "model.onnx"
    with exporter.open_model(str(path)) as exported:
        assert list(exported.models) == ["model.onnx"]
        assert exported.task is None
        assert json.loads(exported.tokenizer)["model"]["vocab"]["w7"] == 7
        assert exported.generation["eos_token_id"] == [EOS]


def test_an_onnx_file_is_opened_without_torch(exported_model_folder):
    code = (
        "import sys\n"
        "from mxcompile.exporter import open_model\n"
        "with open_model(sys.argv[1]): pass\n"
        "assert not {'torch', 'transformers', 'optimum', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, exported_model_folder("bert") / "model.onnx"], check=True)


OLD_MODEL = """
<ir_version: 7, opset_import: ["" : OPSET]>
g (float[n,4] x, bool c) => (float[m,k] y) <float[4,100] w, float[4,600] big>
{
    mean = ReduceMean<axes=[1], keepdims=1>(x)
    d = Sub(x, mean)
    a = MatMul(d, w)
    b = MatMul(d, big)
    h = Concat<axis=1>(a, b)
    y = If(c) <
        then_branch = t () => (float[m,k] p) <float[700,300] inner> {
            q = MatMul(h, inner)
            p, rest = Split<axis=1>(q)
        },
        else_branch = e () => (float[m,k] s) { s = Softmax<axis=1>(h) }
    >
}
"""


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_old_opsets_are_converted_and_compute_the_same(tmp_path, opset):
    """ReduceMean, Split and Softmax changed on the way; one weight is inside a branch."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(OLD_MODEL.replace("OPSET", str(opset)))
    graphs = [proto.graph, proto.graph.node[-1].attribute[0].g]
    for graph, shapes in zip(graphs, ({"w": (4, 100), "big": (4, 600)}, {"inner": (700, 300)}), strict=True):
        del graph.initializer[:]
        for name, shape in shapes.items():
            array = rng.standard_normal(shape, np.float32)
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, tmp_path / "old.onnx")
    with exporter.open_model(str(tmp_path / "old.onnx")) as exported:
        model = exported.models["old.onnx"]
        assert model.opset_imports == {"": onnx_file.TARGET_OPSET}
        onnx_file.write_model(model, tmp_path / "new.onnx")
    for condition in (True, False):
        feeds = {"x": rng.standard_normal((3, 4), np.float32), "c": np.array(condition)}
        old, new = (session(tmp_path / f).run(None, feeds)[0] for f in ("old.onnx", "new.onnx"))
        np.testing.assert_array_equal(new, old)


def one_node_model(path: Path, op_type: str, inputs: int, opset: int) -> Path:
    names = [f"x{i}" for i in range(inputs)]
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["n"] * 4) for n in (*names, "y")]
    node = onnx.helper.make_node(op_type, names, ["y"])
    graph = onnx.helper.make_graph([node], "g", values[:-1], values[-1:])
    opsets = [onnx.helper.make_opsetid("", opset)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return path


@pytest.mark.parametrize(("op_type", "inputs"), [("GroupNormalization", 3), ("NoSuchOperator", 1)])
def test_what_cannot_be_converted_is_refused(tmp_path, op_type, inputs):
    path = one_node_model(tmp_path / "m.onnx", op_type, inputs, 20 if inputs == 3 else 13)
    with (
        pytest.raises(UnsupportedModelError, match="cannot be converted"),
        exporter.open_model(str(path)),
    ):
        pass
