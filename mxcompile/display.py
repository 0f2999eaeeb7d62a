"""What people see on a terminal: tables on stdout, settings and progress on stderr. Computes nothing."""

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from mxcompile.config import CompileConfig, cache_obstacle
from mxcompile.conformance_check import CheckReport
from mxcompile.formats import NONE, Format
from mxcompile.report import CompileReport
from mxcompile.selftest import SelftestReport

_PRODUCTS = {None: "linear", "qk": "Q x K", "pv": "P x V"}
"""What kinds of matrix products are called."""

Tell = Callable[[str, int, int], None]
"""A phase, and how much of how many steps is done; 0 of 0 where that is unknown."""


def _console(stderr: bool = False) -> Console:
    """A console of the current stdout or stderr; names with brackets are text, not markup."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def show_settings(model: str, output: str, config: CompileConfig, more: dict[str, Any]) -> None:
    """What will be done, on stderr, before the long work begins.

    Args:
        model: The source.
        output: Where the result goes.
        config: The settings.
        more: Further settings by name; empty ones are not shown.
    """
    settings = {"weights": config.weights, "activations": config.activations}
    settings |= {"attention": _attention(config)}
    settings |= {"include": ", ".join(config.include), "exclude": ", ".join(config.exclude)}
    overrides = (f"{pattern}={weights}/{activations}" for pattern, weights, activations in config.overrides)
    settings |= {"set": ", ".join(overrides), "fuse": "" if config.fuse else "no", **more}
    console = _console(stderr=True)
    console.print(f"{model} -> {output}", style="bold", soft_wrap=True)
    for name, value in settings.items():
        if value:
            console.print(f"  {name}: {value}", soft_wrap=True)


def _attention(config: CompileConfig) -> str:
    """The settings of attention in a line."""
    if config.keys == config.values == NONE:
        return "no"
    formats = {"queries": config.attention, "keys": config.keys, "values": config.values}
    shown = config.keys if len(set(formats.values())) == 1 else ", ".join(f"{k} {v}" for k, v in formats.items())
    blocking = "" if config.kv_blocking == "sequence" else ", values along the features of a token"
    obstacle = cache_obstacle(config.keys, config.values, config.kv_blocking) if config.kv_cache == "float" else ""
    return f"{shown}{blocking}; cache {config.kv_cache}{obstacle and f', for {obstacle}'}"


@contextlib.contextmanager
def progress(bar: bool = True) -> Iterator[Tell]:
    """A bar on stderr if that is a terminal, else one line a phase.

    Args:
        bar: Whether a bar may be shown; with other output between it would be torn.
    """
    console = _console(stderr=True)
    if not (bar and console.is_terminal):
        yield _phase_lines(console)
        return
    columns = [TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True) as shown:
        task: TaskID | None = None
        phase = ""

        def tell(name: str, done: int, total: int) -> None:
            nonlocal task, phase
            if name != phase or task is None:
                if task is not None:
                    shown.remove_task(task)  # A known total cannot become unknown again.
                task, phase = shown.add_task(name, total=None), name
            shown.update(task, completed=done, total=total or None)

        yield tell


def _phase_lines(console: Console) -> Tell:
    last = ""

    def tell(name: str, done: int, total: int) -> None:
        nonlocal last
        if name != last:
            last = name
            console.print(f"  {name}", style="dim", soft_wrap=True)

    return tell


def show_report(report: CompileReport, path: Path) -> None:
    """The result of a compilation.

    Args:
        report: The result.
        path: Where its JSON lies.
    """
    console = _console()
    table = _table("matmuls", "of", "weights", "activations", "why", right=["matmuls"])
    done = ((_PRODUCTS[layer.attention], str(layer.weights), str(layer.activations)) for layer in report.quantized)
    for (product, weights, activations), count in collections.Counter(done).items():
        table.add_row(str(count), product, weights, activations, "")
    for reason, count in collections.Counter(str(layer.skipped) for layer in report.skipped).items():
        table.add_row(str(count), "-", "-", "-", reason)
    console.print(table)
    console.print()
    seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in report.seconds.items())
    bits = "-"
    if report.bits_per_weight is not None:
        bits = f"{report.bits_per_weight:.2f} of the quantized ones, {report.quantized_weights:,}"
    size, ratio = _bytes(report.bytes_after), report.bytes_before / report.bytes_after
    for name, value in {
        "size": f"{_bytes(report.bytes_before)} -> {size} ({ratio:.2f} times smaller)",
        "bits per weight": bits,
        "kv cache": _cache(report),
        "time": f"{sum(report.seconds.values()):.1f} s ({seconds}), peak memory {_bytes(report.peak_memory_bytes)}",
        "output": report.output,
        "report": str(path),
    }.items():
        if value:
            console.print(f"{name + ':':<16} {value}", soft_wrap=True)


def _cache(report: CompileReport) -> str:
    """What the key-value cache holds, in a line; empty where there is none or nobody wanted to pack it."""
    parts = []
    for kind in ("key", "value") if report.kv_cache else ():
        tensor = report.kv_cache and report.kv_cache[kind]
        if tensor:
            blocks = f" in blocks of {tensor['block']} tokens" if tensor["axis"] == "sequence" else ""
            parts.append(f"{kind}s {tensor['format']}{blocks}")
    skipped = list(report.kv_cache_skipped.values())
    if skipped:
        parts.append(f"{len(skipped)} tensors in float{', such as this' if len(skipped) > 1 else ''}: {skipped[0]}")
    return "; ".join(parts)


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} B"


def show_formats(formats: Sequence[Format]) -> None:
    """The table of formats."""
    table = _table("name", "element", "block", "scales", "bits", "description", right=["block", "scales", "bits"])
    for fmt in formats:
        single_bytes = fmt.scales_per_block <= 2
        scales = f"{fmt.scales_per_block} x {fmt.scale_type}" if single_bytes else fmt.scale_type
        bits = f"{fmt.bits_per_element:g}"
        table.add_row(fmt.name, fmt.element.name, str(fmt.block_size or "row"), scales, bits, fmt.description)
    table.add_row("none", "", "", "", "", "leave the operand as it is")
    console = _console()
    console.print(table)
    by_sizes: dict[tuple[int, ...], list[str]] = {}
    for fmt in formats:
        by_sizes.setdefault(tuple(size for size in fmt.block_sizes if size), []).append(fmt.name)
    console.print("\nA block size is part of the name (amxfp4_b16), or --block-size:", soft_wrap=True)
    for sizes, names in by_sizes.items():
        console.print(f"  {', '.join(map(str, sizes))}: {', '.join(names)}", soft_wrap=True)


def show_selftest(report: SelftestReport) -> None:
    """What the selftest found."""
    console = _console()
    for name, value in {
        "library": report.library,
        "version": report.version,
        "isa": report.isa,
        "onnxruntime": report.onnxruntime,
    }.items():
        console.print(f"{name + ':':<12} {value or '-'}", soft_wrap=True)
    for name in dict.fromkeys(check.name for check in report.checks):
        checks = [check for check in report.checks if check.name == name]
        failed = [check for check in checks if not check.ok]
        for check in failed:
            console.print(f"{'FAILED':<12} {name}: {check.detail}", style="red", soft_wrap=True)
        if not failed:
            details = "; ".join(check.detail for check in checks)
            console.print(f"{'ok':<12} {name}: {details}", style="green", soft_wrap=True)


def show_vectors(formats: Sequence[dict[str, Any]], manifest: Path) -> None:
    """The vector files that were written.

    Args:
        formats: Their entries in the manifest.
        manifest: Where that lies.
    """
    table = _table("format", "file", "size", "arrays", right=["size", "arrays"])
    for entry in formats:
        table.add_row(entry["name"], entry["file"], _bytes(entry["bytes"]), str(len(entry["arrays"])))
    console = _console()
    console.print(table)
    console.print(f"\nrules, arrays and value tables: {manifest}", soft_wrap=True)


def show_check(report: CheckReport) -> None:
    """What the comparison of a vector file found: a line an array."""
    table = _table("array", "compared", "differing", "first difference", right=["compared", "differing"])
    for array in report.arrays:
        style = "red" if array.differing else None
        table.add_row(array.name, str(array.compared), str(array.differing), str(array.first or ""), style=style)
    console = _console()
    console.print(table)
    if report.ignored:
        console.print(f"not looked at: {', '.join(report.ignored)}", soft_wrap=True)


def show_embeddings(prompts: Sequence[str], embeddings: Any, similarity: Any) -> None:
    """The cosine of every pair of prompts; for a single prompt, the start of its embedding.

    Args:
        prompts: The prompts.
        embeddings: float32 ``[prompts, features]``.
        similarity: float32 ``[prompts, prompts]``.
    """
    console = _console()
    if len(prompts) == 1:
        start = " ".join(f"{value:.4f}" for value in embeddings[0][:8])
        console.print(f"{len(embeddings[0])} features: {start} ... (all of them: --json)", soft_wrap=True)
        return
    numbers = [str(index + 1) for index in range(len(prompts))]
    table = _table("cosine", *numbers, "prompt", right=numbers)
    for number, prompt, row in zip(numbers, prompts, similarity, strict=True):
        table.add_row(number, *(f"{value:.3f}" for value in row), prompt)
    console.print(table)
