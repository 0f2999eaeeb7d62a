"""What kinds of models there are, what they are fed, and what is taken from them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_models
from text_models import counting_decoder, encoder, save, word_vectors

from mxcompile.errors import ConfigError, ExportError, MxCompileError, UnsupportedModelError
from mxcompile.evaluation import EvalOptions, evaluate
from mxcompile.evaluation.models import EvalModel, check_pair, choose_tokenizer, open_compiled, open_reference

ROUNDING = 2.0**-20
"""Difference of vectors of a few float32 sums and products from float64 ones: fewer than 16 roundings of 2**-24."""

_TABLE = """
<ir_version: 10, opset_import: ["" : 21]>
main_graph (int64[batch, sequence] input_ids) => (float[{shape}] {output}) {{
    words = Gather(table, input_ids)
    {output} = {operator}
}}
"""


def table(
    folder: Path, *, output: str = "logits", rank: int = 3, task: str = "", name: str = "table.onnx"
) -> EvalModel:
    """A model that gives the row of a table for each token, or (rank 2) the sum of the rows."""
    shape, operator = ("batch, sequence, 4", "Identity(words)") if rank == 3 else ("batch, 4", "ReduceSum(words, one)")
    text = _TABLE.format(shape=shape, output=output, operator=operator.replace("Sum(", "Sum<keepdims = 0>("))
    weights = {"table": word_vectors()} | ({"one": np.array([1])} if rank == 2 else {})
    proto = text_models.model(text, {"mxcompile.task": task} if task else {}, **weights)
    return open_compiled(str(save(proto, folder / name)), library=False)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ({"task": "text-generation"}, "decoder"),
        ({"task": "fill-mask"}, "token classifier"),
        ({}, "token classifier"),
        ({"rank": 2}, "classifier"),
        ({"output": "last_hidden_state"}, "encoder"),
        ({"output": "pooler_output", "rank": 2}, "encoder"),
    ],
)
def test_outputs_and_task_tell_the_kind(model: dict[str, Any], kind: str, tmp_path: Path) -> None:
    found = table(tmp_path, **model)
    assert found.kind == kind
    assert found.vocabulary == (None if kind == "encoder" else 4)
    assert not found.has_cache


def test_a_decoder_with_a_cache_is_one_without_a_task(tmp_path: Path) -> None:
    found = open_compiled(
        str(save(counting_decoder(eos_token_id=[3, 4], n_positions=9), tmp_path / "m")), library=False
    )
    assert (found.kind, found.has_cache, found.vocabulary) == ("decoder", True, 8)
    assert (found.end_tokens, found.max_positions) == ({3, 4}, 9)
    assert [*found.inputs] == ["input_ids", "attention_mask"]


def test_a_model_without_logits_or_embeddings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"gives neither logits .* nor embeddings .* outputs are scores"):
        table(tmp_path, output="scores")


def test_rows_are_those_of_the_tokens(tmp_path: Path) -> None:
    rows = table(tmp_path, task="text-generation").run({"input_ids": np.array([[3, 1]])})
    assert np.array_equal(rows, word_vectors()[[3, 1]])
    rows = table(tmp_path, rank=2).run({"input_ids": np.array([[3, 1]])})
    assert np.array_equal(rows, word_vectors()[[3, 1]].sum(axis=0, keepdims=True))


def test_an_embedding_is_the_mean_of_what_is_no_padding(tmp_path: Path) -> None:
    model = open_compiled(str(save(encoder(), tmp_path / "encoder.onnx")), library=False)
    sample = {"input_ids": np.array([[5, 2, 3]]), "attention_mask": np.array([[0, 1, 1]])}
    assert model.run(sample) == pytest.approx(word_vectors()[[2, 3]].mean(axis=0, keepdims=True), abs=ROUNDING)
    del sample["attention_mask"]
    assert model.run(sample) == pytest.approx(word_vectors()[[5, 2, 3]].mean(axis=0, keepdims=True), abs=ROUNDING)


def test_what_follows_from_tokens_is_added(tmp_path: Path) -> None:
    model = open_compiled(str(save(encoder(), tmp_path / "encoder.onnx")), library=False)
    feeds = model.feeds({"input_ids": np.array([[4, 4]], np.int32)})
    assert {name: array.tolist() for name, array in feeds.items()} == {
        "input_ids": [[4, 4]],
        "attention_mask": [[1, 1]],
        "token_type_ids": [[0, 0]],
    }
    assert feeds["input_ids"].dtype == np.int64
    decoder = open_compiled(str(save(counting_decoder(), tmp_path / "counting.onnx")), library=False)
    assert decoder.feeds({"input_ids": np.array([[4]])})["past_key_values.0.key"].shape == (1, 1, 0, 1)
    with pytest.raises(ConfigError, match="no data for its input input_ids; there is pixels"):
        decoder.feeds({"pixels": np.zeros((1, 2))})


def test_values_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    proto = counting_decoder()
    (weights,) = (each for each in proto.graph.initializer if each.name == "table")
    weights.raw_data = np.full((8, 8), np.nan, np.float32).tobytes()
    model = open_compiled(str(save(proto, tmp_path / "nan.onnx")), library=False)
    with pytest.raises(MxCompileError, match=r"nan\.onnx: its logits are not finite"):
        model.run({"input_ids": np.array([[1]])})


def test_models_of_other_kinds_and_vocabularies_are_no_pair(tmp_path: Path) -> None:
    four = table(tmp_path, task="text-generation")
    eight = open_compiled(str(save(counting_decoder(), tmp_path / "counting.onnx")), library=False)
    with pytest.raises(ConfigError, match=r"table\.onnx has 4 logits, .*counting\.onnx has 8: other vocabularies"):
        check_pair(four, eight)
    with pytest.raises(ConfigError, match=r"is of kind classifier .* of kind decoder"):
        check_pair(table(tmp_path, rank=2, name="classes.onnx"), four)
    check_pair(four, four)


def test_a_tokenizer_of_other_words_is_no_pair(tmp_path: Path) -> None:
    words, letters = (
        open_compiled(str(save(counting_decoder(tokenizer=tokenizer), tmp_path / f"{name}.onnx")), library=False)
        for name, tokenizer in (("words", text_models.word_tokenizer()), ("bytes", text_models.byte_tokenizer()))
    )
    with pytest.raises(ConfigError, match="tokenizers of other vocabularies"):
        check_pair(words, letters)


def test_a_model_without_any_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    model = table(tmp_path)
    with pytest.raises(ExportError, match=r"no tokenizer in it or beside it.*--tokenizer FILE.*--data FILE\.npz"):
        choose_tokenizer(model, model, None)


def test_an_onnx_file_and_its_folder_are_references(tmp_path: Path) -> None:
    file = save(counting_decoder(), tmp_path / "model.onnx")
    for source in (file, tmp_path):
        with open_reference(str(source), library=False) as reference:
            assert (reference.kind, reference.name) == ("decoder", str(file))


def test_embeddings_are_compared_by_their_cosine(tmp_path: Path) -> None:
    changed = encoder()
    (weights,) = (each for each in changed.graph.initializer if each.name == "table")
    vectors = word_vectors() + np.float32(0.25)
    weights.raw_data = vectors.tobytes()
    files = [save(proto, tmp_path / f"{name}.onnx") for name, proto in (("plain", encoder()), ("changed", changed))]
    (tmp_path / "text").write_text("one two three four", "utf-8")
    wanted = EvalOptions(data=(str(tmp_path / "text"),), seq_len=2, library=False)
    report = evaluate(str(files[1]), str(files[0]), wanted)
    pairs = [each.astype(np.float64)[[1, 2, 3, 4]].reshape(2, 2, 4).mean(axis=1) for each in (word_vectors(), vectors)]
    lengths = [np.linalg.norm(each, axis=1) for each in pairs]
    cosines = (pairs[0] * pairs[1]).sum(axis=1) / (lengths[0] * lengths[1])
    figures = report.figures
    assert figures is not None
    assert (report.kind, figures.kl, figures.perplexity, report.flips) == ("encoder", None, None, None)
    assert figures.cosine == pytest.approx(cosines.mean(), abs=ROUNDING)
    assert figures.least_cosine == pytest.approx(cosines.min(), abs=ROUNDING)
    noise = 2 * 4 * 0.25**2
    assert figures.sqnr_db == pytest.approx(10 * np.log10((pairs[0] ** 2).sum() / noise), rel=1e-5)
