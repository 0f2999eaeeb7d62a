"""The table of an evaluation on the terminal."""

import math
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from mxcompile.evaluation.flips import Flips
from mxcompile.evaluation.metrics import Figures
from mxcompile.evaluation.report import DataReport, EvalReport
from mxcompile.evaluation.thresholds import Gate, option_name


def show_evaluation(report: EvalReport) -> None:
    """Figures, tasks and thresholds, on stdout."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{report.model} ({report.kind}) against {report.reference}", soft_wrap=True)
    if report.data is not None:
        console.print(data_line(report.data), soft_wrap=True)
    console.print()
    if report.figures is not None:
        rows = figure_rows(report.figures, report.flips)
        console.print(_filled(_table("", "reference", "quantized", ""), rows))
    if report.tasks:
        console.print(_filled(_table("task", "metric", "reference", "quantized"), task_rows(report)))
    for gate in report.gates:
        console.print(gate_line(gate), style="green" if gate.passed else "red", soft_wrap=True)


def data_line(data: DataReport) -> str:
    """What was measured on, in a line."""
    what = f"{data.windows} samples" if data.seq_len is None else f"{data.windows} windows of {data.seq_len} tokens"
    files = data.files[0] if len(data.files) == 1 else f"{len(data.files)} files"
    missing = f" ({len(data.missing)} more are not on this machine)" if data.missing else ""
    return f"{what} from {files}{missing}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def figure_rows(figures: Figures, flips: Flips | None) -> list[tuple[str, str, str, str]]:
    """A row a figure: its name, that of the reference, that of the quantized model, and what else there is to say."""
    rows = []
    if figures.perplexity is not None:
        pair, increase = figures.perplexity, figures.perplexity_increase
        rows.append(("perplexity", f"{pair.reference:.4f}", f"{pair.quantized:.4f}", f"{increase:+.2%}"))
    if figures.kl is not None:
        kl = figures.kl
        rest = f"median {kl.median:.4f}, p99 {kl.p99:.3f}, max {kl.max:.2f}"
        rows.append(("KL divergence", "", f"{kl.mean:.5f}", rest))
    if figures.top1_agreement is not None:
        rows.append(("top-1 agreement", "", f"{figures.top1_agreement:.2%}", ""))
    rows.append(("cosine", "", f"{figures.cosine:.6f}", f"least {figures.least_cosine:.4f}"))
    rows.append(("SQNR", "", "no difference" if figures.sqnr_db == math.inf else f"{figures.sqnr_db:.2f} dB", ""))
    if flips is not None:
        median = "none" if flips.median_first_flip is None else str(flips.median_first_flip)
        rest = f"{flips.flipped_prompts} of {flips.prompts} texts, median first flip {median}"
        rows.append(("flip rate", "", f"{flips.rate:.2%}", rest))
    return rows


def task_rows(report: EvalReport) -> list[tuple[str, str, str, str]]:
    """A row a metric: task, metric, and the results of reference and quantized model."""
    return [
        (task, metric, f"{pair.reference:.4f}", f"{pair.quantized:.4f}")
        for task, values in report.tasks.items()
        for metric, pair in values.items()
    ]


def _filled(table: Table, rows: Iterable[tuple[str, ...]]) -> Table:
    for row in rows:
        table.add_row(*row)
    return table


def gate_line(gate: Gate) -> str:
    """A threshold in a line."""
    bound = "at most" if gate.threshold.startswith("max") else "at least"
    verdict = "ok" if gate.passed else "FAILED"
    return f"{verdict:<8}{option_name(gate.threshold)}: {gate.measured:.6g}, {bound} {gate.allowed:g} is allowed"
