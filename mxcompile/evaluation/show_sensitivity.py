"""The table of sensitivities on the terminal."""

import math
from typing import Final

from rich.console import Console
from rich.table import Table

from mxcompile.evaluation.sensitivity import ProductSensitivity, Selection, SensitivityReport
from mxcompile.evaluation.show import data_line
from mxcompile.evaluation.switched_model import Change

_WIDTH: Final = 240
"""Columns that a table may take, wider terminals aside."""


def show_sensitivity(report: SensitivityReport) -> None:
    """Every product, the most sensitive first, and what to leave in float, on stdout."""
    console = Console(markup=False, highlight=False, emoji=False)
    formats = sorted({_formats(product) for product in report.products})
    console.print(f"{report.source} ({report.kind})", soft_wrap=True)
    console.print(data_line(report.data), soft_wrap=True)
    console.print(f"everything quantized: {_described(report.everything)}", soft_wrap=True)
    if len(formats) == 1:
        console.print(f"{len(report.products)} products, all in {formats[0]}", soft_wrap=True)
    console.print()
    # Names stay whole, so that they can be searched for and copied; the terminal breaks lines that are too long.
    wide = Console(markup=False, highlight=False, emoji=False, width=max(console.width, _WIDTH))
    wide.print(_products(report, with_formats=len(formats) > 1))
    if report.skipped:
        console.print(f"\n{len(report.skipped)} more products are not quantized with these settings", soft_wrap=True)
    if report.selection is not None:
        console.print()
        _show_selection(console, report.selection)


def _products(report: SensitivityReport, *, with_formats: bool) -> Table:
    """A row a product."""
    figures = ["KL" if report.everything.kl is not None else "dB"]
    figures += ["ppl"] if report.everything.perplexity is not None else []
    heads = [f"{which} {figure}" for which in ("alone", "others") for figure in figures]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("own dB", *heads):
        table.add_column(head, justify="right")
    for head in ("product", *(["formats"] if with_formats else [])):
        table.add_column(head)
    for product in report.products:
        cells = [cell for change in (product.alone, product.others) for cell in _cells(change)]
        formats = [_formats(product)] if with_formats else []
        table.add_row(_decibels(product.sqnr_db), *cells, product.layer, *formats)
    return table


def _formats(product: ProductSensitivity) -> str:
    """Both formats in a word."""
    same = product.activations == product.weights
    return product.weights if same else f"{product.weights}/{product.activations}"


def _cells(change: Change) -> list[str]:
    """The figures of a change in a row: divergence, or else SQNR, and growth of perplexity."""
    first = _decibels(change.sqnr_db) if change.kl is None else f"{change.kl:.5f}"
    return [first] if change.perplexity_increase is None else [first, f"{change.perplexity_increase:+.2%}"]


def _described(change: Change) -> str:
    """A change in words."""
    parts = []
    if change.perplexity is not None:
        pair = change.perplexity
        parts.append(f"perplexity {pair.reference:.4f} -> {pair.quantized:.4f} ({change.perplexity_increase:+.2%})")
    if change.kl is not None:
        parts.append(f"KL {change.kl:.5f}")
    if change.top1_agreement is not None:
        parts.append(f"top-1 {change.top1_agreement:.2%}")
    return ", ".join([*parts, f"SQNR {_decibels(change.sqnr_db)} dB"])


def _decibels(ratio: float) -> str:
    """A ratio of powers; infinite where nothing differs."""
    return "-" if ratio == math.inf else f"{ratio:.2f}"


def _show_selection(console: Console, selection: Selection) -> None:
    """What to leave in float, ready for the command line."""
    console.print(
        f"at most {selection.max_ppl_increase:+.4%} perplexity: {len(selection.excluded)} products in float "
        f"({selection.elements:,} weights); then {_described(selection.change)}",
        soft_wrap=True,
    )
    if selection.excluded:
        console.print(selection.options, soft_wrap=True)
