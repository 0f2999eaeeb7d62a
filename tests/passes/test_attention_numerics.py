"""Attention products of compiled models are what the NumPy definition of the formats says, for every architecture."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tiny_models
from attention_models import MATCHES, PLAIN_KEYS, Form, attention, feeds
from attention_reference import PRODUCTS_ONLY, Observed, compiled, expose, formats_of, observe

from mxcompile import onnx_file
from mxcompile.config import CompileConfig, KvBlocking
from mxcompile.runtime import custom_ops_library

Array = npt.NDArray[Any]

AMXFP4 = CompileConfig.of("amxfp4", include=PRODUCTS_ONLY)
FLOAT = {"q": "none", "k": "none", "p": "none", "v": "none"}
BATCH, PROMPT, STEPS = 3, 30, 8
"""The tokens grow from less than a block of 32 to more, odd and even."""


def open_session(model: ir.Model, folder: Path, *, library: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if library:
        options.register_custom_ops_library(str(custom_ops_library()))
    onnx_file.write_model(model, folder / "model.onnx")
    return ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, given: dict[str, Array]) -> dict[str, Array]:
    """Runs with those inputs that the model has; a cache that is not given is empty."""
    wanted = {}
    for value in session.get_inputs():
        name = value.name
        if name in given:
            wanted[name] = given[name]
        else:
            assert name.startswith("past_key_values")
            wanted[name] = np.zeros((BATCH, value.shape[1], 0, value.shape[3]), np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, wanted), strict=True))


def check(observed: list[Observed], result: dict[str, Array], config: CompileConfig) -> None:
    for each in observed:
        each.check(result, formats_of(config), config.kv_blocking)


def check_float(observed: list[Observed], result: dict[str, Array]) -> None:
    for each in observed:
        each.check(result, FLOAT)


# Every form


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("case", [*MATCHES, *PLAIN_KEYS])
def test_every_form_computes_what_the_formats_say(case: str, fuse: bool, tmp_path: Path) -> None:
    model = attention((MATCHES | PLAIN_KEYS)[case])
    given = feeds(model)
    observed = compiled(model, AMXFP4, fuse=fuse)
    check(observed, run(open_session(model, tmp_path), given), AMXFP4)


@pytest.mark.parametrize("blocking", ["sequence", "token"])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("case", ["grouped", "three dimensions", "head_dim not known"])
def test_a_stock_onnxruntime_computes_every_kind_of_graph(
    case: str, fuse: bool, blocking: KvBlocking, tmp_path: Path
) -> None:
    config, model = CompileConfig.of("amxfp4", include=PRODUCTS_ONLY, kv_blocking=blocking), attention(MATCHES[case])
    given = feeds(model)
    observed = compiled(model, config, fuse=fuse)
    check(observed, run(open_session(model, tmp_path, library=False), given), config)


@pytest.mark.parametrize("case", [*MATCHES, *PLAIN_KEYS])
def test_the_operands_of_every_form_give_its_own_products(case: str, tmp_path: Path) -> None:
    """In the float model, whose second product stands at the end and whose first one is scaled in its operands."""
    model = attention((MATCHES | PLAIN_KEYS)[case])
    given = feeds(model)
    observed = observe(model)
    expose(model, observed)
    check_float(observed, run(open_session(model, tmp_path), given))


FORMATS = {
    "mxfp4": CompileConfig.of("mxfp4", include=PRODUCTS_ONLY),
    "mxfp8": CompileConfig.of("mxfp8_e4m3", include=PRODUCTS_ONLY),
    "mxfp6": CompileConfig.of("mxfp6_e2m3", include=PRODUCTS_ONLY),
    "nvfp4": CompileConfig.of("nvfp4", include=PRODUCTS_ONLY),
    "amxint4": CompileConfig.of("amxint4", include=PRODUCTS_ONLY),
    "dint4": CompileConfig.of("dint4", include=PRODUCTS_ONLY),
    "int8": CompileConfig.of("int8", include=PRODUCTS_ONLY),
    "blocks of 16": CompileConfig.of("amxfp4_b16", include=PRODUCTS_ONLY),
    "each its own": CompileConfig(
        "amxfp4", "none", PRODUCTS_ONLY, attention="mxfp8_e5m2", keys="int8", values="amxfp4"
    ),
    "keys and values": CompileConfig("amxfp4", "none", PRODUCTS_ONLY, attention="none", keys="amxfp4", values="mxfp4"),
    "by token": CompileConfig.of("amxfp4", include=PRODUCTS_ONLY, kv_blocking="token"),
    "by token, values alone": CompileConfig(
        "amxfp4", "none", PRODUCTS_ONLY, attention="none", keys="none", values="int8", kv_blocking="token"
    ),
}


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_computes_what_it_says(name: str, fuse: bool, tmp_path: Path) -> None:
    config, model = FORMATS[name], attention(MATCHES["grouped"])
    given = feeds(model)
    observed = compiled(model, config, fuse=fuse)
    check(observed, run(open_session(model, tmp_path), given), config)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("config", [AMXFP4, FORMATS["keys and values"], FORMATS["by token"]])
@pytest.mark.parametrize("case", ["plain", "grouped", "scaled on both sides", "scaled by what is computed"])
def test_float16_computes_in_float32(case: str, config: CompileConfig, fuse: bool, tmp_path: Path) -> None:
    form = MATCHES[case]
    half = Form(q=(form.q[0].replace("to = 1>", "to = 10>"), form.q[1]), k=form.k, v=form.v, kv_heads=form.kv_heads)
    model = attention(half, "float16")
    given = feeds(model)
    observed = compiled(model, config, fuse=fuse, dtype=ir.DataType.FLOAT16)
    check(observed, run(open_session(model, tmp_path), given), config)


def test_float16_scores_that_only_scaling_makes_small_do_not_overflow(tmp_path: Path) -> None:
    model = attention(Form(q=("qs = Mul(q, half)", "qs")), "float16")
    given = feeds(model) | {"q": np.full((2, 4, 3, 40), 50, np.float16), "k": np.full((2, 4, 37, 40), 50, np.float16)}
    observed = compiled(model, AMXFP4, dtype=ir.DataType.FLOAT16)
    result = run(open_session(model, tmp_path), given)
    assert float(np.finfo(np.float16).max) < 50 * 50 * 40
    assert np.isfinite(result[observed[0].outputs["scores"]]).all()
    check(observed, result, AMXFP4)


# Every architecture


def decode(session: ort.InferenceSession, observed: list[Observed], config: CompileConfig) -> None:
    """A prompt of a left-padded batch, then steps of one token on the cache; every product of every run is checked."""
    ids = np.random.default_rng(0).integers(3, tiny_models.VOCABULARY, (BATCH, PROMPT + STEPS))
    mask = np.ones_like(ids)
    mask[0, :2] = 0
    mask[1, :5] = 0
    positions = (mask.cumsum(1) - 1).clip(0)
    cache: dict[str, Array] = {}
    for now in [slice(0, PROMPT), *(slice(end, end + 1) for end in range(PROMPT, PROMPT + STEPS))]:
        given = {"input_ids": ids[:, now], "attention_mask": mask[:, : now.stop], "position_ids": positions[:, now]}
        result = run(session, given | cache)
        check(observed, result, config)
        cache = {
            name.replace("present", "past_key_values"): value
            for name, value in result.items()
            if name.startswith("present")
        }
        assert result["attention0.k"].shape[2] == now.stop
        np.testing.assert_array_equal(result["attention0.k"], result["present.0.key"])
        np.testing.assert_array_equal(result["attention1.v"], result["present.1.value"])


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", tiny_models.DECODERS)
def test_a_decoder_computes_what_the_formats_say(name: str, fuse: bool, exported_model_folder, tmp_path: Path) -> None:
    """With quantized linear layers around the products."""
    config = CompileConfig.of("amxfp4")
    model = onnx_file.read_model(exported_model_folder(name) / "model.onnx")
    observed = compiled(model, config, fuse=fuse)
    assert len(observed) == tiny_models.LAYERS
    decode(open_session(model, tmp_path), observed, config)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_stock_onnxruntime_computes_a_decoder(name: str, exported_model_folder, tmp_path: Path) -> None:
    model = onnx_file.read_model(exported_model_folder(name) / "model.onnx")
    observed = compiled(model, AMXFP4)
    decode(open_session(model, tmp_path, library=False), observed, AMXFP4)


def encoder_feeds(name: str) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    ids = rng.integers(3, tiny_models.VOCABULARY, (BATCH, PROMPT + 7))
    mask = np.ones_like(ids)
    mask[0, -2:] = 0
    text = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    image = {"pixel_values": rng.standard_normal((BATCH, 3, 32, 32), np.float32)}
    return image if name in tiny_models.IMAGES_ONLY else text | image if name in tiny_models.TWO_TOWERS else text


@pytest.mark.parametrize("name", [*tiny_models.ENCODERS, *tiny_models.TWO_TOWERS, *tiny_models.ENCODER_DECODERS])
def test_an_encoder_computes_what_the_formats_say(name: str, exported_model_folder, tmp_path: Path) -> None:
    config = CompileConfig.of("amxfp4")
    file, count = next(iter(tiny_models.ATTENTIONS[name].items()))
    model = onnx_file.read_model(exported_model_folder(name) / file)
    observed = compiled(model, config)
    assert len(observed) == count
    check(observed, run(open_session(model, tmp_path), encoder_feeds(name)), config)


@pytest.mark.parametrize("name", tiny_models.ENCODER_DECODERS)
def test_both_branches_of_a_merged_decoder_compute_what_the_formats_say(
    name: str, exported_model_folder, tmp_path: Path
) -> None:
    """Self and cross attention: the prompt in one branch, the steps on its cache in the other."""
    config = CompileConfig.of("amxfp4")
    model = onnx_file.read_model(exported_model_folder(name) / "decoder_model_merged.onnx")
    observed = compiled(model, config)
    session = open_session(model, tmp_path)
    rng = np.random.default_rng(0)
    source = encoder_feeds(name)["attention_mask"]
    given: dict[str, Array] = {"encoder_attention_mask": source}
    given["encoder_hidden_states"] = rng.standard_normal((*source.shape, tiny_models.HIDDEN), np.float32)
    cache: dict[str, Array] = {}
    for step in range(STEPS):
        tokens = rng.integers(3, tiny_models.VOCABULARY, (BATCH, 1 if cache else PROMPT))
        result = run(session, given | cache | {"input_ids": tokens, "use_cache_branch": np.array([bool(cache)])})
        branch = "with_past" if cache else "no_past"
        taken = [each for each in observed if each.graph.name == branch]
        assert len(taken) == 2 * tiny_models.LAYERS
        check(taken, result, config)
        new = {name.replace("present", "past_key_values"): value for name, value in result.items() if "present" in name}
        cache |= {name: value for name, value in new.items() if step == 0 or "decoder" in name}


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma2", "opt", "bert", "modernbert"])
def test_queries_keys_and_values_are_those_of_the_float_model(name: str, exported_model_folder, tmp_path: Path) -> None:
    """In the first layer, whose input no product has changed, to the bit; probabilities follow from the products."""
    path = exported_model_folder(name) / "model.onnx"
    exact, quantized = onnx_file.read_model(path), onnx_file.read_model(path)
    observed = observe(exact)[:1]
    expose(exact, observed)
    compiled(quantized, AMXFP4)
    given = encoder_feeds(name)
    given["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clip(0)
    expected = run(open_session(exact, tmp_path), given)
    actual = run(open_session(quantized, tmp_path), given)
    for role in ("q", "k", "v"):
        output = observed[0].outputs[role]
        np.testing.assert_array_equal(actual[output], expected[output])
