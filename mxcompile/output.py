"""Where the result goes: one .onnx file, or a folder that appears whole."""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mxcompile.errors import ExportError
from mxcompile.onnx_file import write_model


def is_folder(output: str | os.PathLike[str]) -> bool:
    """Whether an output means a folder: it is one already, ends with a slash, or does not end with ``.onnx``."""
    text = os.fspath(output)
    path = Path(text).expanduser()
    return path.is_dir() or text.endswith(os.sep) or path.suffix != ".onnx"


@dataclasses.dataclass(frozen=True)
class Destination:
    """An output that was checked before the long work begins.

    Attributes:
        path: The .onnx file, or the folder.
        folder: Whether it is a folder (`is_folder`).
        force: Whether existing files are replaced.
    """

    path: Path
    folder: bool
    force: bool = False

    @classmethod
    def of(cls, output: str | os.PathLike[str], *, force: bool = False, source: str | None = None) -> "Destination":
        """Checks an output path.

        Args:
            output: ``out.onnx``, or a folder: ``out/``.
            force: Whether existing files may be replaced.
            source: What is compiled; it must not be overwritten.

        Raises:
            ExportError: The parent folder is missing or not writable, the output exists, or it is the source.
        """
        text = os.fspath(output)
        path = Path(text).expanduser()
        folder = is_folder(text)
        if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
            raise ExportError(f"{text}: is the model to compile; write the result to another place")
        parent = path.absolute().parent
        if not parent.is_dir():
            raise ExportError(f"{text}: there is no folder {parent}; create it first")
        if not os.access(path if path.is_dir() else parent, os.W_OK):
            raise ExportError(f"{text}: the folder {parent} is not writable; choose another output")
        if folder and path.exists() and not path.is_dir():
            raise ExportError(f"{text}: is a file, not a folder; choose another output")
        models = path.glob("*.onnx") if folder else [path]
        existing = next((str(model) for model in models if model.exists()), None)
        if existing is not None and not force:
            raise ExportError(f"{existing}: exists already; add --force to replace it, or choose another output")
        return cls(path, folder, force)

    def check_models(self, names: Iterable[str]) -> None:
        """Checks that the models fit.

        Raises:
            ExportError: Several models, but the output is one file.
        """
        names = list(names)
        if len(names) > 1 and not self.folder:
            raise ExportError(
                f"{self.path}: this model consists of {' and '.join(names)}; give a folder: -o {self.path.stem}/"
            )

    @property
    def report(self) -> Path:
        """The JSON report beside the model."""
        return self.path / "report.json" if self.folder else self.path.with_suffix(".report.json")

    def write(self, models: Mapping[str, ir.Model], files: Iterable[Path]) -> int:
        """Writes the models, and into a folder the files beside them; all of it or nothing.

        Args:
            models: The models by file name; the only one of a folder is called model.onnx.
            files: Configurations and tokenizer files to copy into a folder.

        Returns:
            Size of the model files in bytes, data files included.

        Raises:
            ExportError: The disk is full, or anything else the system objects to.
        """
        if not self.folder:
            (model,) = models.values()
            return write_model(model, self.path)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.absolute().parent) as made:
                sizes = [
                    write_model(model, Path(made, name if len(models) > 1 else "model.onnx"))
                    for name, model in models.items()
                ]
                for file in files:
                    shutil.copyfile(file, Path(made, file.name))
                self.path.mkdir(exist_ok=True)
                for file in sorted(Path(made).iterdir()):
                    file.replace(self.path / file.name)
        except OSError as error:
            raise ExportError(f"{self.path}: could not be written: {error.strerror or error}") from error
        return sum(sizes)

    def write_report(self, content: Mapping[str, Any]) -> Path:
        """Writes the JSON report; returns where."""
        temporary = self.report.with_name(f".{self.report.name}.tmp")
        try:
            temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            temporary.replace(self.report)
        except OSError as error:
            raise ExportError(f"{self.report}: could not be written: {error.strerror or error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        return self.report
