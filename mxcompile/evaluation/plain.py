"""A model as one .onnx file in float, exported once for everything that is done with it."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from mxcompile import exporter, onnx_file
from mxcompile.errors import UnsupportedModelError
from mxcompile.evaluation.fidelity import Tell


@contextlib.contextmanager
def open_plain(source: str, task: str | None, tell: Tell) -> Iterator[Path]:
    """The model as a single .onnx file, its tokenizer and configurations beside it, until the context ends.

    What a compiled model's metadata say of task, tokenizer and generation, the metadata of the file say too.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        task: Export task; None for that of the model's class.
        tell: Called with the name of each phase.

    Raises:
        MxCompileError: See `exporter.open_model`.
        UnsupportedModelError: An encoder-decoder.
    """
    with (
        tempfile.TemporaryDirectory(prefix="mxcompile-") as folder,
        exporter.open_model(source, task=task, progress=lambda phase: tell(phase, 0, 0)) as exported,
    ):
        _, model = single_model(source, exported)
        known = {
            "task": exported.task,
            "tokenizer": exported.tokenizer,
            "generation": json.dumps(exported.generation) if exported.generation else None,
        }
        model.metadata_props.update({f"mxcompile.{key}": text for key, text in known.items() if text is not None})
        onnx_file.write_model(model, Path(folder, "model.onnx"))
        for file in exported.files:
            shutil.copy(file, folder)
        yield Path(folder, "model.onnx")


def single_model(source: str, exported: exporter.Exported) -> tuple[str, ir.Model]:
    """File name and graph of a model that is one graph.

    Args:
        source: What it was exported from, for people.
        exported: The result.

    Raises:
        UnsupportedModelError: An encoder-decoder.
    """
    if len(exported.models) > 1:
        raise UnsupportedModelError(
            f"{source}: is an encoder-decoder ({', '.join(exported.models)}), which cannot be run as one; give one of "
            "its parts as an .onnx file, with .npz data"
        )
    ((name, model),) = exported.models.items()
    return name, model
