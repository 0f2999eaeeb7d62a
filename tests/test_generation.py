"""Generation and embeddings, on models whose answers are known and on exported ones."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import text_models
from text_models import byte_tokenizer, counting_decoder, encoder, save, word_vectors
from tokenizers import Tokenizer

from mxcompile import runtime
from mxcompile.decoding import Sampling
from mxcompile.errors import ConfigError, ExportError, MxCompileError, UnsupportedModelError
from mxcompile.generation import TextModel, embed, generate, load_text_model

VECTOR_ERROR = 2.0**-21
"""Difference of two unit vectors, each computed in float32 from the mean of 3 vectors: at most 2 sums, a division,
and a norm of 4 squares (their sum, a root) and a division, fewer than 8 roundings of 2**-24."""


def load(proto: onnx.ModelProto, folder: Path) -> TextModel:
    """The model as ``run`` opens it."""
    return load_text_model(save(proto, folder / "model.onnx"), threads=1, library=False)


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    """`counting_decoder` without an end token."""
    return load(counting_decoder(), tmp_path_factory.mktemp("counting"))


# Generating ----------------------------------------------------------------------------------------------------------


def test_counting_decoder_counts(counting: TextModel) -> None:
    result = generate(counting, "one two", max_new_tokens=4)
    assert result.text == " three four five six"
    assert result.tokens == (3, 4, 5, 6)
    assert (result.prompt, result.prompt_tokens, result.finish) == ("one two", 2, "length")
    assert result.prefill_seconds > 0
    assert result.tokens_per_second is not None
    assert result.tokens_per_second > 0


@pytest.mark.parametrize("cache", ["float", "float16"])
@pytest.mark.parametrize("ids", ["int64", "int32"])
def test_types_of_cache_and_tokens_are_the_models(cache: str, ids: str, tmp_path: Path) -> None:
    model = load(counting_decoder(cache, ids), tmp_path)
    assert generate(model, "six", max_new_tokens=3).tokens == (7, 0, 1)


@pytest.mark.parametrize(("cache", "size"), [("float", 4), ("float16", 2)])
def test_the_size_of_the_cache_is_told(cache: str, size: int, tmp_path: Path) -> None:
    result = generate(load(counting_decoder(cache), tmp_path), "one two", max_new_tokens=4)
    assert result.cache_bytes == 5 * size  # a number for each of two and three tokens; the last one is not fed


def test_pieces_make_up_the_text(counting: TextModel) -> None:
    pieces: list[str] = []
    result = generate(counting, "one", max_new_tokens=5, on_text=pieces.append)
    assert len(pieces) == 5
    assert "".join(pieces) == result.text


@pytest.mark.parametrize("ends", [5, [5, 7]])
def test_an_end_token_stops_and_is_no_text(ends: int | list[int], tmp_path: Path) -> None:
    model = load(counting_decoder(eos_token_id=ends), tmp_path)
    result = generate(model, "two")
    assert (result.text, result.tokens, result.finish) == (" three four", (3, 4), "end")


def test_an_end_token_at_once_gives_an_empty_text(tmp_path: Path) -> None:
    result = generate(load(counting_decoder(eos_token_id=[3]), tmp_path), "two")
    assert (result.text, result.tokens, result.finish, result.tokens_per_second) == ("", (), "end", None)


@pytest.mark.parametrize("key", ["max_position_embeddings", "n_positions"])
def test_generation_stops_at_the_last_position(key: str, tmp_path: Path) -> None:
    model = load(counting_decoder(**{key: 4}), tmp_path)
    result = generate(model, "one two", max_new_tokens=50)
    # Four are fed: two of the prompt and two of three new ones.
    assert (result.tokens, result.finish) == ((3, 4, 5), "length")


def test_a_prompt_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    model = load(counting_decoder(max_position_embeddings=2), tmp_path)
    assert generate(model, "one two").tokens == (3,)
    with pytest.raises(ConfigError, match=r"the prompt has 3 tokens, .* takes at most 2; shorten it"):
        generate(model, "one two three")


@pytest.mark.parametrize("prompt", ["", " "])
def test_a_prompt_without_tokens_is_refused(prompt: str, counting: TextModel) -> None:
    with pytest.raises(ConfigError, match=r"the prompt .* has no tokens; give some text"):
        generate(counting, prompt)


def test_a_prompt_that_is_no_text_is_refused(counting: TextModel) -> None:
    with pytest.raises(ConfigError, match="no valid UTF-8"):
        generate(counting, b"\xff".decode(errors="surrogateescape"))


def test_no_new_tokens_are_refused(counting: TextModel) -> None:
    with pytest.raises(ConfigError, match="max-new-tokens is 0: at least 1"):
        generate(counting, "one", max_new_tokens=0)


def test_the_same_seed_gives_the_same_text(counting: TextModel) -> None:
    def tokens(seed: int) -> tuple[int, ...]:
        return generate(counting, "one", max_new_tokens=30, sampling=Sampling(5.0, seed=seed)).tokens

    assert tokens(1) == tokens(1)
    assert len({tokens(seed) for seed in range(5)}) == 5


def test_nan_logits_are_an_error(tmp_path: Path) -> None:
    proto = counting_decoder()
    (table,) = proto.graph.initializer
    table.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 8), np.nan, np.float32), "table"))
    with pytest.raises(MxCompileError, match="logits are NaN after 1 tokens"):
        generate(load(proto, tmp_path), "one")


def test_a_failing_operator_is_one_readable_error(tmp_path: Path) -> None:
    model = load(counting_decoder(tokenizer=byte_tokenizer()), tmp_path)
    with pytest.raises(MxCompileError, match=r"the model failed on input_ids \[1, 1\].*Gather.*out of data bounds"):
        generate(model, "x")


def without_cache(model: TextModel, tokens: Sequence[int]) -> int:
    """The likeliest token after all of these, computed from nothing."""
    feeds = {}
    for value in model.session.get_inputs():
        if value.name.startswith("past"):
            shape = [d if isinstance(d, int) else int(axis == 0) for axis, d in enumerate(value.shape)]
            feeds[value.name] = np.zeros(shape, np.float32)
        else:
            numbers = {"input_ids": tokens, "position_ids": range(len(tokens))}.get(value.name, [1] * len(tokens))
            feeds[value.name] = np.array([numbers])
    return int(np.argmax(model.session.run(["logits"], feeds)[0][0, -1]))


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma2"])
def test_the_cache_gives_what_recomputing_everything_gives(
    name: str, exported_model_folder: Callable[[str], Path]
) -> None:
    model = load_text_model(exported_model_folder(name), threads=1, library=False)
    model = dataclasses.replace(model, end_tokens=frozenset())
    prompt = "w5 w90 w17 w3"
    result = generate(model, prompt, max_new_tokens=24)
    tokens = list(model.encode(prompt).ids)
    for token in result.tokens:
        assert token == without_cache(model, tokens)
        tokens.append(token)
    assert len(result.tokens) == 24


# Embedding -----------------------------------------------------------------------------------------------------------


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector.astype(np.float64))


def test_vectors_of_words_are_averaged(tmp_path: Path) -> None:
    found = embed(load(encoder(), tmp_path), ["one two five", "four"])
    words = word_vectors()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], unit(words[[1, 2, 5]].mean(axis=0)), rtol=0, atol=VECTOR_ERROR)
    np.testing.assert_allclose(found[1], unit(words[4]), rtol=0, atol=VECTOR_ERROR)


@pytest.mark.parametrize("output", ["sentence_embedding", "pooler_output", "pooled"])
def test_a_vector_of_the_whole_text_is_taken_as_it_is(output: str, tmp_path: Path) -> None:
    found = embed(load(encoder(output), tmp_path), ["one two"])
    np.testing.assert_allclose(found[0], unit(word_vectors()[1:3].max(axis=0)), rtol=0, atol=VECTOR_ERROR)


def test_padding_does_not_count(tmp_path: Path) -> None:
    proto = encoder()
    tokenizer = text_models.word_tokenizer()
    tokenizer.enable_padding(length=6, pad_token="seven", pad_id=7)
    tokenizer.enable_truncation(2)
    onnx.helper.set_model_props(proto, {"mxcompile.tokenizer": tokenizer.to_str()})
    found = embed(load(proto, tmp_path), ["one two five"])
    np.testing.assert_allclose(found[0], unit(word_vectors()[[1, 2, 5]].mean(axis=0)), rtol=0, atol=VECTOR_ERROR)


def test_nan_embeddings_are_an_error(tmp_path: Path) -> None:
    proto = encoder()
    (table,) = proto.graph.initializer
    table.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 4), np.nan, np.float32), "table"))
    with pytest.raises(MxCompileError, match="the embedding is NaN"):
        embed(load(proto, tmp_path), ["one"])


def test_an_all_zero_embedding_stays_zero(tmp_path: Path) -> None:
    proto = encoder()
    (table,) = proto.graph.initializer
    table.CopyFrom(onnx.numpy_helper.from_array(np.zeros((8, 4), np.float32), "table"))
    assert not embed(load(proto, tmp_path), ["one"]).any()


# What cannot be run --------------------------------------------------------------------------------------------------


def test_encoders_do_not_generate_and_decoders_do_not_embed(counting: TextModel, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="is an encoder, which generates no text"):
        generate(load(encoder(), tmp_path), "one")
    with pytest.raises(UnsupportedModelError, match="is a decoder, which gives no embeddings"):
        embed(counting, ["one"])


def test_a_model_that_is_neither_is_refused_with_its_inputs(
    exported_model_folder: Callable[[str], Path],
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"neither a decoder .* its inputs are pixel_values, its outputs"):
        load_text_model(exported_model_folder("vit"), library=False)


def test_the_decoder_of_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    proto = counting_decoder()
    extra = onnx.helper.make_tensor_value_info("encoder_hidden_states", onnx.TensorProto.FLOAT, ["b", "s", 4])
    proto.graph.input.append(extra)
    with pytest.raises(UnsupportedModelError, match="is the decoder of an encoder-decoder model"):
        generate(load(proto, tmp_path), "one")


@pytest.mark.parametrize(("build", "act"), [(counting_decoder, generate), (encoder, lambda m, p: embed(m, [p]))])
def test_an_unknown_input_is_refused(
    build: Callable[[], onnx.ModelProto], act: Callable[[TextModel, str], object], tmp_path: Path
) -> None:
    proto = build()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("strength", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(UnsupportedModelError, match="with the input strength cannot be run; known are"):
        act(load(proto, tmp_path), "one")


def test_an_input_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    proto = counting_decoder()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [1]))
    with pytest.raises(UnsupportedModelError, match=r"input flag is a tensor\(bool\); known are tensor\(int64\)"):
        generate(load(proto, tmp_path), "one")


def test_a_cache_that_is_not_given_back_is_refused(tmp_path: Path) -> None:
    proto = counting_decoder()
    proto.graph.output[1].name = proto.graph.node[-1].output[0] = "new_key"
    with pytest.raises(UnsupportedModelError, match=r"takes past_key_values.0.key, but does not give present.0.key"):
        generate(load(proto, tmp_path), "one")


# Tokenizers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """`counting_decoder` without metadata."""
    proto = counting_decoder()
    proto.ClearField("metadata_props")
    return save(proto, tmp_path / "bare.onnx")


def test_a_tokenizer_beside_the_model_is_found(bare: Path) -> None:
    text_models.word_tokenizer().save(str(bare.with_name("tokenizer.json")))
    assert generate(load_text_model(bare, library=False), "one", max_new_tokens=1).tokens == (2,)


def test_a_named_tokenizer_wins(tmp_path: Path) -> None:
    text = text_models.word_tokenizer().to_str()
    backwards = Tokenizer.from_str(text.replace('"one":1', '"one":5').replace('"five":5', '"five":1'))
    backwards.save(str(tmp_path / "other.json"))
    path = save(counting_decoder(), tmp_path / "model.onnx")
    model = load_text_model(path, tokenizer=tmp_path / "other.json", library=False)
    assert generate(model, "one", max_new_tokens=1).tokens == (6,)


def test_no_tokenizer_anywhere_is_an_error(bare: Path) -> None:
    with pytest.raises(ExportError, match=r"bare.onnx: has no tokenizer inside, .* give --tokenizer FILE"):
        load_text_model(bare, library=False)


def test_a_named_tokenizer_that_is_missing_is_an_error(bare: Path) -> None:
    with pytest.raises(ExportError, match=r"nowhere.json: no such file"):
        load_text_model(bare, tokenizer="nowhere.json", library=False)


def test_a_tokenizer_that_cannot_be_read_is_an_error(bare: Path) -> None:
    bare.with_name("tokenizer.json").write_text("{}")
    with pytest.raises(ExportError, match=r"tokenizer.json: no tokenizer that can be read"):
        load_text_model(bare, library=False)


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_malformed_metadata_is_an_error(text: str, bare: Path) -> None:
    proto = onnx.load(bare)
    onnx.helper.set_model_props(proto, {"mxcompile.generation": text})
    with pytest.raises(ExportError, match=r"metadata mxcompile.generation is no JSON object"):
        load_text_model(save(proto, bare), library=False)


def test_a_folder_stands_for_the_model_in_it(tmp_path: Path) -> None:
    save(counting_decoder(), tmp_path / "model.onnx")
    assert load_text_model(tmp_path, library=False).is_decoder


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no model.onnx; give an .onnx file$"):
        load_text_model(tmp_path, library=False)
    save(counting_decoder(), tmp_path / "decoder_model_merged.onnx")
    with pytest.raises(ExportError, match=r"give an .onnx file: decoder_model_merged.onnx$"):
        load_text_model(tmp_path, library=False)


def test_tensors_survive_the_way_into_onnxruntime() -> None:
    array = np.arange(12, dtype=np.int64).reshape(3, 4).T
    np.testing.assert_array_equal(runtime.to_value(array).numpy(), array)
