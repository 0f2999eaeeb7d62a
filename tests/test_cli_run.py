"""mxcompile run: what it understands, prints, and answers to mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import text_models
from command_line import Run, assert_error

from mxcompile.commands import run as run_module
from mxcompile.runtime import LIBRARY_VARIABLE


def test_run_continues_the_prompt(run: Run) -> None:
    result = run("run", "counting.onnx", "--prompt", "one two", "--max-new-tokens", "3", "--no-library")
    assert (result.exit_code, result.stdout) == (0, "one two three four five\n")
    assert result.stderr.startswith("3 tokens, ")
    assert "tokens/s" in result.stderr


def test_run_json_is_one_object(run: Run) -> None:
    options = ("--max-new-tokens", "2", "--threads", "1", "--no-library", "--json")
    content = json.loads(run("run", "counting.onnx", "--prompt", "one", *options).stdout)
    assert content["text"] == " two three"
    assert content["tokens"] == [2, 3]
    assert (content["prompt"], content["prompt_tokens"], content["finish"]) == ("one", 1, "length")
    assert content["prefill_seconds"] > 0
    assert content["tokens_per_second"] > 0


@pytest.mark.parametrize(
    ("options", "greedy"),
    [
        ([], True),
        (["--seed", "3"], True),
        (["--temperature", "0", "--top-p", "0.9"], True),
        (["--temperature", "9"], False),
        (["--top-k", "8", "--temperature", "9"], False),
    ],
)
def test_sampling_is_asked_for_by_its_options(options: list[str], greedy: bool, run: Run) -> None:
    result = run("run", "counting.onnx", "--prompt", "zero", "--max-new-tokens", "20", "--no-library", *options)
    words = [text_models.WORDS[index % 8] for index in range(21)]
    assert (result.stdout.split() == words) == greedy


def test_top_k_alone_draws_at_temperature_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run_module, "_generate", lambda model, prompt, count, sampling, as_json: seen.append(sampling))
    run("run", "counting.onnx", "--prompt", "one", "--no-library", "--top-k", "5", "--seed", "2")
    assert (seen[0].temperature, seen[0].top_k, seen[0].seed) == (1.0, 5, 2)


def test_run_of_a_compiled_model_uses_the_library(run: Run, exported_model_folder: Callable[[str], Path]) -> None:
    assert run(exported_model_folder("llama"), "-o", "llama.onnx").exit_code == 0
    options = ("--max-new-tokens", "4", "--json")
    content = json.loads(run("run", "llama.onnx", "--prompt", "w5 w9", *options).stdout)
    assert content["prompt_tokens"] == 2


def test_prompts_of_an_encoder_are_compared(run: Run) -> None:
    result = run("run", "encoder.onnx", "--prompt", "one", "--prompt", "two", "--prompt", "one", "--no-library")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["cosine", "1", "2", "3", "prompt"]
    assert rows[1][1] == rows[1][3] == rows[2][2] == "1.000"
    assert [row[-1] for row in rows[1:]] == ["one", "two", "one"]


def test_a_single_prompt_of_an_encoder_shows_its_embedding(run: Run) -> None:
    assert run("run", "encoder.onnx", "--prompt", "one", "--no-library").stdout.startswith("4 features: ")


def test_embeddings_as_json(run: Run) -> None:
    result = run("run", "encoder.onnx", "--prompt", "one", "--prompt", "two", "--no-library", "--json")
    content = json.loads(result.stdout)
    assert content["prompts"] == ["one", "two"]
    assert [len(row) for row in content["embeddings"]] == [4, 4]
    assert content["similarity"][0][0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["nowhere.onnx", "--prompt", "a"], ["nowhere.onnx: no such file"]),
        (["counting.onnx", "--prompt", "one", "--prompt", "two"], ["continues one --prompt; 2 were given"]),
        (["counting.onnx", "--prompt", ""], ["the prompt '' has no tokens"]),
        (["counting.onnx", "--prompt", "a", "--temperature", "-1"], ["temperature is -1.0"]),
        (["counting.onnx", "--prompt", "a", "--top-p", "2"], ["top-p is 2.0"]),
        (["counting.onnx", "--prompt", "a", "--tokenizer", "nowhere.json"], ["nowhere.json: no such file"]),
        (["decoder.onnx", "--prompt", "a"], ["neither a decoder with a key-value cache", "its inputs are ids"]),
    ],
)
def test_mistakes_of_run_are_one_line(arguments: list[str], parts: list[str], run: Run) -> None:
    assert_error(run("run", *arguments, "--no-library"), *parts)


def test_run_without_the_library_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIBRARY_VARIABLE, "gone.so")
    assert_error(run("run", "counting.onnx", "--prompt", "one"), "gone.so: no such file; MXCOMPILE_LIBRARY")
