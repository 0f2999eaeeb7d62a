"""Names, shapes and sizes of the key-value cache."""

import json
import re
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxcompile.errors import UnsupportedModelError
from mxcompile.formats import FORMATS, get_format
from mxcompile.kv_cache import TAIL, CacheFormat, describe, empty_cache, is_float_past, part_of, present_of

AMXFP4 = get_format("amxfp4")
TOKEN, BLOCKS = CacheFormat(AMXFP4, "head_dim"), CacheFormat(AMXFP4, "sequence")
ALONG_SEQUENCE = [name for name, fmt in FORMATS.items() if fmt.grows] + ["amxfp4_b16", "dint3_b32", "int8_b128"]


def test_inputs_and_outputs_have_matching_names() -> None:
    assert present_of("past_key_values.3.key") == "present.3.key"
    assert present_of(part_of("past_key_values.3.key", "codes")) == part_of("present.3.key", "codes")


@pytest.mark.parametrize(
    ("name", "is_float"),
    [
        ("past_key_values.0.key", True),
        ("past_key_values.0.decoder.value", True),
        ("past_key_values.0.key.codes", False),
        ("past_key_values.0.key.scales", False),
        ("past_key_values.0.value.tail", False),
        ("input_ids", False),
        ("present.0.key", False),
    ],
)
def test_parts_of_a_packed_tensor_are_told_by_their_names(name: str, is_float: bool) -> None:
    assert is_float_past(name) is is_float


def test_shapes_of_names_and_of_numbers_agree() -> None:
    assert BLOCKS.shapes(["b", 2, "t"], 40) == {
        "codes": ["b", 2, 40, "t // 32 * 16"],
        "scales": ["b", 2, 40, "t // 32", 2],
        "tail": ["b", 2, "t % 32", 40],
    }
    assert BLOCKS.shapes(["b", 2, "t + s"], 40)["tail"] == ["b", 2, "(t + s) % 32", 40]
    assert BLOCKS.shapes([1, 2, 70], 40) == {"codes": [1, 2, 40, 32], "scales": [1, 2, 40, 2, 2], "tail": [1, 2, 6, 40]}
    assert BLOCKS.shapes([1, 2, None], 40)["codes"] == [1, 2, 40, None]
    assert TOKEN.shapes(["b", 2, "t"], 40) == {"codes": ["b", 2, "t", 20], "scales": ["b", 2, "t", 2, 2]}


@given(st.sampled_from(ALONG_SEQUENCE), st.integers(0, 300), st.integers(1, 3))
def test_the_sizes_are_those_of_the_quantized_tensors(name: str, tokens: int, head_dim: int) -> None:
    fmt = get_format(name)
    complete = tokens // fmt.block_size * fmt.block_size
    x = np.zeros((2, 3, tokens, head_dim), np.float32)
    values = fmt.quantize(np.swapaxes(x[:, :, :complete], 2, 3))
    shapes = CacheFormat(fmt, "sequence").shapes(x.shape[:3], head_dim)
    assert [list(values.codes.shape), list(values.scales.shape)] == [shapes["codes"], shapes["scales"]]
    tail = x[:, :, complete:]
    assert list(tail.shape) == shapes[TAIL]
    assert CacheFormat(fmt, "sequence").nbytes(2, 3, tokens, head_dim, 4) == values.nbytes + tail.nbytes
    assert CacheFormat(fmt, "head_dim").nbytes(2, 3, tokens, head_dim, 4) == fmt.quantize(x).nbytes


def test_an_amxfp4_cache_takes_four_and_a_half_bits_and_a_tail() -> None:
    """Of 32 tokens none are in the tail, of 63 tokens 31: its size is bounded, whatever the length."""
    tokens, heads, head_dim = 4096, 8, 64
    elements = tokens * heads * head_dim
    both = [packing.nbytes(1, heads, tokens, head_dim, 2) for packing in (TOKEN, BLOCKS)]
    assert both == [elements * 4.5 / 8] * 2
    assert BLOCKS.nbytes(1, heads, tokens + 31, head_dim, 2) == both[1] + 31 * heads * head_dim * 2


def test_empty_caches_have_a_batch_and_no_tokens() -> None:
    inputs = [
        types.SimpleNamespace(name="input_ids", type="tensor(int64)", shape=["batch_size", "sequence_length"]),
        types.SimpleNamespace(name="past_key_values.0.key", type="tensor(float16)", shape=["batch_size", 2, "past", 4]),
        types.SimpleNamespace(name="past_key_values.0.value.codes", type="tensor(uint8)", shape=[None, 2, 4, None]),
    ]
    one, three = empty_cache(inputs), empty_cache(inputs, batch=3)
    assert {name: array.shape for name, array in one.items()} == {
        "past_key_values.0.key": (1, 2, 0, 4),
        "past_key_values.0.value.codes": (1, 2, 4, 0),
    }
    assert [array.shape[0] for array in three.values()] == [3, 3]
    assert [array.dtype for array in one.values()] == [np.float16, np.uint8]


def test_a_cache_of_an_unknown_type_is_refused() -> None:
    value = types.SimpleNamespace(name="past_key_values.0.key", type="tensor(int64)", shape=["b", 2, "past", 4])
    with pytest.raises(
        UnsupportedModelError, match=r"past_key_values.0.key is a tensor\(int64\); known are tensor\(fl"
    ):
        empty_cache([value])


def test_alike_layers_are_described_once() -> None:
    tensors = {
        f"past_key_values.{layer}.{kind}": packing
        for layer in range(2)
        for kind, packing in (("key", TOKEN), ("value", BLOCKS))
    }
    text = describe(tensors)
    assert text is not None
    assert json.loads(text) == {
        "version": 1,
        "layers": 2,
        "key": {"format": "amxfp4", "axis": "head_dim"},
        "value": {"format": "amxfp4", "axis": "sequence", "block": 32},
    }


def test_layers_that_differ_are_exceptions() -> None:
    other = CacheFormat(get_format("mxfp4"), "head_dim")
    text = describe({"past_key_values.0.key": None, "past_key_values.1.key": TOKEN, "past_key_values.2.key": other})
    assert text is not None
    assert json.loads(text) == {
        "version": 1,
        "layers": 3,
        "key": {"format": "amxfp4", "axis": "head_dim"},
        "value": None,
        "exceptions": {
            "past_key_values.0.key": None,
            "past_key_values.2.key": {"format": "mxfp4", "axis": "head_dim"},
        },
    }


def test_a_float_cache_is_not_described() -> None:
    assert describe({"past_key_values.0.key": None}) is None
    assert describe({}) is None


# docs/kv-cache.md -----------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "kv-cache.md").read_text("utf-8")
ROW = re.compile(r"^\| (\w+) \| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


def test_the_page_states_the_sizes() -> None:
    layers, heads, head_dim, half, lengths = 32, 8, 128, 2, (1000, 4096, 32768)
    rows = ROW.findall(PAGE)
    assert [row[0] for row in rows] == ["float16", "mxfp8_e4m3", "int8", "amxfp4", "mxfp4"]
    floats = [2 * layers * heads * tokens * head_dim * half for tokens in lengths]
    for keys, values, *figures in rows:
        sizes = floats
        if keys != "float16":
            packings = CacheFormat(get_format(keys), "head_dim"), CacheFormat(get_format(values), "sequence")
            sizes = [layers * sum(p.nbytes(1, heads, n, head_dim, half) for p in packings) for n in lengths]
        assert figures == [*(f"{size / 2**20:.1f}" for size in sizes), f"{sizes[-1] / floats[-1]:.3f}"]


def test_the_page_shows_the_metadata() -> None:
    (example,) = re.findall(r"^```json\n(.*)\n```$", PAGE, re.MULTILINE)
    tensors = {"0.key": TOKEN, "0.value": BLOCKS, "1.key": TOKEN, "1.value": BLOCKS}
    assert example == describe({f"past_key_values.{name}": packing for name, packing in tensors.items()})
