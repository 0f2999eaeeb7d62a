"""The settings of a compilation: what follows from what, and what does not go together."""

import pytest

from mxcompile.config import CompileConfig, cache_obstacle
from mxcompile.errors import ConfigError
from mxcompile.formats import FORMATS, NONE


def attention(**settings: object) -> tuple[str, str, str]:
    """Formats of queries (and probabilities), keys and values."""
    config = CompileConfig.of(**settings)  # type: ignore[arg-type]
    return config.attention, config.keys, config.values


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("amxfp4", "amxfp4", "amxfp4")),
        ({"format": "mxfp8_e4m3"}, ("mxfp8_e4m3",) * 3),
        ({"format": "dint4"}, ("int8", "int8", "dint4")),
        ({"format": "int8"}, ("int8", "int8", "int8")),
        ({"weights": "mxfp4", "activations": "mxfp8_e4m3"}, ("mxfp8_e4m3",) * 3),
        ({"weights": "dint4", "activations": "mxfp8_e4m3"}, ("mxfp8_e4m3",) * 3),
        ({"activations": "none"}, (NONE, NONE, NONE)),
        ({"format": "dint4", "activations": "none"}, (NONE, NONE, NONE)),
        ({"attention": False}, (NONE, NONE, NONE)),
        ({"attention_format": "mxfp4"}, ("mxfp4", "mxfp4", "mxfp4")),
        ({"format": "dint4", "attention_format": "int8"}, ("int8", "int8", "int8")),
        ({"kv_format": "mxfp8_e4m3"}, ("amxfp4", "mxfp8_e4m3", "mxfp8_e4m3")),
        ({"activations": "none", "kv_format": "mxfp4"}, (NONE, "mxfp4", "mxfp4")),
        ({"attention_format": "mxfp8_e4m3", "kv_format": "mxfp4"}, ("mxfp8_e4m3", "mxfp4", "mxfp4")),
    ],
)
def test_attention_follows_the_activations_and_values_their_weights(settings, expected):
    assert attention(**settings) == expected


@pytest.mark.parametrize("option", ["attention_format", "kv_format"])
def test_a_format_for_attention_without_attention_is_an_error(option):
    with pytest.raises(ConfigError, match="--no-attention"):
        CompileConfig.of(attention=False, **{option: "mxfp4"})


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("nvfp4", "amxint4")])
@pytest.mark.parametrize("blocking", ["sequence", "token"])
def test_caches_of_most_formats_are_packed_by_default(name, blocking):
    assert CompileConfig.of(name, kv_blocking=blocking).kv_cache == "packed"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"format": "nvfp4"}, "keys in nvfp4 share a scale over all tokens"),
        ({"format": "nvfp4", "kv_blocking": "token"}, "keys in nvfp4 share a scale"),
        ({"format": "amxint4"}, "blocks of values in amxint4 depend on how many tokens follow"),
        ({"attention": False}, "no attention product is quantized"),
        ({"activations": "none"}, "no attention product is quantized"),
    ],
)
def test_a_cache_that_cannot_be_packed_is_float_or_an_error(settings, reason):
    assert CompileConfig.of(**settings).kv_cache == "float"
    with pytest.raises(ConfigError, match=reason):
        CompileConfig.of(**settings, kv_cache="packed")


def test_values_along_the_features_of_a_token_pack_in_any_format_without_a_scale_a_tensor():
    assert cache_obstacle("amxint4", "amxint4", "token") == ""
    assert cache_obstacle("amxint4", "amxint4", "sequence")


@pytest.mark.parametrize(
    ("option", "text"),
    [("kv_blocking", "'head'; allowed are sequence and token"), ("kv_cache", "'head'; allowed are packed and float")],
)
def test_an_unknown_choice_is_an_error(option, text):
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} is {text}"):
        CompileConfig("amxfp4", "amxfp4", **{option: "head"})
