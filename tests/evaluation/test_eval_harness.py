"""Tasks of lm-evaluation-harness from local files, on models whose answers are known."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_models import WORDS, counting_decoder, encoder, save, word_tokenizer
from tokenizers import processors

from mxcompile.errors import ConfigError, UnsupportedModelError
from mxcompile.evaluation import EvalOptions, evaluate, harness
from mxcompile.evaluation.models import EvalModel, open_compiled

ROUNDING = 1e-9
"""Relative difference of sums of a few float64 values in other orders."""


def counting(folder: Path, **generation: int) -> EvalModel:
    return open_compiled(str(save(counting_decoder(**generation), folder / "counting.onnx")), library=False)


def task(folder: Path, output_type: str, documents: list[dict[str, Any]], **more: Any) -> str:
    """A task of local files; YAML is a superset of JSON."""
    (folder / "documents.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents), "utf-8")
    files = {"data_files": {"test": str(folder / "documents.jsonl")}, "cache_dir": str(folder / "cache")}
    content = {"task": "local", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
    path = folder / "task.yaml"
    path.write_text(json.dumps({**content, "output_type": output_type, **more}), "utf-8")
    return str(path)


def choices(folder: Path) -> str:
    """Which word comes next: the model knows the first answer, and not the second."""
    documents = [
        {"before": "one two", "choices": [" five", " three"], "right": 1},
        {"before": "four", "choices": ["five", "six"], "right": 1},
    ]
    words = {"doc_to_text": "{{before}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{right}}"}
    return task(folder, "multiple_choice", documents, **words, metric_list=[{"metric": "acc"}])


def log_probability(word: int, following: int) -> float:
    """What `counting_decoder` gives."""
    logits = -np.arange(len(WORDS), dtype=np.float64)
    logits[(word + 1) % len(WORDS)] = 10
    return float(logits[following] - np.log(np.exp(logits).sum()))


def test_choices_are_made_by_their_likelihood(tmp_path: Path) -> None:
    (result,) = harness.run_tasks([counting(tmp_path)], [choices(tmp_path)])
    assert result == {"local": {"acc": 0.5}}


def test_documents_are_limited(tmp_path: Path) -> None:
    (result,) = harness.run_tasks([counting(tmp_path)], [choices(tmp_path)], limit=1)
    assert result == {"local": {"acc": 1}}


def test_texts_are_generated_up_to_the_stop_text(tmp_path: Path) -> None:
    documents = [{"before": "one", "after": "two three"}, {"before": "four", "after": "six"}]
    words = {"doc_to_text": "{{before}}", "doc_to_target": "{{after}}"}
    settings = {"generation_kwargs": {"until": [" four", " six"], "max_gen_toks": 5, "do_sample": False}}
    path = task(tmp_path, "generate_until", documents, **words, **settings, metric_list=[{"metric": "exact_match"}])
    (result,) = harness.run_tasks([counting(tmp_path)], [path])
    assert result == {"local": {"exact_match": 0.5}}


@pytest.mark.parametrize(("positions", "pieces"), [(512, [[0, 3, 4, 4, 6]]), (2, [[0, 3, 4], [4, 4, 6]])])
def test_rolling_likelihood_is_that_of_every_token(positions: int, pieces: list[list[int]], tmp_path: Path) -> None:
    # Token 0 stands before the text; "three four four six" follows. Two positions need two windows.
    model = counting(tmp_path, max_position_embeddings=positions)
    path = task(
        tmp_path,
        "loglikelihood_rolling",
        [{"text": "three four four six"}],
        doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{"metric": "bits_per_byte"}],
    )
    (result,) = harness.run_tasks([model], [path])
    expected = sum(log_probability(a, b) for piece in pieces for a, b in itertools.pairwise(piece))
    bits = -expected / math.log(2) / len("three four four six")
    assert result["local"]["bits_per_byte"] == pytest.approx(bits, rel=ROUNDING)


def test_tokens_before_and_around_a_text_are_those_of_the_harness_for_transformers(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="seven $A", special_tokens=[("seven", 7)])
    proto = counting_decoder(tokenizer=tokenizer, bos_token_id=7, eos_token_id=6)
    model = harness.SessionLM(open_compiled(str(save(proto, tmp_path / "m.onnx")), library=False))
    assert (model.prefix_token_id, model.eot_token_id) == (7, 6)
    assert model.tok_encode("one two") == [7, 1, 2]
    assert model.tok_encode("seven one") == [7, 1]
    assert model.tok_encode("one two", add_special_tokens=False) == [1, 2]
    without = harness.SessionLM(counting(tmp_path, eos_token_id=6))
    assert without.prefix_token_id == 6


def test_both_models_are_in_the_report(tmp_path: Path) -> None:
    counting(tmp_path)
    file = str(tmp_path / "counting.onnx")
    report = evaluate(file, file, EvalOptions(tasks=(choices(tmp_path),), library=False))
    assert report.to_dict()["tasks"] == {"local": {"acc": {"reference": 0.5, "quantized": 0.5}}}
    assert (report.data, report.figures, report.gates) == (None, None, ())


def test_drawn_tokens_are_refused(tmp_path: Path) -> None:
    path = task(
        tmp_path,
        "generate_until",
        [{"before": "one"}],
        doc_to_text="{{before}}",
        doc_to_target="x",
        generation_kwargs={"until": ["."], "do_sample": True, "temperature": 0.7},
    )
    with pytest.raises(ConfigError, match="draws tokens at random"):
        harness.run_tasks([counting(tmp_path)], [path])


def test_an_encoder_has_no_tasks(tmp_path: Path) -> None:
    model = open_compiled(str(save(encoder(), tmp_path / "encoder.onnx")), library=False)
    with pytest.raises(
        UnsupportedModelError, match="needs a decoder with a key-value cache, and this one is of kind encoder"
    ):
        harness.run_tasks([model], [choices(tmp_path)])


def test_unknown_tasks_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the harness' own tasks, thousands of files that take a minute to read.
    manager = harness.TaskManager(include_defaults=False)
    monkeypatch.setattr(harness, "TaskManager", lambda include_defaults: manager)
    with pytest.raises(ConfigError, match="--tasks no_such_task_at_all: no such task"):
        harness.run_tasks([counting(tmp_path)], ["no_such_task_at_all"])
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        harness.run_tasks([counting(tmp_path)], [str(tmp_path / "gone.yaml")])


def test_a_task_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text("task: local\ndataset_path: json\ndataset_kwargs: {data_files: gone.jsonl}\n")
    with pytest.raises(ConfigError, match=r"task\.yaml: failed: .*; check its file and its data"):
        harness.run_tasks([counting(tmp_path)], [str(tmp_path / "task.yaml")])
