"""What models are compared on: windows of text, arrays, and what is wrong with them."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from text_models import WORDS, counting_decoder, encoder, save, word_tokenizer
from tokenizers import processors

from mxcompile.errors import ConfigError
from mxcompile.evaluation import data
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.models import EvalModel, open_compiled


def counting(folder: Path, **generation: int) -> EvalModel:
    """`counting_decoder` as eval opens it."""
    return open_compiled(str(save(counting_decoder(**generation), folder / "counting.onnx")), library=False)


def test_windows_do_not_overlap_and_the_incomplete_last_one_is_dropped() -> None:
    windows = data.token_windows("zero one two three four five six", word_tokenizer(), 3)
    assert windows.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert windows.dtype == np.int64


def test_windows_are_limited() -> None:
    assert data.token_windows("one two three four", word_tokenizer(), 2, limit=1).tolist() == [[1, 2]]


def test_decoders_get_no_special_tokens_and_others_get_them_in_every_window() -> None:
    tokenizer = word_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="six $A seven", special_tokens=[("six", 6), ("seven", 7)]
    )
    text = "zero one two three four"
    assert data.token_windows(text, tokenizer, 4).tolist() == [[0, 1, 2, 3]]
    assert data.token_windows(text, tokenizer, 4, special=True).tolist() == [[6, 0, 1, 7], [6, 2, 3, 7]]
    assert data.token_windows(text, tokenizer, 5).tolist() == [[0, 1, 2, 3, 4]]  # The tokenizer is as it was.


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("text", ["", "one", "one two three"])
def test_data_of_less_than_a_window_is_refused(text: str, special: bool) -> None:
    with pytest.raises(ConfigError, match=f"the data has {len(text.split())} tokens, less than one window of 4"):
        data.token_windows(text, word_tokenizer(), 4, special=special)


def test_files_are_one_text(tmp_path: Path) -> None:
    for name, text in {"a.txt": "one tw", "b.txt": "o three\n"}.items():
        (tmp_path / name).write_text(text, "utf-8")
    assert data.read_text([tmp_path / "a.txt", tmp_path / "b.txt"]) == "one two three\n"


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.txt: cannot be read: No such file"):
        data.read_text([tmp_path / "gone.txt"])
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="binary: is no UTF-8 text"):
        data.read_text([tmp_path / "binary"])


def test_held_out_files_of_a_reference_are_found_and_missing_ones_named(tmp_path: Path) -> None:
    (tmp_path / data.HELD_OUT).write_text(json.dumps({"held": ["/copy.py", "/no/such.py"]}), "utf-8")
    assert data.default_files(str(tmp_path)) == ([Path(sysconfig.get_path("stdlib"), "copy.py")], ["no/such.py"])


def test_a_reference_without_held_out_text_needs_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"brings no held-out text of its own.*give --data FILE"):
        data.default_files(str(tmp_path))
    (tmp_path / data.HELD_OUT).write_text(json.dumps({"held": ["/no/such.py"]}), "utf-8")
    with pytest.raises(ConfigError, match="none of its 1 files is in"):
        data.default_files(str(tmp_path))


@pytest.mark.parametrize(
    ("windows", "tokens", "limit"), [(None, None, None), (3, None, 3), (None, 79, 4), (3, 79, 3), (5, 79, 4)]
)
def test_the_smaller_limit_counts(windows: int | None, tokens: int | None, limit: int | None) -> None:
    assert data.window_limit(16, windows, tokens) == limit


def test_fewer_tokens_than_a_window_are_refused() -> None:
    with pytest.raises(ConfigError, match="--tokens 15 is less than one window of 16"):
        data.window_limit(16, None, 15)


def test_windows_are_2048_tokens_or_what_the_models_take(tmp_path: Path) -> None:
    free, short = counting(tmp_path), counting(tmp_path, max_position_embeddings=16)
    assert data.window_length(None, free) == 2048
    assert data.window_length(None, free, short) == 16
    assert data.window_length(5, free, short) == 5
    with pytest.raises(ConfigError, match=r"--seq-len 17 is beyond the 16 positions of .*counting\.onnx"):
        data.window_length(17, free, short)


def test_samples_are_taken_one_by_one() -> None:
    samples = Samples({"x": np.arange(6).reshape(3, 2)}, ("file",))
    assert len(samples) == 3
    assert samples[1]["x"].tolist() == [[2, 3]]


def test_the_digest_depends_on_names_types_shapes_and_values() -> None:
    array = np.arange(6)
    inputs = [{"x": array}, {"y": array}, {"x": array.reshape(2, 3)}, {"x": array.astype(np.int32)}, {"x": array + 1}]
    assert len({Samples(each, ()).digest for each in inputs}) == len(inputs)
    assert Samples({"x": array.copy()}, ("other",)).digest == Samples({"x": array}, ()).digest


def test_tokens_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    samples = Samples({"input_ids": np.array([[1, len(WORDS)]])}, ("file",))
    with pytest.raises(ConfigError, match=r"has token 8, .*counting\.onnx a vocabulary of 8"):
        data.check_tokens(samples, counting(tmp_path))


def test_arrays_for_a_decoder_need_the_tokens_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input_ids=np.array([[1, 2, 3], [4, 5, 6]], np.int32))
    samples = data.read_arrays(tmp_path / "x.npz", counting(tmp_path))
    assert (len(samples), samples.seq_len) == (2, 3)
    assert len(data.read_arrays(tmp_path / "x.npz", counting(tmp_path), limit=1)) == 1


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "at least 1; there is no arrays"),
        ({"attention_mask": np.ones((1, 3), int)}, "input_ids is missing, an input of"),
        ({"input_ids": np.ones((1, 3), int), "pixels": np.ones((1, 3))}, "pixels is no input; .* takes input_ids"),
        ({"input_ids": np.ones((1, 3), int), "attention_mask": np.ones((2, 3), int)}, "input_ids 1, attention_mask 2"),
        ({"input_ids": np.ones((0, 3), int)}, "there is input_ids 0"),
        ({"input_ids": np.array(3)}, "there is input_ids 0"),
        ({"input_ids": np.ones((2, 3, 4), int)}, r"input_ids has samples of shape \[1, 3, 4\], but .* takes \[batch"),
        ({"input_ids": np.ones((2, 3))}, r"input_ids is float64, but .* takes a tensor\(int64\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    model = open_compiled(str(save(encoder(), tmp_path / "encoder.onnx")), library=False)
    with pytest.raises(ConfigError, match=message):
        data.read_arrays(tmp_path / "x.npz", model)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_files_that_are_no_npz_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.npz: "):
        data.read_arrays(tmp_path / "x.npz", counting(tmp_path))


def test_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.npz: cannot be read: No such file"):
        data.read_arrays(tmp_path / "gone.npz", counting(tmp_path))


def test_padding_is_no_real_token() -> None:
    sample = {"input_ids": np.array([[9, 9, 4, 5]]), "attention_mask": np.array([[0, 0, 1, 1]])}
    assert data.real_tokens(sample).tolist() == [4, 5]
