"""Draws the pictures of docs/kernels.md from what benchmarks/matmul.py measured.

``python benchmarks/matmul.py --tables products sweep --json FILE``, then ``python docs/plot_kernels.py FILE [FOLDER]``.
Needs matplotlib (``pip install '.[docs]'``).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import save_figure

Rows = list[dict[str, Any]]

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
COLORS: Final = {
    "float32": "#777777",
    "MatMulNBits": "#000000",
    "amxfp4": "#0072B2",
    "mxfp4": "#D55E00",
    "dint4": "#009E73",
}
CLOCK: Final = 4.1
"""GHz of the machine that the pictures are of: what 1.05e12 multiply-adds by vpdpbusd in a second amount to."""

CEILINGS: Final = {"vpdpbusd": 128, "vdpbf16ps": 64, "float32 multiply-adds": 32}
"""Multiply-adds in a cycle of one core."""


def tables_of(path: Path, title: str) -> list[dict[str, Any]]:
    """The tables of a benchmark's JSON file whose titles have this in them."""
    tables = [table for table in json.loads(path.read_text("utf-8"))["tables"] if title in table["title"]]
    if not tables:
        raise SystemExit(f"{path}: no table '...{title}...': measure with --tables products sweep")
    return tables


def figure() -> tuple[Figure, Axes]:
    """An empty picture."""
    return plt.subplots(figsize=(9.0, 4.6), layout="constrained")


def finish(axes: Axes) -> None:
    """What all pictures have."""
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plot_roofline(path: Path) -> Figure:
    """Multiply-adds in a second over multiply-adds for a byte of weights, and what bounds them."""
    (table, *_) = tables_of(path, "from memory")
    found = re.search(r"[\d.]+", table["title"])
    assert found is not None
    bandwidth = float(found.group())
    fig, axes = figure()
    x = np.geomspace(0.15, 2000, 200)
    axes.plot(x, np.minimum(bandwidth * x, CLOCK * max(CEILINGS.values())), color="#AAAAAA", linewidth=1.2)
    axes.text(0.17, 0.2 * bandwidth, f"memory: {bandwidth:g} GB/s", color="#555555", rotation=35, fontsize=9)
    for name, rate in CEILINGS.items():
        axes.axhline(CLOCK * rate, color="#AAAAAA", linewidth=1.2, linestyle="--")
        axes.text(2000, CLOCK * rate * 1.05, name, color="#555555", ha="right", fontsize=9)
    for name, color in COLORS.items():
        rows: Rows = [row for row in table["rows"] if row["weights"] == name]
        k, n = map(int, rows[0]["k x n"].split(" x "))
        rate = [row["m"] * k * n / row["ms"] / 1e6 for row in rows]
        weight_bytes = [row["GB/s of weights"] * row["ms"] * 1e6 for row in rows]
        intensity = [row["m"] * k * n / size for row, size in zip(rows, weight_bytes, strict=True)]
        axes.plot(intensity, rate, "o-", color=color, label=name, markersize=5, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds for a byte of weights", ylabel="G multiply-adds / s")
    axes.set_title(f"{k} x {n}, one thread: m = {', '.join(str(row['m']) for row in rows)}")
    finish(axes)
    return fig


def plot_rows(path: Path) -> Figure:
    """Time over the number of rows."""
    (table,) = tables_of(path, "every m")
    fig, axes = figure()
    for name, color in COLORS.items():
        rows: Rows = [row for row in table["rows"] if row["weights"] == name]
        axes.plot([r["m"] for r in rows], [r["ms"] for r in rows], "o-", color=color, label=name, markersize=3)
    axes.set(xlabel="m, rows of A", ylabel="ms", xlim=(0, None), ylim=(0, None))
    axes.set_title(f"{table['title']}, one thread")
    finish(axes)
    return fig


def main() -> None:
    """Draws both."""
    source = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parent / "images"
    for name, fig in {"kernels-roofline": plot_roofline(source), "kernels-rows": plot_rows(source)}.items():
        save_figure(fig, folder / f"{name}.png")


if __name__ == "__main__":
    main()
