"""The bundled model with our library and without it: the same distributions of next tokens.

Also the order that the AMXFP4 paper shows: full precision, then amxfp4, then mxfp4.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.exporter import open_model
from mxcompile.formats import FORMATS
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1
from mxcompile.onnx_file import write_model

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOWS, LENGTH = 4, 256
COMPARED = ("amxfp4", "mxfp4", "nvfp4", "mxfp8_e4m3", "dint4", "int8")  # one of each kind

FLIP_SHARE = 1e-2
"""KL divergence between two ways of computing the same quantized model, as a share of what quantization itself causes,
for E2M1 elements with scales of one byte.

Products of such elements and scales have 10 significant bits, so that most sums are exact in float32; where they are
not, the two differ by accumulation, at most 704 * 2**-24 = 4e-5 relative. An activation flips to the neighbouring
code when a threshold lies that near: with 7 thresholds over the codes' range that are fewer than 1 in 2000 elements.
A flip is an error of one step, with 12 times the variance of the rounding error that every element has anyway. So the
noise power grows by less than 12 / 2000 = 0.6 percent of the quantization noise, and KL, which is quadratic in small
changes of the logits, by as much."""

DECORRELATED = 2.0
"""The same for the other formats. Their sums round, finer steps have more thresholds in reach, one flip makes others in
the layers that follow, and in the end roundings of the two computations may have nothing to do with each other. Then
their difference has the noise power of both, twice that of quantization, and not more."""

Models = Callable[[str], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The bundled model by format, ``none`` for the plain export."""
    folder = tmp_path_factory.mktemp("demo")
    with open_model(str(EXAMPLES / "demo-model")) as exported:
        write_model(exported.models["model.onnx"], folder / "none.onnx")
    for name in COMPARED:
        compile_model(folder / "none.onnx", format=name, output=folder / f"{name}.onnx")
    return lambda name: folder / f"{name}.onnx"


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


def log_probabilities(session: onnxruntime.InferenceSession, windows: np.ndarray) -> np.ndarray:
    """float64 [windows, LENGTH, vocabulary]."""
    positions = np.tile(np.arange(windows.shape[1]), (len(windows), 1))
    feeds = {"input_ids": windows, "attention_mask": np.ones_like(windows), "position_ids": positions}
    for each in session.get_inputs():
        if each.name.startswith("past_key_values"):
            feeds[each.name] = np.zeros((len(windows), each.shape[1], 0, each.shape[3]), np.float32)
    logits = session.run(["logits"], feeds)[0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Mean KL divergence of next-token distributions given as log probabilities."""
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


@pytest.mark.parametrize("name", COMPARED)
def test_without_the_library_the_model_is_the_same(name: str, models: Models, windows: np.ndarray):
    full = log_probabilities(runtime.create_session(models("none"), library=False), windows)
    ours = log_probabilities(runtime.create_session(models(name)), windows)
    stock = log_probabilities(runtime.create_session(models(name), library=False), windows)
    quantization = divergence(full, ours)
    assert quantization > 0
    fmt = FORMATS[name]
    share = FLIP_SHARE if isinstance(fmt, BlockScaled) and fmt.element is E2M1 else DECORRELATED
    assert divergence(ours, stock) <= share * quantization
    agreement = (ours.argmax(-1) == stock.argmax(-1)).mean()
    quantized_agreement = (ours.argmax(-1) == full.argmax(-1)).mean()
    # The share of changed tokens grows at most with the root of the noise power.
    assert 1 - agreement <= share**0.5 * (1 - quantized_agreement)


def test_asymmetric_scales_are_better_than_powers_of_two(models: Models, windows: np.ndarray):
    def perplexity(name: str) -> float:
        session = runtime.create_session(models(name), library=name != "none")
        chosen = np.take_along_axis(log_probabilities(session, windows)[:, :-1], windows[:, 1:, None], axis=-1)
        return float(np.exp(-chosen.mean()))

    assert perplexity("none") < perplexity("amxfp4") < perplexity("mxfp4")
