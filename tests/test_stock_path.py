"""The bundled model with our library and without it: the same distributions of next tokens.

Also the order that the AMXFP4 paper shows: full precision, then amxfp4, then mxfp4.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_graph, make_model, make_tensor_value_info
from tokenizers import Tokenizer

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.exporter import open_model
from mxcompile.formats import FORMATS, NONE, BlockTensor, get_format
from mxcompile.kv_cache import empty_cache
from mxcompile.onnx_file import write_model

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOWS, LENGTH = 4, 256
COMPARED = ("amxfp4", "mxfp4")
OPERAND_ROWS = 40
ROUNDINGS = 4
"""Beside one for each term of a sum: of the integers' three and the output's."""

FLIP_SHARE = 1e-2
"""KL divergence between two ways of computing the same quantized model, as a share of what quantization itself causes,
for E2M1 elements with scales of one byte.

Products of such elements and scales have 10 significant bits, so that most sums are exact in float32; where they are
not, the two differ by accumulation, at most 704 * 2**-24 = 4e-5 relative. An activation flips to the neighbouring
code when a threshold lies that near: with 7 thresholds over the codes' range that are fewer than 1 in 2000 elements.
A flip is an error of one step, with 12 times the variance of the rounding error that every element has anyway. So the
noise power grows by less than 12 / 2000 = 0.6 percent of the quantization noise, and KL, which is quadratic in small
changes of the logits, by as much.

Formats whose sums round have flips that make more flips in the layers behind, which bounds nothing end to end. So
every format is held to float32 accumulation product by product, on operands of the real model."""

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The bundled model by format, ``none`` for the plain export."""
    folder = tmp_path_factory.mktemp("demo")
    with open_model(str(EXAMPLES / "demo-model")) as exported:
        write_model(exported.models["model.onnx"], folder / "none.onnx")

    def compiled(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            compile_model(folder / "none.onnx", format=name, output=path)
        return path

    return compiled


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    """int64 [WINDOWS, LENGTH]: held-out text, one window of each of several places."""
    spec = importlib.util.spec_from_file_location("heldout", EXAMPLES / "heldout.py")
    assert spec is not None
    assert spec.loader is not None
    heldout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(heldout)
    text = heldout.read_heldout_text()
    tokenizer = Tokenizer.from_file(str(EXAMPLES / "demo-model" / "tokenizer.json"))
    ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
    starts = np.linspace(0, len(ids) - LENGTH, WINDOWS).astype(int)
    return np.stack([ids[start : start + LENGTH] for start in starts])


def feeds_of(session: onnxruntime.InferenceSession, windows: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs of a session that prefills an empty cache with those windows."""
    positions = np.tile(np.arange(windows.shape[1]), (len(windows), 1))
    feeds = {"input_ids": windows, "attention_mask": np.ones_like(windows), "position_ids": positions}
    return feeds | empty_cache(session.get_inputs(), len(windows))


def log_probabilities(session: onnxruntime.InferenceSession, windows: np.ndarray) -> np.ndarray:
    """float64 [windows, LENGTH, vocabulary]."""
    logits = session.run(["logits"], feeds_of(session, windows))[0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Mean KL divergence of next-token distributions given as log probabilities."""
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


def products_alone(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """The MatMulBlock nodes of a model by themselves: operands that are no constants are inputs."""
    nodes = [node for node in model.graph.node if node.op_type == "MatMulBlock"]
    constants = {each.name: each for each in model.graph.initializer}
    operands = dict.fromkeys(name for node in nodes for name in node.input if name not in constants)
    elements = {name: onnx.TensorProto.UINT8 for node in nodes for name in node.input[1:3]}
    inputs = [make_tensor_value_info(name, elements.get(name, onnx.TensorProto.FLOAT), None) for name in operands]
    outputs = [make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None) for node in nodes]
    used = [constants[name] for node in nodes for name in node.input if name in constants]
    graph = make_graph(nodes, "products", inputs, outputs, initializer={each.name: each for each in used}.values())
    alone = make_model(graph, functions=model.functions, opset_imports=model.opset_import, ir_version=model.ir_version)
    return alone, nodes


@pytest.mark.parametrize("name", FORMATS)
def test_without_the_library_every_product_is_the_same(name: str, models: Models, windows: np.ndarray):
    model = onnx.load(models(name))
    alone, nodes = products_alone(model)
    assert len(nodes) > 0
    operands = [value.name for value in alone.graph.input]
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in alone.graph.initializer}
    results = [node.output[0] for node in nodes]
    known = {value.name for value in model.graph.output}
    shown = [*alone.graph.input, *alone.graph.output]
    model.graph.output.extend(value for value in shown if value.name not in known)
    session = runtime.create_session(model.SerializeToString())
    values = dict(
        zip(
            operands + results,
            session.run(operands + results, feeds_of(session, windows[:1, :OPERAND_ROWS])),
            strict=True,
        )
    )
    stock_session = runtime.create_session(alone.SerializeToString(), library=False)
    stock = stock_session.run(results, {each: values[each] for each in operands})
    for node, without in zip(nodes, stock, strict=True):
        a, codes, scales = ((values | constants)[each] for each in node.input[:3])
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        a_format, b_format = (attributes[key].decode() for key in ("a_format", "b_format"))
        a_hat = a if a_format == NONE else get_format(a_format).fake_quantize(a)
        b_hat = get_format(b_format).dequantize(BlockTensor(codes, scales, size=a.shape[-1], axis=codes.ndim - 1))
        magnitudes = np.abs(a_hat).astype(np.float64) @ np.swapaxes(np.abs(b_hat), -1, -2).astype(np.float64)
        bound = 2 * (a.shape[-1] + ROUNDINGS) * 2.0**-24 * magnitudes  # each of the two has so many roundings
        assert (np.abs(values[node.output[0]].astype(np.float64) - without) <= bound).all(), node.name


@pytest.mark.parametrize("name", COMPARED)
def test_without_the_library_the_model_is_the_same(name: str, models: Models, windows: np.ndarray):
    full = log_probabilities(runtime.create_session(models("none"), library=False), windows)
    ours = log_probabilities(runtime.create_session(models(name)), windows)
    stock = log_probabilities(runtime.create_session(models(name), library=False), windows)
    quantization = divergence(full, ours)
    assert quantization > 0
    assert divergence(ours, stock) <= FLIP_SHARE * quantization
    agreement = (ours.argmax(-1) == stock.argmax(-1)).mean()
    quantized_agreement = (ours.argmax(-1) == full.argmax(-1)).mean()
    # The share of changed tokens grows at most with the root of the noise power.
    assert 1 - agreement <= FLIP_SHARE**0.5 * (1 - quantized_agreement)


def test_asymmetric_scales_are_better_than_powers_of_two(models: Models, windows: np.ndarray):
    def perplexity(name: str) -> float:
        session = runtime.create_session(models(name), library=name != "none")
        chosen = np.take_along_axis(log_probabilities(session, windows)[:, :-1], windows[:, 1:, None], axis=-1)
        return float(np.exp(-chosen.mean()))

    assert perplexity("none") < perplexity("amxfp4") < perplexity("mxfp4")
