"""A comparison of formats on the terminal, and as CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from mxcompile.cost import text
from mxcompile.evaluation.compare_report import CompareReport
from mxcompile.evaluation.show import data_line

_WIDTH: Final = 100
"""Columns that a table may take, wider terminals aside."""

Column = tuple[str, str, Callable[[float], str]]
"""Head, key of `ComparedFormat.to_dict`, and how a figure is written."""


def _bytes(value: float) -> str:
    return text.number_of(value, "B")


def _rate(value: float) -> str:
    """Tokens a second, to three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_QUALITY: Final[tuple[Column, ...]] = (
    ("ppl", "perplexity", "{:.4f}".format),
    ("change", "perplexity_increase", "{:+.2%}".format),
    ("KL", "kl", "{:.5f}".format),
    ("flips", "flip_rate", "{:.1%}".format),
)
_OTHER_QUALITY: Final[tuple[Column, ...]] = (
    ("KL", "kl", "{:.5f}".format),
    ("top-1", "top1_agreement", "{:.2%}".format),
    ("cosine", "cosine", "{:.6f}".format),
    ("SQNR", "sqnr_db", "{:.2f} dB".format),
)
_SIZE: Final[tuple[Column, ...]] = (
    ("bits", "bits_per_quantized_weight", "{:.2f}".format),
    ("of all", "bits_per_weight", "{:.2f}".format),
    ("file", "file_bytes", _bytes),
    ("KV/token", "kv_bytes_per_token", _bytes),
)


def quality_columns(report: CompareReport) -> tuple[Column, ...]:
    """Columns of quality and size: those that rank models of this kind, and that any row has."""
    quality = _QUALITY if report.kind == "decoder" else _OTHER_QUALITY
    return _present(report, (*quality, *_SIZE))


def cost_columns(report: CompareReport) -> tuple[Column, ...]:
    """Columns of cost and speed that any row has."""
    first = "prefill" if report.unit == "token" else "run"
    columns: tuple[Column, ...] = (
        (f"{first}\nenergy", "prefill_energy_pj_per_token", text.energy),
        ("decode\nenergy", "decode_energy_pj_per_token", text.energy),
        ("engine\narea", "area_um2", text.area),
        (f"{first}\n{report.unit}s/s", "prefill_tokens_per_second", _rate),
        ("of\nfloat", "prefill_speedup", text.ratio),
        ("decode\ntokens/s", "decode_tokens_per_second", _rate),
        ("of\nfloat", "decode_speedup", text.ratio),
    )
    return _present(report, columns)


def _present(report: CompareReport, columns: Sequence[Column]) -> tuple[Column, ...]:
    rows = [row.to_dict() for row in report.rows]
    return tuple(column for column in columns if any(row[column[1]] is not None for row in rows))


def cells(row: dict[str, Any], columns: Sequence[Column]) -> list[str]:
    """A row as it is read; ``-`` for what it does not have."""
    return [row["format"], *("-" if row[key] is None else write(row[key]) for _, key, write in columns)]


def explanations(report: CompareReport) -> list[str]:
    """What the figures are of, and the notes, a line each."""
    lengths = f"a prefill of {report.prefill} tokens" if report.unit == "token" else "a run of one sample"
    if report.decode is not None:
        lengths += f" and a step behind {report.decode}"
    lines = [f"energy a {report.unit} of {lengths}, on {report.engine} in {report.technology}"]
    if report.cost_status is not None:
        lines[0] += f"; the weakest of its figures is {report.cost_status}"
    if report.rounds:
        threads = "all cores" if report.threads is None else f"threads: {report.threads}"
        library = report.isa or "without the library"
        how = f"{library}, {threads}, median of {report.rounds} rounds; compare the ratios, whose times are interleaved"
        lines.append(f"speed of {lengths}, on this machine: {how}")
    return [*lines, *(f"{note}" for note in report.notes)]


def show_comparison(report: CompareReport) -> None:
    """Quality and size, cost and speed, and what they are of, on stdout."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{report.source} ({report.kind})", soft_wrap=True)
    console.print(data_line(report.data), soft_wrap=True)
    wide = Console(markup=False, highlight=False, emoji=False, width=max(console.width, _WIDTH))
    for columns in (quality_columns(report), cost_columns(report)):
        if columns:
            console.print()
            wide.print(_table(report, columns))
    console.print()
    for line in explanations(report):
        console.print(line, soft_wrap=True)


def _table(report: CompareReport, columns: Sequence[Column]) -> Table:
    """A row a format."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("format", vertical="bottom")
    for head, _, _ in columns:
        table.add_column(head, justify="right")
    for row in report.rows:
        table.add_row(*cells(row.to_dict(), columns))
    return table


def to_csv(report: CompareReport) -> str:
    """A line for each row, with the keys of `ComparedFormat.to_dict` at the top; empty where there is no figure."""
    file = io.StringIO()
    rows = [row.to_dict() for row in report.rows]
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
