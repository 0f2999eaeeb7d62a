"""The compiler: opens a model, runs the pipeline over it, and writes the result."""

import importlib.metadata
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import onnx_ir as ir

from mxcompile.config import CompileConfig, KvBlocking, KvCache
from mxcompile.errors import MxCompileError, UnsupportedModelError
from mxcompile.exporter import Exported, open_model
from mxcompile.onnx_file import write_model
from mxcompile.output import Destination, is_folder
from mxcompile.passes import (
    AttachFunctions,
    FuseMatMulBlock,
    InsertAttention,
    InsertQuantize,
    NormalizeLinears,
    PackCache,
    PackWeights,
    RecordProvenance,
    SelectFormats,
)
from mxcompile.passes.metadata import WEIGHTS
from mxcompile.passes.select_formats import check_patterns, selectable
from mxcompile.report import CompileReport, describe_cache, describe_layers, quantized_size

logger = logging.getLogger(__name__)

Pass = (
    NormalizeLinears
    | SelectFormats
    | InsertQuantize
    | InsertAttention
    | PackCache
    | PackWeights
    | FuseMatMulBlock
    | AttachFunctions
    | RecordProvenance
)

Progress = Callable[[str, int, int], None]
"""Called with a phase, and how much of how many steps is done; 0 of 0 where that is unknown."""


def build_pipeline(
    config: CompileConfig,
    provenance: RecordProvenance,
    *,
    partial: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pass]:
    """The passes in their order.

    Args:
        config: The settings.
        provenance: What to record about the source.
        partial: The graph is one of several of a model (see `SelectFormats`).
        progress: Called while the weights are packed, with the number done and of all.
    """
    return [
        NormalizeLinears(),
        SelectFormats(config, partial),
        InsertQuantize(),
        InsertAttention(config.kv_blocking),
        *([PackCache()] if config.kv_cache == "packed" else []),
        PackWeights(progress),
        *([FuseMatMulBlock()] if config.fuse else []),
        AttachFunctions(),
        provenance,
    ]


def compile_model(
    source: str | os.PathLike[str],
    *,
    format: str = "amxfp4",
    output: str | os.PathLike[str],
    weights: str | None = None,
    activations: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    overrides: Iterable[tuple[str, str, str]] = (),
    fuse: bool = True,
    attention: bool = True,
    attention_format: str | None = None,
    kv_format: str | None = None,
    kv_blocking: KvBlocking = "sequence",
    kv_cache: KvCache | None = None,
    task: str | None = None,
    force: bool = False,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CompileReport:
    """Compiles a model to block-quantized ONNX.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        format: Format of weights and activations.
        output: ``out.onnx``, or a folder ``out/``, which also gets the tokenizer and the configurations. A JSON
            report is written beside the model.
        weights: Format of the weights, in place of `format`.
        activations: Format of the activations, in place of `format`; ``none`` keeps them in float.
        include: Globs over layer names: quantize only these.
        exclude: Globs over layer names: leave these alone.
        overrides: ``(glob, weights, activations)`` for single layers; the last match wins.
        fuse: Whether matmuls become MatMulBlock.
        attention: Whether the attention products are quantized too.
        attention_format: Format of queries, keys, probabilities and values; None for that of the activations.
        kv_format: Format of keys and values, in place of `attention_format`.
        kv_blocking: What blocks of values run along: the ``sequence`` or the features of a ``token``.
        kv_cache: How a decoder keeps keys and values: ``packed`` or ``float``; None for `default_kv_cache`.
        task: Export task; None takes the one of the model's class.
        force: Whether existing output is replaced.
        dump: Folder that gets the model after each pass.
        progress: Told about phases and steps.

    Returns:
        What was done.

    Raises:
        MxCompileError: Anything wrong with the settings, the source or the output; then nothing was written.
    """
    config = CompileConfig.of(
        format,
        weights=weights,
        activations=activations,
        include=tuple(include),
        exclude=tuple(exclude),
        overrides=tuple(overrides),
        fuse=fuse,
        attention=attention,
        attention_format=attention_format,
        kv_format=kv_format,
        kv_blocking=kv_blocking,
        kv_cache=kv_cache or default_kv_cache(output),
    )
    source = os.fspath(source)
    destination = Destination.of(output, force=force, source=source)
    tell = progress or (lambda phase, done, total: None)
    clock = [time.perf_counter()]
    with open_model(source, task=task, progress=lambda phase: tell(phase, 0, 0)) as exported:
        destination.check_models(exported.models)
        before = sum(_weight_bytes(model) for model in exported.models.values())
        clock.append(time.perf_counter())
        _run_passes(exported, config, dump, tell)
        clock.append(time.perf_counter())
        tell("writing", 0, 0)
        written = destination.write(exported.models, exported.files)
        clock.append(time.perf_counter())
    report = _report(exported, config, destination, (before, written), clock)
    destination.write_report(report.to_dict())
    return report


def default_kv_cache(output: str | os.PathLike[str]) -> KvCache | None:
    """What a decoder's cache holds if nobody says so: float in a folder, for optimum's classes know nothing else.

    In a single file it is packed if formats and graph allow that (None, see `CompileConfig.of`).
    """
    return "float" if is_folder(output) else None


def _run_passes(exported: Exported, config: CompileConfig, dump: str | os.PathLike[str] | None, tell: Progress) -> None:
    """Runs the pipeline over every model of the source."""
    partial = len(exported.models) > 1
    provenance = RecordProvenance(
        version=importlib.metadata.version("mxcompile"),
        format=config.format,
        source=exported.source,
        task=exported.task,
        tokenizer=exported.tokenizer,
        generation=json.dumps(exported.generation) if exported.generation else None,
    )
    pipeline = build_pipeline(
        config, provenance, partial=partial, progress=lambda done, total: tell("quantizing weights", done, total)
    )
    for index, each in enumerate(pipeline):
        tell(each.name, 0, 0)
        for name, model in exported.models.items():
            start = time.perf_counter()
            changed = _apply(each, model)
            nodes = sum(1 for _ in model.graph.all_nodes())
            seconds = time.perf_counter() - start
            logger.debug("%s: %s: %s, %d nodes, %.3f s", name, each.name, "changed" if changed else "-", nodes, seconds)
            if dump is not None:
                _dump(model, Path(dump), f"{index}-{each.name}.{name}")
        if partial and isinstance(each, SelectFormats):
            _check_selection(exported, config)


def _check_selection(exported: Exported, config: CompileConfig) -> None:
    """What select-formats cannot check of several graphs one by one."""
    products = [product for model in exported.models.values() for product in selectable(model)]
    check_patterns(config, products)
    if not any(WEIGHTS in product.node.metadata_props for product in products):
        raise UnsupportedModelError(
            f"{exported.source}: nothing to quantize in {' and '.join(exported.models)}: every linear layer is left "
            "alone by --include, --exclude or --set, or there is none"
        )


def _apply(each: Pass, model: ir.Model) -> bool:
    """Runs one pass; an error on purpose comes out as it is, not wrapped."""
    try:
        return each(model).modified
    except ir.passes.PassError as error:
        if isinstance(error.__cause__, MxCompileError):
            raise error.__cause__ from None
        raise


def _dump(model: ir.Model, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_model(model, folder / name)


def _report(
    exported: Exported,
    config: CompileConfig,
    destination: Destination,
    sizes: tuple[int, int],
    clock: Sequence[float],
) -> CompileReport:
    layers = [layer for name, model in exported.models.items() for layer in describe_layers(name, model)]
    counts = [quantized_size(model) for model in exported.models.values()]
    kv_cache, kv_cache_skipped = describe_cache(exported.models.values())
    phases = zip(("export", "passes", "write"), clock, clock[1:], strict=False)
    return CompileReport(
        version=importlib.metadata.version("mxcompile"),
        source=exported.source,
        task=exported.task,
        output=str(destination.path),
        weights=config.weights,
        activations=config.activations,
        fused=config.fuse,
        kv_cache=kv_cache,
        kv_cache_skipped=kv_cache_skipped,
        layers=tuple(layers),
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        quantized_weights=sum(weights for weights, _ in counts),
        quantized_bytes=sum(size for _, size in counts),
        seconds={name: end - start for name, start, end in phases},
        peak_memory_bytes=peak_memory_bytes(),
    )


def _weight_bytes(model: ir.Model) -> int:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
