"""The page of a comparison of formats."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mxcompile.evaluation.compare import CompareOptions, compare
from mxcompile.evaluation.compare_original import Original
from mxcompile.evaluation.compare_report import ComparedFormat, CompareReport
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.show import data_line
from mxcompile.evaluation.show_compare import Column, cells, cost_columns, explanations, quality_columns
from mxcompile.evaluation.switched_model import Tell
from mxcompile.page import facts
from mxcompile.page.content import Page, Point, Table, Variant
from mxcompile.page.variant import describe_variant

_SIZES: Final = (
    "Bits: stored bits of a quantized weight, scales included; of all: the mean over all linear layers, those left in "
    "float included; KV/token: bytes of the key-value cache for each token in it."
)


def describe_comparison(
    source: str, wanted: CompareOptions, options: EvalOptions, *, progress: Tell | None = None
) -> tuple[CompareReport, Page]:
    """Compares formats, looks at every compiled model, and puts all that is known together.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        wanted: What to compare.
        options: With which settings.
        progress: Called with the phase and its steps.

    Raises:
        MxCompileError: See `compare` and `describe_variant`.
    """
    tell, variants = progress or (lambda phase, done, total: None), list[Variant]()

    def told(name: str, phase: str, done: int, total: int) -> None:
        tell(f"{name}: {phase}", done, total)

    def look(name: str, compiled: Path, original: Original) -> None:
        variant = describe_variant(
            name,
            compiled,
            original.path,
            original.samples,
            engine=wanted.engine,
            technology=wanted.technology,
            threads=options.threads,
            library=options.library,
            phases=original.phases,
            progress=functools.partial(told, name),
        )
        variants.append(variant)

    report = compare(source, wanted, options, progress=tell, look=look)
    return report, comparison_page(report, wanted, options, variants)


def comparison_page(
    report: CompareReport, wanted: CompareOptions, options: EvalOptions, variants: Sequence[Variant]
) -> Page:
    """The page of a comparison, from what is known.

    Args:
        report: What was found.
        wanted: What was compared.
        options: With which settings.
        variants: The model in every format.
    """
    _, *formats = report.rows
    best, figure = _nearest(formats)
    return Page(
        title=f"{Path(report.source).name}: {', '.join(row.format for row in formats)}",
        lead=f"Nearest to the original is {best.format}: {figure}, measured on {data_line(report.data)}.",
        headline={row.format: _described(row) for row in formats},
        summary=tuple(_tables(report)),
        settings=_settings(report, wanted, options),
        provenance={
            **facts.versions(options.library),
            **facts.model_facts("original", report.source),
            **facts.data_facts(report.data),
        },
        variants=tuple(variants),
        points=tuple(_point(row, row is report.rows[0]) for row in report.rows),
    )


def _nearest(formats: Sequence[ComparedFormat]) -> tuple[ComparedFormat, str]:
    """The format of the least divergence, or of the least noise where there is none, and that figure."""
    divergences = {row: row.quality.kl for row in formats if row.quality.kl is not None}
    if divergences:
        best = min(divergences, key=lambda row: divergences[row])
        return best, f"a KL divergence of {divergences[best]:.4g} nats"
    best = max(formats, key=lambda row: row.quality.sqnr_db)
    return best, f"an SQNR of {best.quality.sqnr_db:.2f} dB"


def _described(row: ComparedFormat) -> str:
    """The figure that a format is known by."""
    quality = row.quality
    if quality.perplexity_increase is not None:
        return f"{quality.perplexity_increase:+.2%} perplexity"
    return f"{quality.sqnr_db:.2f} dB" if quality.kl is None else f"KL {quality.kl:.4g}"


def _tables(report: CompareReport) -> list[Table]:
    """Quality and size; cost and speed, if there are any; notes, if there are any."""
    lines = explanations(report)
    about = "; ".join(lines[: len(lines) - len(report.notes)])
    tables = [_table("Quality and size", report, quality_columns(report), _SIZES)]
    if columns := cost_columns(report):
        tables.append(_table("Cost and speed", report, columns, f"{about[0].upper()}{about[1:]}."))
    if report.notes:
        rows = tuple((", ".join(note.formats), note.text) for note in report.notes)
        tables.append(Table("Notes", ("format", "why"), rows))
    return tables


def _table(title: str, report: CompareReport, columns: Sequence[Column], note: str) -> Table:
    heads = ("format", *(head.replace("\n", " ") for head, _, _ in columns))
    return Table(title, heads, tuple(tuple(cells(row.to_dict(), columns)) for row in report.rows), note)


def _settings(report: CompareReport, wanted: CompareOptions, options: EvalOptions) -> dict[str, str]:
    found = {
        "formats": ", ".join(wanted.names),
        "included": ", ".join(wanted.include),
        "excluded": ", ".join(wanted.exclude),
        "attention products": "quantized too" if wanted.attention else "left in float",
        "tokens of a prefill": "" if report.prefill is None else str(report.prefill),
        "tokens in the cache of a step": "" if report.decode is None else str(report.decode),
        "rounds of timing": str(report.rounds),
        "energy": f"on {report.engine} in {report.technology}",
    }
    return {**{name: text for name, text in found.items() if text}, **facts.data_settings(report.data, options)}


def _point(row: ComparedFormat, original: bool) -> Point:
    return Point(
        "original" if original else row.format,
        "float" if original else "format",
        row.size.bits_per_weight,
        row.cost.prefill_energy_pj_per_token,
        row.quality.perplexity_increase,
        row.quality.kl,
    )
