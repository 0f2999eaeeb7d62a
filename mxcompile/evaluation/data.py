"""What models are compared on: windows of text, or arrays from an .npz file."""

import dataclasses
import hashlib
import json
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from mxcompile.errors import ConfigError
from mxcompile.evaluation.models import IDS, MASK, Array, EvalModel, can_follow

HELD_OUT: Final = "heldout_files.json"
"""In the folder of a reference: ``{"held": [...]}``, files of Python's standard library that it was not trained on."""

DEFAULT_WINDOW: Final = 2048
"""Tokens of a window unless the model takes fewer: the protocol of the AMXFP4 paper."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs of models, sample by sample.

    Attributes:
        inputs: Arrays ``[samples, ...]`` by the name of the input.
        files: The files that they come from.
        missing: Files that were to be read, but that this machine does not have.
        seq_len: Tokens of a sample; None of other data than tokens.
    """

    inputs: dict[str, Array]
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()
    seq_len: int | None = None

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def __getitem__(self, index: int) -> dict[str, Array]:
        """The inputs of one sample, ``[1, ...]`` each."""
        return {name: array[index : index + 1] for name, array in self.inputs.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of all the arrays, with names and shapes."""
        state = hashlib.sha256()
        for name, array in sorted(self.inputs.items()):
            state.update(f"{name} {array.dtype.str} {array.shape};".encode())
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()


def default_files(reference: str) -> tuple[list[Path], list[str]]:
    """The held-out text that a reference names in its folder: the files that are here, and the names of the others.

    Raises:
        ConfigError: It names none, or none of them is here.
    """
    listed = Path(reference).expanduser() / HELD_OUT
    if not listed.is_file():
        raise ConfigError(f"{reference}: brings no held-out text of its own ({HELD_OUT}); give --data FILE")
    root = Path(sysconfig.get_path("stdlib"))
    names = [name.lstrip("/") for name in json.loads(listed.read_text("utf-8"))["held"]]
    found = [root / name for name in names if (root / name).is_file()]
    if not found:
        raise ConfigError(f"{listed}: none of its {len(names)} files is in {root}; give --data FILE")
    return found, [name for name in names if not (root / name).is_file()]


def window_limit(seq_len: int, windows: int | None, tokens: int | None) -> int | None:
    """How many windows ``--windows`` and ``--tokens`` allow; None for all.

    Raises:
        ConfigError: Fewer tokens than a window has.
    """
    if tokens is not None and tokens < seq_len:
        raise ConfigError(f"--tokens {tokens} is less than one window of {seq_len}; allow more, or set --seq-len")
    limits = [limit for limit in (windows, tokens and tokens // seq_len) if limit is not None]
    return min(limits, default=None)


def window_length(asked: int | None, *models: EvalModel) -> int:
    """Tokens of a window: as asked for, or 2048, or as many as the models take.

    Raises:
        ConfigError: More than a model takes.
    """
    limits = [(model.max_positions, model.name) for model in models if model.max_positions is not None]
    most, name = min(limits, default=(None, ""))
    if asked is None:
        return DEFAULT_WINDOW if most is None else min(DEFAULT_WINDOW, most)
    if most is not None and asked > most:
        raise ConfigError(f"--seq-len {asked} is beyond the {most} positions of {name}; at most {most} is allowed")
    return asked


def read_text(files: Sequence[Path]) -> str:
    """The text of files, one behind the other.

    Raises:
        ConfigError: A file is missing, or is no UTF-8 text.
    """
    texts = []
    for file in files:
        try:
            texts.append(file.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}; give a text file or an .npz file") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{file}: is no UTF-8 text ({error.reason}); give text, or an .npz file") from error
    return "".join(texts)


def token_windows(
    text: str, tokenizer: Tokenizer, seq_len: int, *, special: bool = False, limit: int | None = None
) -> npt.NDArray[np.int64]:
    """A text as windows of tokens that do not overlap; the incomplete last one is dropped.

    Args:
        text: Tokenized as one text.
        tokenizer: The tokenizer.
        seq_len: Tokens of a window.
        special: Whether each window gets the tokenizer's special tokens, such as [CLS] and [SEP]; they count.
        limit: At most so many windows.

    Returns:
        int64 ``[windows, seq_len]``.

    Raises:
        ConfigError: No complete window.
    """
    if special:
        tokenizer = Tokenizer.from_str(tokenizer.to_str())  # Truncation is a state of the tokenizer.
        tokenizer.enable_truncation(max_length=seq_len)
        first = tokenizer.encode(text)
        rows = [each.ids for each in (first, *first.overflowing) if len(each.ids) == seq_len]
        found = sum(len(each.ids) for each in (first, *first.overflowing))
        windows = np.array(rows, np.int64).reshape(-1, seq_len)
    else:
        ids = np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        windows, found = ids[: len(ids) // seq_len * seq_len].reshape(-1, seq_len), len(ids)
    if not len(windows):
        raise ConfigError(
            f"the data has {found} tokens, less than one window of {seq_len}; give more text, or a smaller --seq-len"
        )
    return windows[:limit]


def check_tokens(samples: Samples, *models: EvalModel) -> None:
    """Sees to it that the models know the tokens.

    Raises:
        ConfigError: A token that is not in a vocabulary, or a sequence beyond a model's positions.
    """
    ids = samples.inputs.get(IDS)
    if ids is None:
        return
    window_length(ids.shape[1], *models)
    for model in models:
        if model.kind == "decoder" and model.vocabulary is not None and ids.max() >= model.vocabulary:
            raise ConfigError(
                f"the data has token {ids.max()}, {model.name} a vocabulary of {model.vocabulary}; "
                "give the tokenizer that belongs to the model"
            )


def read_arrays(file: Path, *models: EvalModel, limit: int | None = None) -> Samples:
    """Inputs from an .npz file: arrays ``[samples, ...]`` by the names of the models' inputs.

    Args:
        file: The file. Mask, positions and token types may lack where there is ``input_ids``.
        models: The models that are to take them.
        limit: At most so many samples.

    Raises:
        ConfigError: Not such a file; an input is missing, unknown, or of another shape or type than the models take.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as content:
            arrays = {name: content[name] for name in content.files}
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}; give an .npz file") from error
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file}: is no .npz file of plain arrays: {error}") from error
    known = {name for model in models for name in model.inputs}
    if extra := sorted(set(arrays) - known):
        raise ConfigError(f"{file}: {extra[0]} is no input; {models[0].name} takes {', '.join(models[0].inputs)}")
    counts = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        found = ", ".join(f"{name} {count}" for name, count in counts.items()) or "no arrays"
        raise ConfigError(f"{file}: every array needs the same number of samples, at least 1; there is {found}")
    for model in models:
        for name, value in model.inputs.items():
            if name in arrays:
                _check_array(f"{file}: {name}", arrays[name], value, model)
            elif not can_follow(name, arrays):
                raise ConfigError(f"{file}: {name} is missing, an input of {model.name}; add it")
    arrays = {name: array[:limit] for name, array in arrays.items()}
    ids = arrays.get(IDS)
    return Samples(arrays, (str(file),), seq_len=None if ids is None else ids.shape[1])


def _check_array(where: str, array: Array, value: Any, model: EvalModel) -> None:
    """Raises ConfigError if one sample of the array is not what the input takes."""
    expected = [dim if isinstance(dim, int) else None for dim in value.shape]
    shape = (1, *array.shape[1:])
    if len(shape) != len(expected) or any(want not in (None, got) for want, got in zip(expected, shape, strict=True)):
        dims = ", ".join(str(dim) for dim in value.shape)
        raise ConfigError(f"{where} has samples of shape {list(shape)}, but {model.name} takes [{dims}], one at a time")
    integers = "float" not in value.type and "double" not in value.type
    if array.dtype.kind not in ("iub" if integers else "iubf"):
        raise ConfigError(f"{where} is {array.dtype}, but {model.name} takes a {value.type}")


def real_tokens(sample: dict[str, Array]) -> npt.NDArray[np.int64]:
    """The tokens of a sample that are no padding, int64 ``[length]``."""
    ids = sample[IDS][0]
    return np.asarray(ids[sample[MASK][0].astype(bool)] if MASK in sample else ids, np.int64)
