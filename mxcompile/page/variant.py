"""What a page tells of one compiled model: its nodes, what was measured of them, and the values that are quantized."""

import contextlib
import dataclasses
import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from mxcompile import exporter, onnx_file
from mxcompile.config import CompileConfig, KvBlocking
from mxcompile.cost.phases import BATCH, TOKENS
from mxcompile.cost.report import report_model
from mxcompile.errors import ConfigError, CostModelError, UnsupportedModelError
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.plain import open_plain
from mxcompile.evaluation.sensitivity import product_noise
from mxcompile.evaluation.switched_model import Tell, open_switched
from mxcompile.evaluation.switches import apply_pass
from mxcompile.formats import NONE
from mxcompile.page.content import Histogram, Variant
from mxcompile.page.histograms import describe_operands
from mxcompile.page.nodes import Figures, describe_nodes
from mxcompile.page.operands import sample_operands
from mxcompile.passes import NormalizeLinears
from mxcompile.passes.metadata import ATTENTION, WEIGHTS
from mxcompile.passes.rewriting import producer
from mxcompile.passes.select_formats import selectable
from mxcompile.report import describe_layers

WINDOWS: Final = 4
"""Windows that the error of each product is measured on, at most."""


def describe_variant(
    name: str,
    compiled: str | os.PathLike[str],
    original: str | os.PathLike[str],
    samples: Samples | None,
    *,
    engine: str = "edge-npu",
    technology: str = "freepdk45",
    threads: int | None = None,
    library: bool = True,
    task: str | None = None,
    kl: Mapping[str, float] | None = None,
    sqnr_db: Mapping[str, float] | None = None,
    phases: Mapping[str, Any] | None = None,
    progress: Tell | None = None,
) -> Variant:
    """Looks at a compiled model beside its original.

    1. Nodes, formats and sizes are those of the compiled file.
    2. Energy and multiply-accumulates are estimated for a prefill of one window (see `mxcompile.cost.report`).
    3. The error of each product is measured on the inputs that it has in the original (see `SwitchedModel.powers`),
       over at most `WINDOWS` windows.
    4. Histograms are of weights of the original, and of the other operands in its first window.

    What cannot be had is None, and a note says why.

    Args:
        name: What the page calls it.
        compiled: The compiled .onnx file, or a folder of one.
        original: What it was compiled from: a hub id, a Hugging Face folder, or an .onnx file.
        samples: The data; None measures nothing that needs any.
        engine: Of the energy: a shipped engine, or FILE.toml.
        technology: Of the energy, likewise.
        threads: See `runtime.create_session`.
        library: See `runtime.create_session`.
        task: Export task of the original; None for that of its class.
        kl: Divergence of products that were quantized alone, by layer.
        sqnr_db: Errors of products that are known already, by layer; they are not measured again.
        phases: What the energy is of, as `report_model` takes it; None for a prefill of one window.
        progress: Called with the phase and its steps.

    Raises:
        MxCompileError: A file that cannot be read, or a model that fails when it runs.
    """
    tell = progress or (lambda phase, done, total: None)
    file = model_file(compiled)
    model = onnx_file.read_model(file, compiled=True)
    notes: list[str] = []
    tell("energy of nodes", 0, 0)
    energy, macs = token_costs(model, samples, engine, technology, notes, phases)
    histograms: tuple[Histogram, ...] = ()
    session: dict[str, Any] = {"threads": threads, "library": library}
    with (
        _noting(notes, "SQNR and values were not measured"),
        original_file(original, task, tell) as plain,
        exporter.open_model(str(plain)) as exported,
    ):
        config = recovered_config(model)
        (source,) = exported.models.values()
        _check_products(source, config)
        if sqnr_db is None and samples is not None:
            with _noting(notes, "SQNR was not measured"):
                sqnr_db = _product_errors(plain, config, samples, session, tell)
        histograms = _histograms(source, config, samples, session, notes, tell)
    if samples is None:
        notes.append("No data was read: there is no SQNR of products, and there are values of weights only.")
    figures = Figures(sqnr_db=sqnr_db or {}, kl=kl or {}, energy_pj=energy, macs=macs)
    return Variant(name, describe_nodes(model, figures), histograms, tuple(notes))


def recovered_config(model: ir.Model) -> CompileConfig:
    """The settings that give every product of a compiled model the formats that it has.

    They are written out product by product, as ``--set`` would.

    Raises:
        ConfigError: None is quantized; or some of the same name, in branches of the graph, have different formats.
    """
    chosen: dict[str, tuple[str, str]] = {}
    for each in describe_layers("", model):
        if each.skipped is None:
            pair = each.weights or NONE, each.activations or NONE
            if chosen.setdefault(each.layer, pair) != pair:
                raise ConfigError(f"{each.layer} has different formats in the branches of the graph")
    if not chosen:
        raise ConfigError("no product of the model is quantized")
    overrides = tuple((glob.escape(layer), *pair) for layer, pair in chosen.items())
    return CompileConfig(NONE, NONE, overrides=overrides, kv_blocking=_kv_blocking(model))


def _kv_blocking(model: ir.Model) -> KvBlocking:
    """Along what the values of attention lie in blocks: blocks of a token are decoded and read as they are.

    Those along the sequence are rows that MatMulBlock takes, or that a Transpose stands behind.
    """
    for node in model.graph.all_nodes():
        metadata = node.metadata_props
        if metadata.get(ATTENTION) == "pv" and WEIGHTS in metadata and (node.op_type, node.domain) == ("MatMul", ""):
            return "sequence" if producer(node.inputs[1], "Transpose") is not None else "token"
    return "sequence"


def model_file(path: str | os.PathLike[str]) -> Path:
    """The .onnx file of a path, which may be a folder."""
    from mxcompile.generation import model_in

    file = Path(path).expanduser()
    return model_in(file) if file.is_dir() else file


@contextlib.contextmanager
def _noting(notes: list[str], what: str) -> Iterator[None]:
    """Turns what a model does not allow into a note."""
    try:
        yield
    except (ConfigError, UnsupportedModelError) as error:
        notes.append(f"{what[0].upper()}{what[1:]}: {error}.")


@contextlib.contextmanager
def original_file(original: str | os.PathLike[str], task: str | None, tell: Tell) -> Iterator[Path]:
    """The original as an .onnx file, exported if it is none; see `open_plain`.

    Args:
        original: A hub id, a Hugging Face folder, or an .onnx file.
        task: Export task; None for that of the model's class.
        tell: Called with the name of each phase.

    Raises:
        MxCompileError: See `open_plain`.
    """
    path = Path(original).expanduser()
    file = path / "model.onnx" if path.is_dir() else path
    if file.is_file():
        yield file
    else:
        with open_plain(str(original), task, tell) as plain:
            yield plain


def token_costs(
    model: ir.Model,
    samples: Samples | None,
    engine: str,
    technology: str,
    notes: list[str],
    phases: Mapping[str, Any] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Energy and multiply-accumulates of a prefill of one window, for each token, or sample.

    Args:
        model: The model.
        samples: The data; None for the default of `mxcompile.cost`.
        engine: See `report_model`.
        technology: See `report_model`.
        notes: Gets a sentence about what could not be estimated.
        phases: What they are of, as `report_model` takes it; None for a prefill of one window.

    Returns:
        Both by the path of the node, the energy in pJ; nothing if there is no estimate.
    """
    run = _window(model, samples) if phases is None else phases
    try:
        phase = report_model("", model, engine=engine, technology=technology, **run).phases[0]
    except CostModelError as error:
        notes.append(f"There is no estimate of energy: {error}.")
        return {}, {}
    nodes, runs = phase.cost.nodes, phase.phase.tokens
    if phase.cost.uncovered:
        operators = ", ".join(sorted({each.op_type for each in phase.cost.uncovered}))
        notes.append(f"{len(phase.cost.uncovered)} nodes have no estimate of energy: {operators}.")
    macs = {node.name: node.macs / runs for node in nodes if node.macs}
    return {node.name: node.energy_pj / runs for node in nodes}, macs


def _window(model: ir.Model, samples: Samples | None) -> dict[str, Any]:
    """The run over one window or sample, as `report_model` takes it: its tokens, or what else has no fixed size."""
    inputs = {} if samples is None else samples.inputs
    dims = {
        str(dim): size
        for value in model.graph.inputs
        if value.name in inputs
        for dim, size in zip(value.shape or (), inputs[value.name].shape, strict=False)
        if str(dim).isidentifier()
    }
    others = {name: size for name, size in dims.items() if name not in TOKENS and not name.endswith(BATCH)}
    return {"prefill": next((dims[name] for name in TOKENS if name in dims), None), "dims": others}


def _check_products(original: ir.Model, config: CompileConfig) -> None:
    """Sees to it that the original has the products of the compiled model."""
    apply_pass(NormalizeLinears(), original)
    known = {glob.escape(product.layer) for product in selectable(original)}
    for layer, _, _ in config.overrides:
        if layer not in known:
            raise ConfigError(
                f"the original has not the products of the compiled model, such as {layer}; give what was compiled"
            )


def _product_errors(
    plain: Path, config: CompileConfig, samples: Samples, session: dict[str, Any], tell: Tell
) -> dict[str, float]:
    """The ratio of signal and noise of every product on its inputs in the float model, in decibels."""
    with open_switched(str(plain), config, **session) as model:
        some = dataclasses.replace(samples, inputs={name: array[:WINDOWS] for name, array in samples.inputs.items()})
        found = product_noise(model, some, tell)
        return {switch.layer: ratio for switch, ratio in zip(model.switches, found, strict=True)}


def _histograms(
    model: ir.Model,
    config: CompileConfig,
    samples: Samples | None,
    session: dict[str, Any],
    notes: list[str],
    tell: Tell,
) -> tuple[Histogram, ...]:
    """The histograms of all operands, product by product."""
    tell("values of operands", 0, 0)
    operands = sample_operands(model, config, None if samples is None else samples[0], **session)
    total, found = sum(len(operand.uses) for operand in operands), list[Histogram]()
    for each in describe_operands(operands):
        found.append(each)
        tell("values of operands", len(found), total)
    order = {layer: index for index, (layer, _, _) in enumerate(config.overrides)}
    missing = len(order.keys() - {glob.escape(each.layer) for each in found})
    if missing and samples is not None:
        notes.append(f"Values of {missing} products in branches of the graph were not looked at.")
    return tuple(sorted(found, key=lambda each: order[glob.escape(each.layer)]))
