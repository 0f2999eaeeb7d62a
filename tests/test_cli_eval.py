"""mxcompile eval: what it prints, its exit codes, and its answers to mistakes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import text_models
from command_line import Run, assert_error
from onnx import numpy_helper

from mxcompile import evaluation

COUNTING = ("eval", "counting.onnx", "--no-library", "--threads", "1")


@pytest.fixture(autouse=True)
def folder(run: Run, tmp_path: Path) -> None:
    """Texts and arrays beside the models of `run`, and models that differ from them."""
    (tmp_path / "text").write_text(" ".join(text_models.WORDS * 5), "utf-8")
    (tmp_path / "empty").write_text("", "utf-8")
    np.savez("tokens.npz", input_ids=np.arange(40).reshape(5, 8) % 8)
    # Blurred: after "three", the words "four" and "five" are equally likely, and "four" comes first.
    blurred = text_models.counting_decoder()
    (table,) = (each for each in blurred.graph.initializer if each.name == "table")
    logits = numpy_helper.to_array(table).copy()
    logits[3, 5] = text_models.LIKELY
    table.CopyFrom(numpy_helper.from_array(logits, "table"))
    text_models.save(blurred, tmp_path / "blurred.onnx")
    text_models.save(text_models.counting_decoder(max_position_embeddings=8), tmp_path / "short.onnx")
    text_models.save(text_models.encoder("vectors"), tmp_path / "vectors.onnx")
    bare = text_models.counting_decoder()
    onnx.helper.set_model_props(bare, {})
    text_models.save(bare, tmp_path / "bare.onnx")
    text_models.save(text_models.counting_decoder(tokenizer=text_models.byte_tokenizer()), tmp_path / "bytes.onnx")


def test_an_equal_model_passes_every_threshold(run: Run) -> None:
    limits = ("--max-kl", "0", "--max-flip-rate", "0%", "--min-top1", "100%", "--max-ppl-increase", "0", "--min-cosine")
    result = run(*COUNTING, "--reference", "counting.onnx", "--data", "text", "--seq-len", "8", *limits, "1")
    assert result.exit_code == 0, result.output
    assert "counting.onnx (decoder) against counting.onnx" in result.stdout
    assert "5 windows of 8 tokens from text" in result.stdout
    assert "0 of 5 texts, median first flip none" in " ".join(result.stdout.split())
    assert result.stdout.count("ok      --") == 5


def test_figures_as_json(run: Run) -> None:
    result = run(*COUNTING, "--reference", "blurred.onnx", "--data", "text", "--seq-len", "8", "--json")
    content = json.loads(result.stdout)
    assert content["kind"] == "decoder"
    assert content["data"]["files"] == ["text"]
    assert (content["data"]["windows"], content["data"]["seq_len"], content["predictions"]) == (5, 8, 35)
    # Each window is "zero" to "seven": seven predictions, one of them shared by two words in the reference.
    others = np.exp(-np.arange(8.0))
    sums = [np.exp(10) + others.sum() - others[(word + 1) % 8] for word in range(7)]
    losses = np.log(sums) - 10
    blurred = losses.copy()
    blurred[3] = np.log(sums[3] + np.exp(10) - others[5]) - 10
    assert content["perplexity"]["quantized"] == pytest.approx(np.exp(losses.mean()), rel=1e-6)  # float32 logits
    assert content["perplexity"]["reference"] == pytest.approx(np.exp(blurred.mean()), rel=1e-6)
    assert content["top1_agreement"] == 1
    assert content["kl"]["max"] > content["kl"]["median"] == 0
    assert content["flips"]["rate"] == 0
    assert (content["gates"], content["tasks"]) == ([], {})
    assert content["sqnr_db"] is not None


def test_a_threshold_that_is_not_kept_is_exit_code_one_and_one_line(run: Run) -> None:
    limits = ("--max-kl", "0.01", "--min-top1", "1", "--max-kl-p99", "0.1")
    options = ("--reference", "counting.onnx", "--data", "text", "--seq-len", "8", *limits)
    result = run("eval", "blurred.onnx", "--no-library", *options)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: blurred.onnx: not near enough to counting.onnx: --max-kl: 0.0")
    assert "is above 0.01; --max-kl-p99: 0." in last
    assert "--min-top1" not in last
    assert "ok      --min-top1: 1, at least 1 is allowed" in result.stdout
    assert "FAILED  --max-kl: 0.0" in result.stdout


def test_a_failed_threshold_leaves_the_json_whole(run: Run) -> None:
    options = ("--reference", "counting.onnx", "--data", "text", "--seq-len", "8", "--max-kl", "0", "--json")
    result = run("eval", "blurred.onnx", "--no-library", *options)
    assert result.exit_code == 1
    (gate,) = json.loads(result.stdout)["gates"]
    assert (gate["threshold"], gate["allowed"], gate["passed"]) == ("max_kl", 0, False)
    assert gate["measured"] > 0


def test_percentages_are_shares(run: Run) -> None:
    options = ("--reference", "counting.onnx", "--data", "text", "--seq-len", "8", "--json")
    limits = ("--min-top1", "50%", "--max-ppl-increase", "300%", "--max-flip-rate", "0.25")
    gates = json.loads(run(*COUNTING, *options, *limits).stdout)["gates"]
    assert {gate["threshold"]: gate["allowed"] for gate in gates} == {
        "min_top1": 0.5,
        "max_ppl_increase": 3,
        "max_flip_rate": 0.25,
    }


def test_the_held_out_text_of_a_reference_is_the_default(run: Run, tiny_model_folder: Callable[[str], Path]) -> None:
    held_out = Path("reference")
    held_out.mkdir()
    for file in tiny_model_folder("llama").iterdir():
        (held_out / file.name).symlink_to(file)
    (held_out / "heldout_files.json").write_text('{"held": ["/copy.py", "/no/such.py"]}', "utf-8")
    assert run("reference", "-o", "llama.onnx").exit_code == 0
    limits = ("--seq-len", "16", "--tokens", "40", "--prompts", "1")
    content = json.loads(run("eval", "llama.onnx", "--reference", "reference", *limits, "--json").stdout)
    assert [Path(file).name for file in content["data"]["files"]] == ["copy.py"]
    assert content["data"]["missing"] == ["no/such.py"]
    assert content["data"]["windows"] == 2
    assert content["flips"]["prompts"] == 1
    result = run("eval", "llama.onnx", "--reference", "reference", *limits)
    assert "(1 more are not on this machine)" in result.stdout


def test_arrays_are_data_too(run: Run) -> None:
    content = json.loads(run(*COUNTING, "--reference", "bare.onnx", "--data", "tokens.npz", "--json").stdout)
    assert (content["data"]["windows"], content["data"]["seq_len"]) == (5, 8)
    assert content["perplexity"]["reference"] == content["perplexity"]["quantized"]


def test_an_encoder_is_compared_by_its_embeddings(run: Run) -> None:
    options = ("--reference", "encoder.onnx", "--data", "text", "--seq-len", "4", "--no-library", "--min-cosine", "1")
    result = run("eval", "encoder.onnx", *options)
    assert result.exit_code == 0, result.output
    assert "perplexity" not in result.stdout
    assert "no difference" in result.stdout


def test_the_tokenizer_comes_from_a_file_or_from_the_reference(run: Run) -> None:
    Path("tokenizer").mkdir()
    text_models.word_tokenizer().save("tokenizer/words.json")
    options = ("--data", "text", "--seq-len", "8", "--no-library", "--prompts", "0")
    assert run("eval", "bare.onnx", "--reference", "counting.onnx", *options).exit_code == 0
    result = run("eval", "bare.onnx", "--reference", "bare.onnx", *options, "--tokenizer", "tokenizer/words.json")
    assert result.exit_code == 0, result.output


def test_a_finished_evaluation_is_read_from_its_state(run: Run) -> None:
    options = ("--reference", "blurred.onnx", "--data", "text", "--seq-len", "8", "--resume", "state", "--json")
    first, second = (json.loads(run(*COUNTING, *options).stdout) for _ in range(2))
    assert len(Path("state").read_text("utf-8").splitlines()) == 1 + 5 + 5
    del first["seconds"], second["seconds"]
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["gone.onnx", "--reference", "counting.onnx"], ["gone.onnx: no such file"]),
        (["counting.onnx", "--reference", "./gone"], ["./gone: no such file or folder"]),
        (["counting.onnx", "--reference", "counting.onnx"], ["brings no held-out text", "--data FILE"]),
        (["counting.onnx", "--reference", "counting.onnx", "--data", "gone"], ["gone: cannot be read"]),
        (["counting.onnx", "--reference", "counting.onnx", "--data", "empty"], ["0 tokens, less than one window"]),
        (["bare.onnx", "--reference", "bare.onnx", "--data", "text"], ["no tokenizer in it", "--tokenizer FILE"]),
        (["bytes.onnx", "--reference", "counting.onnx", "--data", "text"], ["tokenizers of other vocabularies"]),
        (["bytes.onnx", "--reference", "bare.onnx", "--data", "text", "--seq-len", "9"], ["a vocabulary of 8"]),
        (
            ["counting.onnx", "--reference", "encoder.onnx", "--data", "text"],
            ["is of kind decoder", "encoder.onnx of kind encoder"],
        ),
        (
            ["vectors.onnx", "--reference", "vectors.onnx", "--data", "text"],
            ["gives neither logits", "its outputs are"],
        ),
        (
            ["short.onnx", "--reference", "counting.onnx", "--data", "text", "--seq-len", "9"],
            ["beyond the 8 positions"],
        ),
        (["counting.onnx", "--reference", "counting.onnx", "--data", "text", "--seq-len", "1"], ["--seq-len is 1"]),
        (["counting.onnx", "--reference", "counting.onnx", "--data", "text", "--windows", "0"], ["--windows is 0"]),
        (["counting.onnx", "--reference", "counting.onnx", "--max-kl", "-1"], ["--max-kl is -1: 0 and above"]),
        (
            ["encoder.onnx", "--reference", "encoder.onnx", "--data", "text", "--max-kl", "1"],
            ["which has no such figure"],
        ),
        (
            ["counting.onnx", "--reference", "counting.onnx", "--prompts", "0", "--max-flip-rate", "1"],
            ["--prompts 0 turns generation off"],
        ),
        (
            ["counting.onnx", "--reference", "counting.onnx", "--data", "tokens.npz", "--data", "text"],
            ["tokens.npz: an .npz file stands alone; 2 files were given"],
        ),
        (
            ["counting.onnx", "--reference", "counting.onnx", "--data", "tokens.npz", "--tokens", "8"],
            ["--windows limits them"],
        ),
        (["counting.onnx", "--reference", "counting.onnx", "--tasks", "x", "--max-kl", "1"], ["give --data FILE"]),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], parts: list[str], run: Run) -> None:
    assert_error(run("eval", *arguments, "--no-library"), *parts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing option '--reference'"),
        (["--reference", "x", "--max-kl", "much"], "'much' is no number"),
        (["--reference", "x", "--max-kl", "2%"], "'2%' is no number"),
        (["--reference", "x", "--min-top1", "most"], "'most' is no number, such as 0.02 or 2%"),
    ],
)
def test_wrong_usage_is_exit_code_two(arguments: list[str], said: str, run: Run) -> None:
    result = run("eval", "counting.onnx", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_tasks_say_what_they_need(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # As if it were not installed.
    monkeypatch.delitem(sys.modules, "mxcompile.evaluation.harness", raising=False)
    monkeypatch.delattr(evaluation, "harness", raising=False)
    options = ("--reference", "counting.onnx", "--tasks", "task.yaml")
    assert_error(run(*COUNTING, *options), "--tasks needs lm-evaluation-harness", "pip install 'mxcompile[eval]'")
