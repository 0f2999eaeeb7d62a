"""The page of an evaluation."""

import math
from pathlib import Path
from typing import Any

from mxcompile import exporter
from mxcompile.errors import UnsupportedModelError
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.report import EvalReport
from mxcompile.evaluation.show import data_line, figure_rows, gate_line, task_rows
from mxcompile.evaluation.switched_model import Tell
from mxcompile.page import facts
from mxcompile.page.content import Page, Point, Table, Variant
from mxcompile.page.variant import describe_variant, model_file, original_file, token_costs

ENGINE, TECHNOLOGY = "edge-npu", "freepdk45"
"""What energies of an evaluation are estimated for."""


def describe_evaluation(
    report: EvalReport, options: EvalOptions, samples: Samples | None, *, progress: Tell | None = None
) -> Page:
    """Measures what a page shows beyond an evaluation, and puts all of it together.

    Args:
        report: What was found.
        options: With which settings.
        samples: The data that it was found on; None if only tasks were run.
        progress: Called with the phase and its steps.

    Raises:
        MxCompileError: See `describe_variant`.
    """
    tell = progress or (lambda phase, done, total: None)
    file = model_file(report.model)
    session: dict[str, Any] = {"threads": options.threads, "library": options.library}
    recorded = facts.recorded_facts(file)
    name = recorded.get("formats", file.name)
    with original_file(report.reference, options.task or recorded.get("export task"), tell) as plain:
        variant = describe_variant(name, file, plain, samples, **session, progress=tell)
        float_energy = energy_of(plain, samples)
    return evaluation_page(report, options, samples, variant, float_energy, recorded)


def energy_of(plain: Path, samples: Samples | None, engine: str = ENGINE, technology: str = TECHNOLOGY) -> float | None:
    """Energy of the float model for a token of a prefill, pJ; None if there is no estimate."""
    try:
        with exporter.open_model(str(plain)) as exported:
            (model,) = exported.models.values()
            energy, _ = token_costs(model, samples, engine, technology, [])
    except UnsupportedModelError:  # a reference that is compiled itself
        return None
    return math.fsum(energy.values()) if energy else None


def evaluation_page(
    report: EvalReport,
    options: EvalOptions,
    samples: Samples | None,
    variant: Variant,
    float_energy: float | None,
    recorded: dict[str, str],
) -> Page:
    """The page of an evaluation, from what is known.

    Args:
        report: What was found.
        options: With which settings.
        samples: The data.
        variant: The model.
        float_energy: See `energy_of`.
        recorded: See `facts.recorded_facts`.
    """
    model, reference = Path(report.model).name, Path(report.reference).name or report.reference
    texts = {
        "prompts continued": str(options.prompts) if report.flips else None,
        "new tokens of each": str(options.new_tokens) if report.flips else None,
    }
    return Page(
        title=f"{model} against {reference}",
        lead=_lead(report, variant),
        headline=_headline(report, variant),
        summary=tuple(_tables(report, variant)),
        settings={
            **facts.data_settings(report.data, options),
            **facts.described(texts),
            **facts.energy_settings(samples, ENGINE, TECHNOLOGY),
        },
        provenance={
            **facts.versions(options.library),
            **facts.model_facts("model", report.model),
            **recorded,
            **facts.model_facts("reference", report.reference),
            **facts.data_facts(report.data),
        },
        variants=(variant,),
        points=_points(report, variant, float_energy),
    )


def _lead(report: EvalReport, variant: Variant) -> str:
    """The result in a sentence or two."""
    products = [node for node in variant.nodes if node.product is not None]
    quantized = sum(node.skipped is None for node in products)
    parts = [f"{quantized} of {len(products)} matrix products are quantized."]
    if report.data is not None:
        parts.append(f"Compared on {data_line(report.data)}.")
    if report.failed:
        parts.append("It is not near enough to its original: " + "; ".join(map(str, report.failed)) + ".")
    return " ".join(parts)


def _headline(report: EvalReport, variant: Variant) -> dict[str, str]:
    found, flips, bits = report.figures, report.flips, facts.mean_bits(variant.nodes)
    if found is None:
        return facts.described({"bits a weight, mean": None if bits is None else f"{bits:.3g}"})
    pair, increase = found.perplexity, found.perplexity_increase
    return facts.described(
        {
            "perplexity": None if pair is None else f"{pair.reference:.4g} -> {pair.quantized:.4g}",
            "growth of perplexity": None if increase is None else f"{increase:+.2%}",
            "KL divergence, nats": None if found.kl is None else f"{found.kl.mean:.4g}",
            "top-1 agreement": None if found.top1_agreement is None else f"{found.top1_agreement:.2%}",
            "flip rate": None if flips is None else f"{flips.rate:.2%}",
            "cosine": None if found.kl is not None else f"{found.cosine:.6f}",
            "bits a weight, mean": None if bits is None else f"{bits:.3g}",
        }
    )


def _tables(report: EvalReport, variant: Variant) -> list[Table]:
    tables = []
    if report.figures is not None:
        rows = tuple(figure_rows(report.figures, report.flips))
        tables.append(Table("Outputs", ("figure", "reference", "quantized", ""), rows))
    if report.tasks:
        tables.append(Table("Tasks", ("task", "metric", "reference", "quantized"), tuple(task_rows(report))))
    if report.gates:
        tables.append(Table("Thresholds", ("kept or not",), tuple((gate_line(gate),) for gate in report.gates)))
    skipped = facts.skipped_table(variant)
    return [*tables, facts.format_table(variant), *([] if skipped is None else [skipped])]


def _points(report: EvalReport, variant: Variant, float_energy: float | None) -> tuple[Point, ...]:
    """The original and the model."""
    found = report.figures
    if found is None:
        return ()
    kl = None if found.kl is None else found.kl.mean
    bits, energy = facts.mean_bits(variant.nodes), facts.total_energy(variant.nodes)
    return (
        facts.float_point(float_energy, found.perplexity_increase, kl),
        Point(variant.name, "format", bits, energy, found.perplexity_increase, kl),
    )
