"""A pytest plugin: the demo model as tests of sensitivity and search want it, exported once for all of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mxcompile import exporter, onnx_file

DEMO = Path(__file__).parents[2] / "examples" / "demo-model"


@pytest.fixture(scope="session")
def plain_demo(shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The demo model in float32, with its tokenizer beside it. Not to be changed."""

    def export(folder: Path) -> None:
        with exporter.open_model(str(DEMO)) as exported:
            onnx_file.write_model(exported.models["model.onnx"], folder / "plain.onnx")
        shutil.copy(DEMO / "tokenizer.json", folder)

    return shared_folder("plain-demo", export) / "plain.onnx"
