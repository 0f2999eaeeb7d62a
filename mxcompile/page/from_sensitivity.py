"""The page of a ranking of products."""

import dataclasses
import glob
import math
import tempfile
from pathlib import Path
from typing import Any, Final

from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.search_costs import FLOAT_BITS
from mxcompile.evaluation.sensitivity import ProductSensitivity, SensitivityReport
from mxcompile.evaluation.show import data_line
from mxcompile.evaluation.switched_model import Change, Tell
from mxcompile.formats import NONE
from mxcompile.page import facts
from mxcompile.page.content import Page, Point, Table, Variant
from mxcompile.page.from_eval import ENGINE, TECHNOLOGY, energy_of
from mxcompile.page.variant import describe_variant, original_file

_SHOWN: Final = 10
"""Products in the table of the most sensitive ones; the table of nodes has all."""


def describe_sensitivity(
    report: SensitivityReport,
    config: CompileConfig,
    options: EvalOptions,
    samples: Samples,
    *,
    progress: Tell | None = None,
) -> Page:
    """Compiles the model with every product quantized, looks at it, and puts all that is known together.

    Args:
        report: What was found.
        config: What was quantized, and how.
        options: With which settings.
        samples: The data that it was found on.
        progress: Called with the phase and its steps.

    Raises:
        MxCompileError: See `describe_variant` and `compile_model`.
    """
    tell = progress or (lambda phase, done, total: None)
    session: dict[str, Any] = {"threads": options.threads, "library": options.library}
    known: dict[str, Any] = {
        "kl": {each.layer: each.alone.kl for each in report.products if each.alone.kl is not None},
        "sqnr_db": {each.layer: each.sqnr_db for each in report.products},
    }
    with (
        tempfile.TemporaryDirectory(prefix="mxcompile-") as folder,
        original_file(report.source, options.task, tell) as plain,
    ):
        file = Path(folder, "everything.onnx")
        overrides = tuple((glob.escape(each.layer), each.weights, each.activations) for each in report.products)
        quantized: dict[str, Any] = {
            "weights": NONE,
            "activations": NONE,
            "overrides": overrides,
            "kv_blocking": config.kv_blocking,
        }
        compile_model(plain, output=file, kv_cache="float", progress=tell, **quantized)
        variant = describe_variant(config.format, file, plain, samples, **session, **known, progress=tell)
        float_energy = energy_of(plain, samples)
    return sensitivity_page(report, config, options, samples, variant, float_energy)


def sensitivity_page(
    report: SensitivityReport,
    config: CompileConfig,
    options: EvalOptions,
    samples: Samples,
    variant: Variant,
    float_energy: float | None,
) -> Page:
    """The page of a ranking, from what is known.

    Args:
        report: What was found.
        config: What was quantized, and how.
        options: With which settings.
        samples: The data.
        variant: The model with every product quantized.
        float_energy: See `energy_of`.
    """
    name = Path(report.source).name
    most = report.products[0]
    return Page(
        title=f"{name}: what the quantization of each product does",
        lead=f"Every product was quantized alone, and left out alone, on {data_line(report.data)}. "
        f"Most sensitive is {most.layer}.",
        headline=_headline(report),
        summary=tuple(_tables(report, variant)),
        settings={
            "formats": config.format,
            "values in blocks of a": config.kv_blocking,
            **facts.data_settings(report.data, options),
            **facts.energy_settings(samples, ENGINE, TECHNOLOGY),
        },
        provenance={
            **facts.versions(options.library),
            **facts.model_facts("model", report.source),
            **facts.data_facts(report.data),
        },
        variants=(variant,),
        points=_points(report, variant, float_energy),
    )


def _headline(report: SensitivityReport) -> dict[str, str]:
    everything, selection = report.everything, report.selection
    pair, increase = everything.perplexity, everything.perplexity_increase
    return facts.described(
        {
            "products": str(len(report.products)),
            "perplexity, everything quantized": None
            if pair is None
            else f"{pair.reference:.4g} -> {pair.quantized:.4g}",
            "its growth": None if increase is None else f"{increase:+.2%}",
            "KL divergence, nats": None if everything.kl is None else f"{everything.kl:.4g}",
            "SQNR": f"{everything.sqnr_db:.2f} dB" if everything.kl is None else None,
            "products to leave in float": None if selection is None else str(len(selection.excluded)),
        }
    )


def _tables(report: SensitivityReport, variant: Variant) -> list[Table]:
    figure = "dB" if report.everything.kl is None else "KL"
    columns = (
        "product",
        f"alone, {figure}",
        "alone, perplexity",
        f"others, {figure}",
        "others, perplexity",
        "own SQNR",
    )
    rows = tuple(_row(product) for product in report.products[:_SHOWN])
    note = "Alone: it alone is quantized. Others: everything but it. Own SQNR: of its result, on its inputs in float."
    tables = [Table("The most sensitive products", columns, rows, note)]
    if report.selection is not None:
        left = report.selection
        found = (
            ("allowed", f"{left.max_ppl_increase:+.2%}"),
            ("then", "-" if left.change.perplexity_increase is None else f"{left.change.perplexity_increase:+.2%}"),
            ("weights in float for it", f"{left.elements:,}"),
            ("options of compile", left.options or "none needed"),
        )
        title = f"{len(left.excluded)} products in float keep the bound on the growth of perplexity"
        tables.append(Table(title, ("", ""), found))
    skipped = facts.skipped_table(variant)
    return [*tables, facts.format_table(variant), *([] if skipped is None else [skipped])]


def _row(product: ProductSensitivity) -> tuple[str, ...]:
    cells = [cell for change in (product.alone, product.others) for cell in _cells(change)]
    return (product.layer, *cells, _decibels(product.sqnr_db))


def _cells(change: Change) -> tuple[str, str]:
    first = _decibels(change.sqnr_db) if change.kl is None else f"{change.kl:.5f}"
    return first, "-" if change.perplexity_increase is None else f"{change.perplexity_increase:+.2%}"


def _decibels(ratio: float) -> str:
    return f"{ratio:.2f} dB" if math.isfinite(ratio) else "no difference"


def _points(report: SensitivityReport, variant: Variant, float_energy: float | None) -> tuple[Point, ...]:
    """The original, the model with everything quantized, and the selection, whose energy nobody estimated."""
    everything, selection, nodes = report.everything, report.selection, variant.nodes
    points = [
        facts.float_point(float_energy, everything.perplexity_increase, everything.kl),
        Point(
            variant.name,
            "format",
            facts.mean_bits(nodes),
            facts.total_energy(nodes),
            everything.perplexity_increase,
            everything.kl,
        ),
    ]
    if selection is not None:
        left = set(selection.excluded)
        mixed = [
            dataclasses.replace(node, bits=node.bits and FLOAT_BITS) if node.layer in left else node for node in nodes
        ]
        change = selection.change
        points.append(Point("selection", "chosen", facts.mean_bits(mixed), None, change.perplexity_increase, change.kl))
    return tuple(points)
