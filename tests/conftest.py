"""What more than one test file needs: tiny models, exported at most once a test run."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the Hugging Face folder of a tiny model by its name in tiny_models.NAMES. Not to be changed."""
    return functools.cache(lambda name: tiny_models.save_tiny_model(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="session")
def exported_model_folder(
    tiny_model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives a folder with the .onnx files of a tiny model and the files that belong to them. Not to be changed."""

    @functools.cache
    def export(name: str) -> Path:
        folder = tmp_path_factory.mktemp(f"{name}-onnx")
        with exporter.open_model(str(tiny_model_folder(name))) as exported:
            for file_name, model in exported.models.items():
                onnx_file.write_model(model, folder / file_name)
            for file in exported.files:
                shutil.copy(file, folder)
        return folder

    return export


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
