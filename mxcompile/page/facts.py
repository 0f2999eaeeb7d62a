"""What every report says besides its results: settings, versions, digests, and how the formats are spread."""

import collections
import glob
import importlib.metadata
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mxcompile import onnx_file, runtime
from mxcompile.errors import RuntimeLibraryError
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.report import DataReport
from mxcompile.evaluation.search_costs import FLOAT_BITS
from mxcompile.evaluation.state import model_digest
from mxcompile.evaluation.thresholds import option_name
from mxcompile.page.content import Node, Point, Table, Variant

_FILES: Final = 5
"""Files of the data that are named."""

_RECORDED: Final = {
    "source": "compiled from",
    "format": "formats",
    "task": "export task",
    "version": "compiled by mxcompile",
}
"""What record-provenance wrote into a compiled model, and what a page calls it."""


def versions(library: bool) -> dict[str, str]:
    """The software that computed the figures, and the instruction set in use.

    Args:
        library: Whether the custom-op library was used.
    """
    found = {"mxcompile": importlib.metadata.version("mxcompile"), "onnxruntime": runtime.onnxruntime_version()}
    if not library:
        return found | {"kernels": "none: the bodies of the operators in the stock onnxruntime"}
    try:
        return found | {"kernels": runtime.library_info().isa}
    except RuntimeLibraryError as error:
        return found | {"kernels": f"none: {error}"}


def model_facts(title: str, model: str) -> dict[str, str]:
    """A model and the SHA-256 of its files, by what the page calls it; of a hub id there are no files."""
    if not Path(model).expanduser().exists():
        return {title: model}
    return {title: model, f"SHA-256 of the {title}": model_digest(model)}


def recorded_facts(file: Path) -> dict[str, str]:
    """What a compiled model says of its making."""
    metadata = onnx_file.read_model(file, compiled=True).metadata_props
    found = {title: metadata.get(f"mxcompile.{key}") for key, title in _RECORDED.items()}
    return {title: text for title, text in found.items() if text}


def data_facts(data: DataReport | None) -> dict[str, str]:
    """The files that were read, those that are missing, and the digest of the inputs."""
    if data is None:
        return {}
    missing = {"data that this machine lacks": ", ".join(data.missing)} if data.missing else {}
    return {"data": _files(data.files), "SHA-256 of the inputs": data.sha256} | missing


def _files(files: Sequence[str]) -> str:
    """The files, or if there are many, the first ones and where all of them are."""
    if len(files) <= _FILES:
        return ", ".join(files)
    folder = os.path.commonpath(files)
    names = ", ".join(os.path.relpath(file, folder) for file in files[:_FILES])
    return f"{len(files)} files below {folder}: {names}, ..."


def data_settings(data: DataReport | None, options: EvalOptions) -> dict[str, str]:
    """How much was measured on, and how."""
    found: dict[str, Any] = {}
    if data is not None:
        found = {"windows" if data.seq_len else "samples": data.windows, "tokens of a window": data.seq_len}
    found |= {
        "tasks": ", ".join(options.tasks),
        "documents of a task": options.limit,
        **{option_name(name): f"{bound:g}" for name, bound in options.thresholds.given.items()},
        "tokenizer": options.tokenizer,
        "threads": options.threads or "all cores",
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def energy_settings(samples: Samples | None, engine: str, technology: str) -> dict[str, str]:
    """What the estimates of energy are for."""
    window = samples.seq_len if samples is not None else None
    run = f"a prefill of {window} tokens" if window else "one run"
    return {"energy": f"{run} on {engine} in {technology}, divided by its tokens"}


def mean_bits(nodes: Iterable[Node]) -> float | None:
    """Stored bits of a weight, mean over the weights of all linear layers, those in float too; None without any."""
    sizes = [(node.bits, node.k * node.n) for node in nodes if node.bits and node.k and node.n]
    elements = sum(size for _, size in sizes)
    return math.fsum(bits * size for bits, size in sizes) / elements if elements else None


def total_energy(nodes: Iterable[Node]) -> float | None:
    """Energy of all nodes for a token, pJ; None if there is no estimate."""
    found = [node.energy_pj for node in nodes if node.energy_pj is not None]
    return math.fsum(found) if found else None


def format_table(variant: Variant) -> Table:
    """How many products compute in which formats, and how many weights they have."""
    products: dict[tuple[str, str], list[Node]] = collections.defaultdict(list)
    for node in variant.nodes:
        if node.product is not None or node.skipped is not None:
            products[node.weights or "float", node.activations or "float"].append(node)
    rows = []
    for (weights, activations), nodes in products.items():
        bits, linear = mean_bits(nodes), [node for node in nodes if node.product == "linear"]
        elements = sum((node.k or 0) * (node.n or 0) for node in linear)
        cells = (str(len(linear)), str(len(nodes) - len(linear)), f"{elements:,}", "-" if bits is None else f"{bits:g}")
        rows.append((weights, activations, *cells))
    columns = ("weights, keys, values", "activations", "linear layers", "other products", "weights", "bits a weight")
    return Table("Formats of the products", columns, tuple(rows))


def skipped_table(variant: Variant) -> Table | None:
    """Why products are left in float; None if none is."""
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for node in variant.nodes:
        if node.skipped is not None:
            alone = node.skipped.replace(f"'{glob.escape(node.layer)}'", "of it alone")
            reasons[alone].append(node.layer)
    rows = tuple((reason, str(len(layers)), ", ".join(layers)) for reason, layers in reasons.items())
    return Table("Left in float", ("reason", "products", "layers"), rows) if rows else None


def described(figures: Mapping[str, str | None]) -> dict[str, str]:
    """The figures that there are."""
    return {name: text for name, text in figures.items() if text is not None}


def float_point(energy_pj: float | None, perplexity_increase: float | None, kl: float | None) -> Point:
    """The original, to which nothing happens; without figures that quantized forms of it do not have.

    Args:
        energy_pj: Of the original, for a token of a prefill.
        perplexity_increase: Of a quantized form.
        kl: Of a quantized form.
    """
    same = [None if figure is None else 0.0 for figure in (perplexity_increase, kl)]
    return Point("original", "float", float(FLOAT_BITS), energy_pj, *same)
