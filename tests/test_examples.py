"""The examples: the held-out text, and the script that trains the demo model again."""

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def heldout() -> ModuleType:
    return load("heldout")


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # the script imports heldout from its own folder
    return load("train_demo_model")


# heldout.py -----------------------------------------------------------------------------------------------------------


def test_five_modules_are_read_in_the_order_of_their_names(heldout: ModuleType) -> None:
    root = heldout.standard_library()
    expected = [(root / name).read_text("utf-8") for name in heldout.MODULES]
    assert heldout.read_heldout_text(heldout.MODULES) == "".join(expected)


def test_whole_list_is_the_bundled_one(heldout: ModuleType) -> None:
    listed = json.loads((EXAMPLES / "demo-model" / "heldout_files.json").read_text("utf-8"))["held"]
    assert heldout.held_out_files() == [name.removeprefix("/") for name in listed]
    assert set(heldout.MODULES) <= set(heldout.held_out_files())


def test_missing_files_are_named_and_skipped(
    heldout: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "copy.py").write_text("x = 1\n", "utf-8")
    assert heldout.read_heldout_text(["copy.py", "typing.py"], tmp_path) == "x = 1\n"
    assert "1 files are missing and skipped: typing.py" in caplog.text


def test_no_file_at_all_is_an_error(heldout: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is it the standard library"):
        heldout.read_heldout_text(["copy.py"], tmp_path)


def test_file_that_was_trained_on_is_refused(heldout: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"this\.py: not held out"):
        heldout.read_heldout_text(["copy.py", "this.py"])


def test_script_prints_the_text_of_the_named_files() -> None:
    script = [sys.executable, str(EXAMPLES / "heldout.py")]
    done = subprocess.run([*script, "copy.py"], check=True, capture_output=True, text=True)
    assert "def deepcopy(" in done.stdout
    refused = subprocess.run([*script, "this.py"], check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "not held out" in refused.stderr


# train_demo_model.py --------------------------------------------------------------------------------------------------


def test_corpus_leaves_out_heldout_and_third_party_files(training: ModuleType, tmp_path: Path) -> None:
    for name in ("a.py", "held.py", "pkg/b.py", "site-packages/c.py", "not_python.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, "utf-8")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    assert training.read_corpus(tmp_path, ["held.py"]) == ["a.py", "pkg/b.py"]


def test_learning_rate_warms_up_and_decays_to_a_twentieth(training: ModuleType) -> None:
    assert training.learning_rate(0, 0.0) == pytest.approx(3e-5)
    assert training.learning_rate(99, 0.0) == pytest.approx(3e-3)
    assert training.learning_rate(5000, 1.0) == pytest.approx(1.5e-4)


def test_architecture_is_the_bundled_one(training: ModuleType) -> None:
    bundled = json.loads((EXAMPLES / "demo-model" / "config.json").read_text("utf-8"))
    written = training.model_config().to_dict()
    described = [key for key in bundled if key not in ("architectures", "dtype", "transformers_version")]
    assert {key: written[key] for key in described} == {key: bundled[key] for key in described}


def test_two_steps_give_a_model_that_can_be_loaded(training: ModuleType, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and transformers, on import
        from transformers import AutoModelForCausalLM, AutoTokenizer

        texts = [(EXAMPLES / "heldout.py").read_text("utf-8"), (EXAMPLES / "train_demo_model.py").read_text("utf-8")]
        tokenizer = training.train_tokenizer(texts, vocabulary=512)
        ids = training.encode_corpus(tokenizer, texts)
        training.save(training.train(ids, training.Budget(steps=2, minutes=0)), tokenizer, tmp_path / "model")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert ids.dtype == np.int64
    assert loaded.decode(loaded("def café():")["input_ids"]) == "def café():"
    assert model.num_parameters() == 4_000_000
