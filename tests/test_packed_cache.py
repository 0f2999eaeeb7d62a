"""Whole models with a packed cache: the numbers of the float cache, less memory, and what padding may change."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from mxcompile import runtime
from mxcompile.compiler import compile_model
from mxcompile.formats import get_format
from mxcompile.generation import generate, load_text_model
from mxcompile.kv_cache import METADATA, PAST, SKIPPED, CacheFormat, empty_cache, present_of
from mxcompile.passes import PackCache

DEMO = Path(__file__).parents[1] / "examples" / "demo-model"
TINY = ("llama", "gpt2", "gemma", "gemma2", "phi3", "qwen3_moe")
"""With grouped heads and without, with rotary angles and without, with a window and capped scores, fused, routed."""

AXES = {"sequence": "sequence", "token": "head_dim"}
Compiled = Callable[..., Path]


@pytest.fixture(scope="module")
def compiled(exported_model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The file of a tiny model or of the bundled one (``demo``), compiled once for each of the settings."""
    folder, made = tmp_path_factory.mktemp("packed"), dict[tuple[str, ...], Path]()

    def compiled(name: str, kv_cache: str, kv_blocking: str = "sequence") -> Path:
        key = (name, kv_cache, kv_blocking)
        if key not in made:
            source = DEMO if name == "demo" else exported_model_folder(name) / "model.onnx"
            made[key] = folder / f"{'-'.join(key)}.onnx"
            report = compile_model(source, output=made[key], kv_cache=kv_cache, kv_blocking=kv_blocking)  # type: ignore[arg-type]
            assert (report.kv_cache is not None, report.kv_cache_skipped) == (kv_cache == "packed", {})
        return made[key]

    return compiled


class Decoder:
    """A session whose cache is fed back, for a batch of sequences."""

    def __init__(self, path: Path, batch: int = 1, library: bool = True) -> None:
        self.session: onnxruntime.InferenceSession = runtime.create_session(path, threads=1, library=library)
        self.cache = empty_cache(self.session.get_inputs(), batch)
        self.ends = np.zeros((batch, 0), np.int64)

    def step(self, ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Logits of the next tokens; positions are counted where the mask is 1."""
        self.ends = np.concatenate([self.ends, np.ones_like(ids) if mask is None else mask], axis=1)
        positions = np.maximum(self.ends.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        feeds = {"input_ids": ids, "attention_mask": self.ends, "position_ids": positions}
        inputs = {each.name for each in self.session.get_inputs()}
        names = ["logits", *map(present_of, self.cache)]
        values = self.session.run(names, {name: feeds[name] for name in feeds if name in inputs} | self.cache)
        self.cache = dict(zip(self.cache, values[1:], strict=True))
        return np.asarray(values[0])


def random_ids(batch: int, tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 128, (batch, tokens))


def run(decoder: Decoder, ids: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Logits of all tokens, taken in pieces of those lengths."""
    assert sum(lengths) == ids.shape[1]
    return np.concatenate([decoder.step(piece) for piece in np.split(ids, np.cumsum(lengths)[:-1], axis=1)], axis=1)


# The same numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", AXES)
@pytest.mark.parametrize("name", [*TINY, "demo"])
def test_logits_are_those_of_the_float_cache_bit_for_bit(name: str, blocking: str, compiled: Compiled) -> None:
    lengths = [30, *[1] * 4, 28, 1]
    ids = random_ids(2, sum(lengths))
    expected, actual = (run(Decoder(compiled(name, cache, blocking), 2), ids, lengths) for cache in ("float", "packed"))
    np.testing.assert_array_equal(actual, expected)


def test_so_they_are_without_the_library(compiled: Compiled) -> None:
    lengths = [31, 1, 1]
    ids = random_ids(2, sum(lengths))
    paths = [compiled("llama", cache) for cache in ("float", "packed")]
    expected, actual = (run(Decoder(path, 2, library=False), ids, lengths) for path in paths)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("blocking", AXES)
@pytest.mark.parametrize("name", TINY)
def test_decoding_gives_the_cache_of_a_prefill(name: str, blocking: str, compiled: Compiled) -> None:
    """In every layer if tokens are quantized one by one; else in the first, for a prefill looks ahead in each block."""
    ids = random_ids(2, 50)
    steps, whole = (Decoder(compiled(name, "packed", blocking), 2) for _ in range(2))
    logits = [run(decoder, ids, lengths) for decoder, lengths in ((steps, [1] * 50), (whole, [50]))]
    same = {name: np.array_equal(array, whole.cache[name]) for name, array in steps.cache.items()}
    if blocking == "token":
        assert all(same.values())
        np.testing.assert_array_equal(*logits)
    else:
        assert all(equal for name, equal in same.items() if name.startswith(f"{PAST}0."))
        assert not all(same.values())


# Generation and memory -----------------------------------------------------------------------------------------------


def test_generation_writes_the_same_text(compiled: Compiled) -> None:
    results = []
    for cache in ("float", "packed"):
        model = load_text_model(compiled("demo", cache), threads=1)
        results.append(generate(model, "import os\n\ndef ", max_new_tokens=60))
    expected, actual = results
    assert actual.tokens == expected.tokens
    assert actual.text == expected.text


def test_an_amxfp4_cache_of_two_thousand_tokens_takes_less_than_a_third_of_float16(compiled: Compiled) -> None:
    layers, heads, head_dim, half = 4, 2, 64, 2  # of the demo model; its tail is float32
    model = load_text_model(compiled("demo", "packed"), threads=1)
    model = dataclasses.replace(model, max_positions=None, end_tokens=frozenset())
    result = generate(model, "x = 1\n" * 400, max_new_tokens=1000)
    tokens = result.prompt_tokens + len(result.tokens) - 1  # The last one is given, but not fed.
    assert tokens >= 2048
    packings = [CacheFormat(get_format("amxfp4"), axis) for axis in ("head_dim", "sequence")]
    assert result.cache_bytes == layers * sum(each.nbytes(1, heads, tokens, head_dim, 4) for each in packings)
    assert result.cache_bytes <= 0.3 * 2 * layers * heads * tokens * head_dim * half


# Padding -------------------------------------------------------------------------------------------------------------

PADDING = (0, 32, 10)
"""Positions of padding before three sequences: none, a whole block, a part of one."""


def padded(path: Path, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Logits and cache of three sequences of 70 positions; the seed decides about the tokens below the mask."""
    ids, other = random_ids(3, 70), random_ids(3, 70, seed)
    mask = np.ones_like(ids)
    for row, padding in enumerate(PADDING):
        mask[row, :padding] = 0
        ids[row, :padding] = other[row, :padding]
    decoder = Decoder(path, batch=3)
    logits = [decoder.step(ids[:, a:b], mask[:, a:b]) for a, b in ((0, 60), (60, 61), (61, 70))]
    return np.concatenate(logits, axis=1), decoder.cache


@pytest.mark.parametrize("blocking", AXES)
def test_what_padding_holds_matters_only_in_blocks_that_it_shares_with_tokens(
    blocking: str, compiled: Compiled
) -> None:
    path = compiled("llama", "packed", blocking)
    (one, cache), (other, other_cache) = padded(path, 1), padded(path, 2)
    changed = [bool((one[row, p:] != other[row, p:]).any()) for row, p in enumerate(PADDING)]
    assert changed == [False, False, blocking == "sequence"]
    for row, padding in enumerate(PADDING):
        for part in ("codes", "scales"):
            keys, other_keys = (each[f"{PAST}0.key.{part}"][row] for each in (cache, other_cache))
            np.testing.assert_array_equal(keys[:, padding:], other_keys[:, padding:])


# Which models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", AXES)
def test_the_metadata_describe_the_cache(blocking: str, compiled: Compiled) -> None:
    metadata = Decoder(compiled("llama", "packed", blocking)).session.get_modelmeta().custom_metadata_map
    assert SKIPPED not in metadata
    assert json.loads(metadata[METADATA]) == {
        "version": 1,
        "layers": 2,
        "key": {"format": "amxfp4", "axis": "head_dim"},
        "value": {"format": "amxfp4", "axis": AXES[blocking], "block": 32},
    }


def test_a_float_cache_leaves_no_trace(compiled: Compiled) -> None:
    session = Decoder(compiled("llama", "float")).session
    assert not session.get_modelmeta().custom_metadata_map.keys() & {METADATA, SKIPPED}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_merged_decoder_keeps_its_float_cache(name: str, exported_model_folder: Callable[[str], Path]) -> None:
    model = ir.load(exported_model_folder(name) / "decoder_model_merged.onnx")
    before = [value.name for value in model.graph.inputs]
    assert PackCache()(model).modified
    assert [value.name for value in model.graph.inputs] == before
    assert METADATA not in model.metadata_props
    reasons = json.loads(model.metadata_props[SKIPPED])
    assert set(reasons) == {name for name in before if name is not None and name.startswith(PAST)}
    assert all("from the branches of If" in reason for reason in reasons.values())
