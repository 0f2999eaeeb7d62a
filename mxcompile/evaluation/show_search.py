"""What a search found, on the terminal and as a picture."""

import collections
import importlib.util
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from mxcompile.errors import ConfigError, ExportError
from mxcompile.evaluation.search_report import FrontPoint, SearchReport
from mxcompile.evaluation.show import data_line

PICTURES: Final = (".png", ".svg", ".pdf")
"""Kinds of files that a picture can be."""

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_DPI: Final = 110


def show_search(report: SearchReport) -> None:
    """The front, the candidates for all products, and what was written, on stdout."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{report.source} -> {report.output}", soft_wrap=True)
    console.print(data_line(report.data), soft_wrap=True)
    console.print()
    formats = list(report.front[0].counts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in (report.unit, "ppl", *formats):
        table.add_column(head, justify="right")
    table.add_column("")
    for point in report.front:
        table.add_row(*_cells(point), "predicted")
    for point in report.uniform:
        table.add_row(*_cells(point), "measured")
    console.print(table)
    console.print()
    pair, increase = report.measured.perplexity, report.measured.perplexity_increase
    assert pair is not None  # search takes decoders only
    counts = collections.Counter(product.format for product in report.products)
    mixture = ", ".join(f"{counts[name]} x {name}" for name in formats if counts[name])
    console.print(f"chosen: {mixture}; {report.cost:.4g} {report.unit}", soft_wrap=True)
    console.print(
        f"measured: perplexity {pair.reference:.4f} -> {pair.quantized:.4f} ({increase:+.2%}, predicted "
        f"{report.predicted_increase:+.2%}, allowed {report.max_ppl_increase:+.2%})",
        soft_wrap=True,
    )


def _cells(point: FrontPoint) -> list[str]:
    """A point in a row."""
    counts = (str(count) if count else "-" for count in point.counts.values())
    return [f"{point.cost:.4g}", f"{point.perplexity_increase:+.2%}", *counts]


def check_plot(file: str) -> None:
    """Sees to it, before the long work, that a picture can be drawn.

    Raises:
        ConfigError: Another kind of file.
        ExportError: matplotlib is missing, or the folder is.
    """
    path = Path(file).expanduser()
    if path.suffix not in PICTURES:
        raise ConfigError(f"--plot {file}: is no {', '.join(PICTURES)} file; give one of these")
    if importlib.util.find_spec("matplotlib") is None:
        raise ExportError(f"--plot {file}: needs matplotlib: pip install matplotlib")
    if not path.absolute().parent.is_dir():
        raise ExportError(f"--plot {file}: there is no folder {path.absolute().parent}; make it first")


def plot_search(report: SearchReport, file: str) -> None:
    """Draws the front, the candidates for all products, and the chosen mixture.

    Args:
        report: What was found.
        file: A file of one of `PICTURES`.

    Raises:
        ExportError: It cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    costs = [point.cost for point in report.front]
    increases = [100 * point.perplexity_increase for point in report.front]
    axes.plot(costs, increases, color=_BLUE, marker=".", label="mixtures, predicted")
    for point in report.uniform:
        name = next(fmt for fmt, count in point.counts.items() if count)
        axes.plot(point.cost, 100 * point.perplexity_increase, "s", color=_ORANGE)
        axes.annotate(
            name, (point.cost, 100 * point.perplexity_increase), (6, 3), textcoords="offset points", fontsize=8
        )
    axes.plot([], [], "s", color=_ORANGE, label="one format for all, measured")
    measured = 100 * (report.measured.perplexity_increase or 0.0)
    axes.plot(report.cost, measured, "*", color=_GREEN, markersize=12, label="chosen, measured")
    axes.axhline(100 * report.max_ppl_increase, color=_GREY, linestyle="dashed", linewidth=0.8, label="allowed")
    if min(costs) > 0:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=report.unit, ylabel="growth of perplexity, %")
    axes.set_title(Path(report.source).name, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(Path(file).expanduser(), dpi=_DPI)
    except OSError as error:
        raise ExportError(f"{file}: cannot be written: {error.strerror}; name another file for --plot") from error
