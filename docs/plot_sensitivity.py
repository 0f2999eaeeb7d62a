"""Draws the picture of docs/sensitivity.md: ``python docs/plot_sensitivity.py FILE.json [FOLDER]``.

FILE.json is what ``mxcompile sensitivity examples/demo-model --json`` prints. Needs matplotlib (``pip install
'.[docs]'``).
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from pictures import save_figure

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
GREY, BLUE, ORANGE = "#777777", "#0072B2", "#D55E00"


def sensitivities(report: dict[str, Any]) -> Figure:
    """Divergence of each product alone, and what all the others lose less without it."""
    products = report["products"]
    everything = report["everything"]["kl"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 6.4), sharey=True, layout="constrained")
    rows = range(len(products))
    colours = [ORANGE if product["attention"] else BLUE for product in products]
    left.barh(rows, [product["alone"]["kl"] for product in products], color=colours)
    right.barh(rows, [everything - product["others"]["kl"] for product in products], color=colours)
    names = [
        product["layer"].removeprefix("/model/layers.").replace("/self_attn", "").replace("/mlp", "")
        for product in products
    ]
    left.set_yticks(rows, names, fontsize=7)
    left.invert_yaxis()
    left.set_title("this product alone quantized", fontsize=10)
    right.set_title(f"all but this one: how much is won of {everything:.3f}", fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("KL divergence, nats")
        axes.axvline(0, color=GREY, linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    for label, colour in (("linear layer", BLUE), ("attention product", ORANGE)):
        left.barh([0], [0], color=colour, label=label)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def main() -> None:
    """Draws it."""
    report = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "images"
    save_figure(sensitivities(report), folder / "sensitivity.png")


if __name__ == "__main__":
    main()
