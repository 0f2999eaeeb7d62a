"""Draws the pictures of docs/formats.md from the formats themselves: ``python docs/plot_formats.py [FOLDER]``.

Needs matplotlib (``pip install '.[docs]'``). Every value in a picture is encoded or decoded by mxcompile.formats; the
example blocks are literals, so that the pictures are the same on every run.
"""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import save_figure

from mxcompile.formats import FORMATS, Format
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1
from mxcompile.formats.integer import AsymmetricInteger

Floats = npt.NDArray[np.float32]

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
BLACK, GREY, BLUE, ORANGE, GREEN, PURPLE = "#000000", "#777777", "#0072B2", "#D55E00", "#009E73", "#AA4499"
WIDTH: Final = 9.0  # inches

# A block of activations with more weight and an outlier on the positive side.
# fmt: off
BLOCK: Final = np.array([
    0.12, 0.31, 0.45, 0.58, 0.73, 0.81, 0.94, 1.08, 1.17, 1.36, 1.52, 1.75, 1.94, 2.23, 2.61, 3.15, 3.7, 4.4, 5.6, 10.4,
    -0.05, -0.14, -0.22, -0.29, -0.37, -0.46, -0.55, -0.68, -0.79, -0.93, -1.12, -1.35,
], np.float32)
# fmt: on
SEVEN: Final = np.array([7.0], np.float32)
"""A block whose absolute maximum has the significand 1.75: where FLOOR and EVEN part."""

ROW: Final = np.array([-2.0, 4.5], np.float32)


def grid(fmt: Format, row: Floats) -> Floats:
    """Value of every code, float32 ``[2**bits]``, under the scales that the format gives to a row of one block."""
    scales = fmt.quantize(row).scales
    codes = np.arange(1 << fmt.element.bits).astype(np.uint8)
    head = fmt.scale_groups(len(row)) - 1  # NVFP4's tensor scale
    block = np.repeat(scales[head:], fmt.scale_groups(len(codes)) - head, axis=0)
    return np.asarray(fmt.decode_rows(codes, np.concatenate([scales[:head], block])), np.float32)


def scale_values(name: str, row: Floats) -> list[float]:
    """The values of the scales of a row of one block."""
    fmt = FORMATS[name]
    assert isinstance(fmt, BlockScaled)
    return [float(value) for value in fmt.scale.decode_table[fmt.quantize(row).scales].ravel()]


def figure(height: float, rows: int = 1, ratios: list[float] | None = None) -> tuple[Figure, list[Axes]]:
    """An empty picture with panels below each other."""
    options = {"height_ratios": ratios} if ratios else None
    fig, axes = plt.subplots(rows, 1, figsize=(WIDTH, height), squeeze=False, gridspec_kw=options, layout="constrained")
    return fig, list(axes[:, 0])


def number_line(axes: Axes, labels: list[str], limits: tuple[float, float]) -> None:
    """Makes the panel a stack of number lines, the first on top, each with its label on the left."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.6)
    axes.set_xlim(*limits)
    axes.tick_params(axis="y", length=0)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.hlines(range(len(labels)), *limits, colors="#CCCCCC", linewidth=0.8, zorder=0)


def ticks(axes: Axes, y: float, values: npt.ArrayLike, color: str, height: float = 0.5) -> None:
    """Draws the values as strokes on the number line of row y."""
    x = np.asarray(values, np.float64)
    axes.vlines(x[np.isfinite(x)], y - height / 2, y + height / 2, colors=color, linewidth=1.6)


def rms_error(name: str) -> str:
    """Root mean square error of the example block."""
    error = FORMATS[name].fake_quantize(BLOCK).astype(np.float64) - BLOCK
    return f"RMS error {np.sqrt(np.mean(error**2)):.2f}"


def plot_e2m1() -> Figure:
    """The FP4 element with its codes, and where ties go."""
    fig, (axes,) = figure(1.9)
    table = E2M1.decode_table
    number_line(axes, [""], (-6.6, 6.6))
    ticks(axes, 0, table, BLUE)
    axes.set_xticks(np.unique(table), [f"{value:g}" for value in np.unique(table)])
    for code, value in enumerate(table):
        if code != E2M1.sign_bit:  # -0 lies on 0
            axes.text(value, -0.36, f"{code:X}", ha="center", color=BLUE, fontsize=10)
    for index, tie in enumerate(E2M1.thresholds()):
        for sign in (1.0, -1.0):
            target = sign * E2M1.values[index + 1]
            style = {"arrowstyle": "-|>", "color": ORANGE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
            axes.annotate("", (target, 0.36), (sign * tie, 0.36), arrowprops=style)
            axes.plot(sign * tie, 0.36, ".", color=ORANGE, markersize=5)
    axes.set_ylim(0.5, -0.6)
    axes.set_title("E2M1: values, codes in hexadecimal (blue), and where ties go (orange, ties away from zero)")
    return fig


def plot_amxfp4() -> Figure:
    """One block under two scales, and under one."""
    fig, (axes,) = figure(2.9)
    positive, negative = scale_values("amxfp4", BLOCK)
    (single,) = scale_values("mxfp4", BLOCK)
    labels = [
        "a block of 32",
        f"amxfp4\npositive scale {positive:g}\nnegative scale {negative:g}\n{rms_error('amxfp4')}",
        f"mxfp4\nscale {single:g}\n{rms_error('mxfp4')}",
    ]
    number_line(axes, labels, (-13.5, 13.5))
    ticks(axes, 0, BLOCK, BLACK, 0.35)
    values = grid(FORMATS["amxfp4"], BLOCK)
    ticks(axes, 1, values[values < 0], ORANGE)
    ticks(axes, 1, values[values >= 0], BLUE)
    ticks(axes, 2, grid(FORMATS["mxfp4"], BLOCK), GREY)
    axes.set_title("Two scales follow both sides of a block; one scale follows its larger side")
    return fig


def plot_amxint4() -> Figure:
    """The same block on the comparator's grid."""
    fig, (axes,) = figure(2.6)
    codes = FORMATS["amxint4"].quantize(BLOCK).codes.view(np.int8).astype(int)
    reached = grid(FORMATS["amxint4"], BLOCK)[np.arange(codes.min(), codes.max() + 1)]  # -1 is the last code
    labels = [
        "a block of 32",
        f"amxint4\n{len(reached)} levels\n{rms_error('amxint4')}",
        f"amxfp4\n{rms_error('amxfp4')}",
    ]
    number_line(axes, labels, (-2.6, 11.6))
    ticks(axes, 0, BLOCK, BLACK, 0.35)
    ticks(axes, 1, reached, GREEN)
    ticks(axes, 2, grid(FORMATS["amxfp4"], BLOCK), BLUE)
    axes.set_title("amxint4: equal steps from the smallest to the largest element of the block")
    return fig


def plot_scales() -> Figure:
    """How far the largest value under the scale lies above or below a block's extreme."""
    fig, (near, far) = figure(5.6, 2, [1.0, 1.0])
    lines = [  # format, label, colour, width; the wide ones lie below, since the lines partly coincide
        ("amxfp4_pot", "FLOOR (amxfp4_pot, mxfp4)", "#BBBBBB", 6.0),
        ("amxfp4_pot_r", "EVEN (amxfp4_pot_r, mxfp4_even)", ORANGE, 3.6),
        ("amxfp4", "E5M2 (amxfp4)", BLUE, 2.4),
        ("amxfp4_e4m3", "E4M3 (amxfp4_e4m3)", BLACK, 1.2),
    ]
    octaves = np.linspace(4, 32, 1793, dtype=np.float32)
    range_ = np.exp2(np.linspace(-20, 24, 2817, dtype=np.float32))
    for name, label, color, width in lines:
        fmt = FORMATS[name]
        assert isinstance(fmt, BlockScaled)
        panels = [(near, octaves)] + [(far, range_)] * (fmt.scale_type != "E8M0")
        for axes, extreme in panels:
            top = fmt.scale.decode_table[fmt.scale.encode(extreme)] * np.float32(E2M1.maximum)
            ratio = top / extreme
            jumps = np.abs(np.diff(ratio, prepend=ratio[0])) > 0.05 * ratio
            axes.plot(extreme, np.where(jumps, np.nan, ratio), color=color, label=label, linewidth=width)
    near.set_xscale("log", base=2)
    near.set_xticks([4, 6, 7, 8, 12, 14, 16, 24, 28, 32], ["4", "6", "7", "8", "12", "14", "16", "24", "28", "32"])
    near.minorticks_off()
    far.set_xscale("log", base=2)
    far.set_yscale("log", base=2)
    far.set_ylim(2**-4, 2**4)
    for axes in near, far:
        axes.axhline(1, color=GREY, linewidth=0.8)
        axes.set_ylabel("6 x scale / extreme")
    near.set_title("Below 1 the extreme saturates; above 1 codes are wasted")
    near.legend(loc="upper center", ncols=4, fontsize=8, bbox_to_anchor=(0.5, -0.12), frameon=False)
    far.set_title("The range of the 8-bit floats (E8M0 has that of float32)")
    far.set_xlabel("extreme of the block (of the side)")
    return fig


def plot_mxfp4() -> Figure:
    """The two scale rules where they differ most."""
    fig, (axes,) = figure(2.0)
    names = ["mxfp4", "mxfp4_even"]
    labels = [f"{name}\nscale {scale_values(name, SEVEN)[0]:g}" for name in names]
    number_line(axes, labels, (-12.8, 12.8))
    for row, (name, color) in enumerate(zip(names, (BLACK, ORANGE), strict=True)):
        ticks(axes, row, grid(FORMATS[name], SEVEN), color)
    axes.axvline(7, color=PURPLE, linestyle="--", linewidth=1.2)
    axes.text(7.15, 0.5, "7", color=PURPLE, va="center")
    axes.set_title("Grids of a block whose absolute maximum is 7: FLOOR gives 6, EVEN gives 8")
    return fig


def plot_wide(names: list[str], title: str, lowest: float) -> Figure:
    """The non-negative half of wider MX elements for an absolute maximum of 7, linear and logarithmic."""
    fig, (linear, logarithmic) = figure(1.3 + 0.85 * len(names), 2)
    labels = [f"{name}\nscale {scale_values(name, SEVEN)[0]:g}" for name in names]
    number_line(linear, labels, (-0.1, 8.1))
    number_line(logarithmic, labels, (lowest, 10.0))
    logarithmic.set_xscale("log", base=2)
    for row, (name, color) in enumerate(zip(names, (BLUE, ORANGE, GREEN), strict=False)):
        values = grid(FORMATS[name], SEVEN)
        for axes in linear, logarithmic:
            axes.vlines(values[values > 0], row - 0.3, row + 0.3, colors=color, linewidth=0.8)
        linear.vlines(0, row - 0.3, row + 0.3, colors=color, linewidth=0.8)
    linear.set_title(title)
    logarithmic.set_xlabel("the same on a logarithmic axis (without 0)")
    return fig


def plot_nvfp4() -> Figure:
    """A small block beside a large one: the tensor scale puts the block scales into E4M3's range."""
    fig, (axes,) = figure(2.6)
    blocks = [np.array([largest], np.float32) for largest in (6.5, 3.4)]
    fmt = FORMATS["nvfp4"].for_tensor(6.5)
    labels = []
    for block in blocks:
        labels += [f"nvfp4\nblock maximum {block[0]:g}", f"mxfp4\nblock maximum {block[0]:g}"]
    number_line(axes, labels, (-8.2, 8.2))
    for index, block in enumerate(blocks):
        ticks(axes, 2 * index, grid(fmt, block), BLUE)
        ticks(axes, 2 * index + 1, grid(FORMATS["mxfp4"], block), GREY)
        for x in (-block[0], block[0]):
            axes.vlines(x, 2 * index - 0.4, 2 * index + 1.4, colors=PURPLE, linestyles="--", linewidth=1.2)
    axes.set_title("nvfp4: scales with E4M3's precision end the grid at the block's maximum (dashed), or close to it")
    return fig


def plot_integers() -> Figure:
    """The integer grids of a row from -2 to 4.5."""
    fig, (axes,) = figure(2.6)
    names = ["int8", "int4", "dint4", "dint3"]
    number_line(axes, names, (-3.0, 5.1))
    for row, name in enumerate(names):
        fmt = FORMATS[name]
        assert isinstance(fmt, AsymmetricInteger)
        values = grid(fmt, ROW)
        width = 0.5 if name == "int8" else 1.6
        axes.vlines(values[: fmt.top + 1], row - 0.28, row + 0.28, colors=BLUE, linewidth=width)
        axes.vlines(values[fmt.top + 1 :], row - 0.28, row + 0.28, colors=ORANGE, linewidth=2.4)
    axes.set_title("Grids of a row from -2 to 4.5: whole steps (blue), half steps of dINT (orange)")
    return fig


def plot_half_steps() -> Figure:
    """Which code of dint4 a value takes, around zero."""
    fig, (axes,) = figure(1.8)
    fmt = FORMATS["dint4"]
    packed = fmt.quantize(np.array([-6.0, 7.0], np.float32))  # s = 1, z = 6
    zero_point = int(packed.scales[0, 4])
    x = np.arange(-160, 161).astype(np.float32) / 64
    codes, _ = fmt.encode_rows(np.concatenate([np.array([-6.0, 7.0], np.float32), x]))
    codes = codes[2:]
    names = {zero_point + step: f"z{step:+d}" if step else "z" for step in range(-3, 4)} | {14: "14", 15: "15"}
    starts = [0, *(np.flatnonzero(np.diff(codes.astype(int))) + 1), len(x)]
    number_line(axes, [""], (-2.5, 2.5))
    for first, last in itertools.pairwise(starts):
        code = int(codes[first])
        color = ORANGE if code > 13 else BLUE
        axes.plot(x[[first, last - 1]], [0, 0], color=color, linewidth=5, solid_capstyle="butt")
        axes.text((x[first] + x[last - 1]) / 2, -0.18, names[code], ha="center", color=color)
        (value,) = fmt.decode_rows(codes[first : first + 1], packed.scales)
        axes.plot(value, 0.25, "^", color=color, markersize=7)
    axes.set_ylim(0.5, -0.5)
    axes.set_xticks(np.arange(-2.5, 2.75, 0.25), [f"{v:g}" for v in np.arange(-2.5, 2.75, 0.25)], fontsize=8)
    axes.set_title("dint4 around zero, in steps of s: codes of the intervals, and what they decode to (triangles)")
    return fig


PICTURES: Final[dict[str, Callable[[], Figure]]] = {
    "e2m1": plot_e2m1,
    "amxfp4": plot_amxfp4,
    "scales": plot_scales,
    "mxfp4": plot_mxfp4,
    "mxfp6": lambda: plot_wide(["mxfp6_e3m2", "mxfp6_e2m3"], "6 bits, for an absolute maximum of 7", 2.0**-7),
    "mx8": lambda: plot_wide(["mxfp8_e4m3", "mxfp8_e5m2", "mxint8"], "8 bits, for an absolute maximum of 7", 2.0**-30),
    "nvfp4": plot_nvfp4,
    "amxint4": plot_amxint4,
    "integers": plot_integers,
    "half-steps": plot_half_steps,
}
"""Every picture by its file name."""


def main() -> None:
    """Draws all pictures into the folder given, by default docs/images."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "figure.facecolor": "white"})
    for name, draw in PICTURES.items():
        drawn = draw()
        save_figure(drawn, folder / f"{name}.png")
        plt.close(drawn)


if __name__ == "__main__":
    main()
