"""The page of a search for a mixture of formats."""

from pathlib import Path
from typing import Any

from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.search import SearchOptions
from mxcompile.evaluation.search_report import FrontPoint, SearchReport
from mxcompile.evaluation.show import data_line, figure_rows
from mxcompile.evaluation.switched_model import Tell
from mxcompile.formats import NONE
from mxcompile.page import facts
from mxcompile.page.content import Page, Point, PointKind, Table, Variant
from mxcompile.page.variant import describe_variant, model_file


def describe_search(
    report: SearchReport,
    wanted: SearchOptions,
    options: EvalOptions,
    samples: Samples,
    *,
    progress: Tell | None = None,
) -> Page:
    """Looks at the mixture that was written, and puts all that is known together.

    Args:
        report: What was found.
        wanted: What was searched for.
        options: With which settings.
        samples: The data that it was found on.
        progress: Called with the phase and its steps.

    Raises:
        MxCompileError: See `describe_variant`.
    """
    variant = describe_variant(
        "mixture",
        report.output,
        report.source,
        samples,
        engine=wanted.engine,
        technology=wanted.technology,
        threads=options.threads,
        library=options.library,
        task=options.task,
        kl={each.layer: each.kl for each in report.products if each.format != NONE},
        progress=progress,
    )
    return search_page(report, wanted, options, samples, variant)


def search_page(
    report: SearchReport, wanted: SearchOptions, options: EvalOptions, samples: Samples, variant: Variant
) -> Page:
    """The page of a search, from what is known.

    Args:
        report: What was found.
        wanted: What was searched for.
        options: With which settings.
        samples: The data.
        variant: The mixture that was written.
    """
    increase = report.measured.perplexity_increase or 0.0
    return Page(
        title=f"{Path(report.source).name}: the cheapest mixture within {report.max_ppl_increase:+.2%} perplexity",
        lead=f"{report.cost:.4g} {report.unit}, and perplexity grows by {increase:.2%}, "
        f"measured on {data_line(report.data)}.",
        headline={
            report.unit: f"{report.cost:.4g}",
            "growth of perplexity, measured": f"{increase:+.2%}",
            "predicted": f"{report.predicted_increase:+.2%}",
            "allowed": f"{report.max_ppl_increase:+.2%}",
            "models evaluated": str(report.evaluations),
        },
        summary=tuple(_tables(report, variant)),
        settings=_settings(report, wanted, options, samples),
        provenance={
            **facts.versions(options.library),
            **facts.model_facts("original", report.source),
            **facts.model_facts("result", report.output),
            **facts.recorded_facts(model_file(report.output)),
            **facts.data_facts(report.data),
        },
        variants=(variant,),
        points=_points(report),
    )


def _settings(report: SearchReport, wanted: SearchOptions, options: EvalOptions, samples: Samples) -> dict[str, str]:
    found: dict[str, Any] = {
        "candidates": ", ".join((*wanted.formats, "float")),
        "objective": f"least {report.unit}",
        "growth of perplexity allowed": f"{wanted.max_ppl_increase:.2%}",
        "included": ", ".join(wanted.include),
        "excluded": ", ".join(wanted.exclude),
        "attention products": "searched too" if wanted.attention else "left in float",
    }
    return {
        **{name: text for name, text in found.items() if text},
        **facts.data_settings(report.data, options),
        **facts.energy_settings(samples, wanted.engine, wanted.technology),
    }


def _tables(report: SearchReport, variant: Variant) -> list[Table]:
    formats = [*report.uniform[0].counts]
    columns = ("", report.unit, "perplexity", *(f"{name} products" for name in map(_name, formats)))
    chosen = {fmt: sum(each.format == fmt for each in report.products) for fmt in formats}
    rows = [_row(_uniform_name(point), point, formats) for point in report.uniform]
    found = FrontPoint(report.cost, report.measured.perplexity_increase or 0.0, chosen)
    rows.append(_row("chosen mixture", found, formats))
    front = tuple(_row(str(index), point, formats) for index, point in enumerate(report.front, start=1))
    outputs = Table("Outputs", ("figure", "reference", "quantized", ""), tuple(figure_rows(report.measured, None)))
    measured = Table("One format for all, and the mixture, measured", columns, tuple(rows))
    note = "None is both cheaper and better than another."
    predicted = Table("Mixtures, predicted from the divergences of single products", columns, front, note)
    skipped = facts.skipped_table(variant)
    return [outputs, measured, facts.format_table(variant), predicted, *([] if skipped is None else [skipped])]


def _row(name: str, point: FrontPoint, formats: list[str]) -> tuple[str, ...]:
    counts = (str(point.counts[fmt]) if point.counts[fmt] else "-" for fmt in formats)
    return (name, f"{point.cost:.4g}", f"{point.perplexity_increase:+.2%}", *counts)


def _name(fmt: str) -> str:
    return "float" if fmt == NONE else fmt


def _uniform_name(point: FrontPoint) -> str:
    return next(fmt for fmt, count in point.counts.items() if count)


def _points(report: SearchReport) -> tuple[Point, ...]:
    """Float, the candidates, the predicted front, and what was chosen; costs are those that were minimized."""

    def point(name: str, kind: PointKind, cost: float, increase: float, kl: float | None = None) -> Point:
        cost_of = {"bits": cost} if report.objective == "bits" else {"energy_pj": cost}
        return Point(name, kind, **cost_of, perplexity_increase=increase, kl=kl)

    measured = report.measured
    kl = None if measured.kl is None else measured.kl.mean
    found = [point(_uniform_name(each), "format", each.cost, each.perplexity_increase) for each in report.uniform]
    for index, each in enumerate(report.front, start=1):
        plain = each.counts[NONE] == len(report.products)
        named: tuple[str, PointKind] = ("original", "float") if plain else (f"mixture {index}", "mixture")
        found.append(point(*named, each.cost, each.perplexity_increase))
    return (*found, point("chosen", "chosen", report.cost, measured.perplexity_increase or 0.0, kl))
