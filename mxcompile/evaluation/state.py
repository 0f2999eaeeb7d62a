"""A file with the windows and prompts that are done, so that an evaluation that was stopped can go on.

A line of JSON each, the first one being what the figures depend on. A line is written when its window is done; one that
was cut off by the end of the process is dropped.
"""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mxcompile.errors import ConfigError, ExportError
from mxcompile.evaluation.flips import PromptFigures
from mxcompile.evaluation.metrics import WindowFigures

_BYTES: Final = 2**20
_START: Final = '{"settings": {'
_MODEL_FILES = ("*.onnx", "*.onnx.data", "*.onnx_data", "*.safetensors", "*.bin", "config.json")


@dataclasses.dataclass(frozen=True)
class State:
    """What is done.

    Attributes:
        windows: Figures of windows by their number.
        prompts: Continuations of prompts by their number.
        save: Keeps one more: ``save("window", 7, figures)``.
    """

    windows: dict[int, WindowFigures]
    prompts: dict[int, PromptFigures]
    save: Callable[[str, int, Any], None]


@contextlib.contextmanager
def open_state(path: str | None, settings: Mapping[str, Any]) -> Iterator[State]:
    """Reads what an earlier run of the same evaluation did, and keeps what this one does.

    Args:
        path: The file; None keeps nothing.
        settings: What the figures depend on.

    Raises:
        ConfigError: The file belongs to another evaluation, or is none of ours.
        ExportError: It cannot be written.
    """
    if path is None:
        yield State({}, {}, lambda kind, index, figures: None)
        return
    file = Path(path).expanduser()
    lines = _read(file)
    windows: dict[int, WindowFigures] = {}
    prompts: dict[int, PromptFigures] = {}
    try:
        if lines:
            _check_settings(file, json.loads(lines[0])["settings"], settings)
        for line in lines[1:]:
            content = json.loads(line)
            if content["kind"] == "window":
                windows[content["index"]] = WindowFigures.from_dict(content["figures"])
            else:
                prompts[content["index"]] = PromptFigures.from_dict(content["figures"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: is not what --resume wrote ({error}); delete it, or name another file") from error
    try:
        with file.open("a", encoding="utf-8") as output:
            # A line that was cut off is no longer wanted.
            output.truncate(sum(len(line.encode()) + 1 for line in lines))

            def write(content: Mapping[str, Any]) -> None:
                output.write(json.dumps(content) + "\n")
                output.flush()

            def save(kind: str, index: int, figures: Any) -> None:
                write({"kind": kind, "index": index, "figures": dataclasses.asdict(figures)})

            if not lines:
                write({"settings": settings})
            yield State(windows, prompts, save)
    except OSError as error:
        raise ExportError(f"{file}: cannot be written: {error.strerror}; name another file for --resume") from error


def _read(file: Path) -> list[str]:
    """The complete lines of the file."""
    if not file.exists():
        return []
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: is not what --resume wrote ({error}); delete it, or name another file") from error
    lines = text.split("\n")[:-1]
    if text and not (lines or text.startswith(_START[: len(text)])):
        raise ConfigError(f"{file}: is not what --resume wrote; delete it, or name another file")
    return lines


def _check_settings(file: Path, found: dict[str, Any], settings: Mapping[str, Any]) -> None:
    other = [key for key in settings if found.get(key) != settings[key]]
    if other:
        raise ConfigError(
            f"{file}: belongs to another evaluation, which differs in {', '.join(other)}; delete it, or name another "
            "file for --resume"
        )


def model_digest(source: str) -> str:
    """SHA-256 of the files of a model; of the text itself if it is a hub id."""
    path = Path(source).expanduser()
    if path.is_file():
        files = [path, *(path.with_name(path.name + suffix) for suffix in (".data", "_data"))]
    else:
        files = sorted({file for pattern in _MODEL_FILES for file in path.glob(pattern)})
    state = hashlib.sha256(b"" if path.exists() else source.encode())
    for file in files:
        if file.is_file():
            state.update(f"{file.name};".encode())
            with file.open("rb") as content:
                while block := content.read(_BYTES):
                    state.update(block)
    return state.hexdigest()
