"""Writes the pictures of the documentation in few colours: they are cloned with the repository."""

import io
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure
from PIL import Image

DPI: Final = 110
COLOURS: Final = 64
"""Enough for lines, letters and their soft edges; the files have a third of the bytes."""


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure of matplotlib as a PNG; the same figure gives the same bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, metadata={"Software": None})
    save_png(drawn.getvalue(), path)


def save_png(png: bytes, path: Path) -> None:
    """Writes a PNG with its nearest `COLOURS` colours."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(path, optimize=True)
