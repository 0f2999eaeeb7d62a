"""What the benchmarks share: the demo model, its held-out text, log probabilities, tables and JSON."""

import argparse
import dataclasses
import importlib.util
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from mxcompile import compiler, exporter, formats, onnx_file
from mxcompile.kv_cache import empty_cache

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DEMO = EXAMPLES / "demo-model"
WINDOW = 256
MODULES = ("dataclasses.py", "typing.py", "mimetypes.py", "copy.py", "posixpath.py")
"""Five held-out modules that every installation of Python has: the text of the published figures."""


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the option that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file too")
    return made


@dataclasses.dataclass(frozen=True)
class Table:
    """Figures of one kind: columns by name with the format specification of their values, and rows of values."""

    title: str
    columns: dict[str, str]
    rows: Sequence[Sequence[str | float]]

    def __str__(self) -> str:
        """The table as text, numbers to the right."""
        specs = self.columns.values()
        body = [[format(cell, spec) for cell, spec in zip(row, specs, strict=True)] for row in self.rows]
        cells = [list(self.columns), *body]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        aligned = [f"{'>' if spec else '<'}{width}" for spec, width in zip(specs, widths, strict=True)]
        lines = ("  ".join(map(format, row, aligned)).rstrip() for row in cells)
        return "\n".join([self.title, *lines])

    def to_dict(self) -> dict[str, Any]:
        """Title and rows as JSON-ready values."""
        return {"title": self.title, "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows]}


def report(arguments: argparse.Namespace, *tables: Table) -> None:
    """Prints the tables, and writes the JSON file that was asked for."""
    print("\n\n".join(map(str, tables)))
    if arguments.json is not None:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}"
        content = {"machine": machine, "tables": [table.to_dict() for table in tables]}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def export_demo(folder: Path) -> Path:
    """Exports the demo model in float32 to ``none.onnx``."""
    with exporter.open_model(str(DEMO)) as exported:
        onnx_file.write_model(exported.models["model.onnx"], folder / "none.onnx")
    return folder / "none.onnx"


def compile_all(folder: Path, names: Iterable[str] = formats.FORMATS) -> dict[str, Path]:
    """The demo model in float32 (``none``) and in every format, or these, by format."""
    plain = export_demo(folder)
    models = {formats.NONE: plain}
    for name in names:
        models[name] = folder / f"{name}.onnx"
        compiler.compile_model(plain, format=name, output=models[name])
    return models


def held_out_windows(limit: int | None = None) -> npt.NDArray[np.int64]:
    """The held-out modules as one text without special tokens, in windows that do not overlap, ``[n, WINDOW]``.

    The incomplete last window is dropped.
    """
    from tokenizers import Tokenizer

    spec = importlib.util.spec_from_file_location("heldout", EXAMPLES / "heldout.py")
    assert spec is not None
    assert spec.loader is not None
    heldout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(heldout)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    ids = np.array(tokenizer.encode(heldout.read_heldout_text(MODULES), add_special_tokens=False).ids, np.int64)
    return ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)[:limit]


def decoder_feeds(
    session: onnxruntime.InferenceSession, ids: npt.NDArray[np.int64], past: Sequence[npt.NDArray[Any]] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Inputs for ``ids [batch, length]`` after the keys and values of earlier tokens (none: an empty cache)."""
    caches = [each for each in session.get_inputs() if each.name.startswith("past_key_values")]
    if not past:
        past = list(empty_cache(caches, len(ids)).values())
    start = past[0].shape[2]  # of the keys, packed or not
    positions = np.arange(start, start + ids.shape[1])
    feeds: dict[str, npt.NDArray[Any]] = {
        "input_ids": ids,
        "attention_mask": np.ones((len(ids), start + ids.shape[1]), np.int64),
        "position_ids": np.tile(positions, (len(ids), 1)),
    }
    return feeds | {each.name: value for each, value in zip(caches, past, strict=True)}


def log_probabilities(session: onnxruntime.InferenceSession, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Log probabilities of the token after each position, ``[batch, length, vocabulary]``."""
    logits = session.run(["logits"], decoder_feeds(session, ids))[0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    normalized: npt.NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return normalized


def seconds_in_turns(candidates: Sequence[Callable[[], object]], rounds: int = 15) -> npt.NDArray[np.float64]:
    """Times of each candidate, ``[candidates, rounds]``: one run each a round, after one that does not count.

    They take turns so that a disturbance of the machine hits all of them, not the one whose turn it happens to be.
    """
    for run in candidates:
        run()
    times = np.empty((len(candidates), rounds))
    for turn in range(rounds):
        for index, run in enumerate(candidates):
            start = time.perf_counter()
            run()
            times[index, turn] = time.perf_counter() - start
    return times
