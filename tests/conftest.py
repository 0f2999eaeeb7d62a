"""What more than one test file needs: tiny models, exported at most once a test run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import hypothesis
import models
import pytest
import text_models
import tiny_models
from click.testing import CliRunner
from command_line import Recorder, Run

from mxcompile import cli, compiler, exporter, onnx_file
from mxcompile.onnx_file import write_model

# A test that takes long on a busy machine is not wrong.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


Shared = Callable[[str, Callable[[Path], object]], Path]
"""Gives a folder by its name; who asks for it first fills it by the given function. Not to be changed afterwards."""


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Folders that are filled once a run, also where several processes (pytest -n) share the tests."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path = root / "shared" / name
        path.parent.mkdir(exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock")):
            if not path.exists():
                unfinished = path.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(path)
        return path

    return folder


@pytest.fixture(scope="session")
def tiny_model_folder(shared_folder: Shared) -> Callable[[str], Path]:
    """Gives the Hugging Face folder of a tiny model by its name in tiny_models.NAMES. Not to be changed."""
    return lambda name: shared_folder(name, lambda folder: tiny_models.save_tiny_model(name, folder))


@pytest.fixture(scope="session")
def exported_model_folder(tiny_model_folder: Callable[[str], Path], shared_folder: Shared) -> Callable[[str], Path]:
    """Gives a folder with the .onnx files of a tiny model and the files that belong to them. Not to be changed."""

    def export(name: str, folder: Path) -> None:
        with exporter.open_model(str(tiny_model_folder(name))) as exported:
            for file_name, model in exported.models.items():
                onnx_file.write_model(model, folder / file_name)
            for file in exported.files:
                shutil.copy(file, folder)

    return lambda name: shared_folder(f"{name}-onnx", lambda folder: export(name, folder))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line in a folder with ``decoder.onnx``, ``counting.onnx`` and ``encoder.onnx``."""
    monkeypatch.chdir(tmp_path)
    write_model(models.decoder(), Path("decoder.onnx"))
    text_models.save(text_models.counting_decoder(), Path("counting.onnx"))
    text_models.save(text_models.encoder(), Path("encoder.onnx"))
    return lambda *arguments: CliRunner().invoke(cli.cli, [*map(str, arguments)], prog_name="mxcompile")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """What the command line makes of its options."""
    recorder = Recorder()
    monkeypatch.setattr(compiler, "compile_model", recorder)
    return recorder
