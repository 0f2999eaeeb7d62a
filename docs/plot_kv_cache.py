"""Draws the pictures of docs/kv-cache.md: ``python docs/plot_kv_cache.py [FOLDER]``.

Needs matplotlib (``pip install '.[docs]'``). Sizes come from `mxcompile.kv_cache`.
"""

import sys
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pictures import save_figure

from mxcompile.formats import get_format
from mxcompile.kv_cache import HEAD_DIM, SEQUENCE, CacheFormat

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
GREY, BLUE, ORANGE, GREEN, PURPLE = "#777777", "#0072B2", "#D55E00", "#009E73", "#AA4499"

LAYERS, HEADS, FEATURES = 32, 8, 128  # as Llama-3.1-8B
CACHES: Final = {  # keys, values, colour, dashes
    "mxfp8_e4m3": ("mxfp8_e4m3", "mxfp8_e4m3", PURPLE, (0, (1, 1))),
    "dint4: keys int8, values dint4_b32": ("int8", "dint4_b32", GREEN, (0, (4, 1, 1, 1))),
    "amxfp4": ("amxfp4", "amxfp4", ORANGE, "solid"),
}
TOKENS, ROWS = 75, 8
"""Of the drawn cache: tokens, and features of a head."""


def sizes() -> Figure:
    """Bytes of caches over the number of tokens."""
    figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
    tokens = np.concatenate([np.arange(16, 1024), np.unique(np.geomspace(1024, 32768, 400).astype(int))])
    plain = tokens * (2 * 2 * LAYERS * HEADS * FEATURES)
    axes.axhline(1, color=GREY, linestyle="dashed", label="float16")
    for label, (keys, values, colour, dashes) in CACHES.items():
        kinds = CacheFormat(get_format(keys), HEAD_DIM), CacheFormat(get_format(values), SEQUENCE)
        total = [LAYERS * sum(kind.nbytes(1, HEADS, int(t), FEATURES, 2) for kind in kinds) for t in tokens]
        axes.plot(tokens, np.array(total) / plain, color=colour, linestyle=dashes, label=label)
    axes.axhline(0.3, color=GREY, linewidth=0.7)
    axes.text(17, 0.31, "0.3", color=GREY, fontsize=8)
    axes.set(xscale="log", xlabel="tokens", ylabel="bytes, of a float16 cache", xlim=(16, 32768), ylim=(0, 1.1))
    axes.set_xticks([32, 128, 512, 2048, 8192, 32768], ["32", "128", "512", "2048", "8192", "32768"])
    axes.set_title("Packed caches: the exact tail of values weighs less and less", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _grid(axes: Axes, title: str) -> None:
    axes.set(xlim=(-0.5, TOKENS + 0.5), ylim=(-1.2, ROWS + 0.5), yticks=[], xticks=[0, 32, 64, TOKENS])
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylabel("features", fontsize=9)
    axes.spines[:].set_visible(False)


def layout() -> Figure:
    """What shares scales, and what is stored, of the keys and values of 75 tokens."""
    figure, (keys, values) = plt.subplots(2, 1, figsize=(7.5, 4.2), layout="constrained")
    _grid(keys, "Keys: every token by itself, packed as it comes")
    for token in range(TOKENS):
        keys.add_patch(Rectangle((token + 0.1, 0), 0.8, ROWS, facecolor=BLUE, alpha=0.75))
    _grid(values, "Values: blocks of 32 tokens of one feature; the tail is exact")
    for row in range(ROWS):
        for start in range(0, TOKENS - 31, 32):
            values.add_patch(Rectangle((start + 0.15, row + 0.1), 31.7, 0.8, facecolor=ORANGE, alpha=0.8))
        for token in range(TOKENS // 32 * 32, TOKENS):
            values.add_patch(Rectangle((token + 0.1, row + 0.1), 0.8, 0.8, facecolor="white", edgecolor=GREY))
    for start, text in ((16, "codes and scales"), (48, "codes and scales"), (64 + (TOKENS - 64) / 2, "tail")):
        values.text(start, -0.9, text, ha="center", fontsize=8)
    values.set_xlabel("tokens")
    return figure


def main() -> None:
    """Writes the pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images")
    for name, draw in (("kv-cache-layout", layout), ("kv-cache-size", sizes)):
        save_figure(draw(), folder / f"{name}.png")


if __name__ == "__main__":
    main()
