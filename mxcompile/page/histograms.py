"""Histograms of operands in units of their scales, and of the levels that they are rounded to."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile.evaluation.metrics import sqnr
from mxcompile.formats import Format
from mxcompile.page.content import Histogram
from mxcompile.page.operands import Operand

BINS: Final = 120
"""Bins of a histogram, at most."""

DRAWN_LEVELS: Final = 64
"""Levels that are counted one by one; those of 8-bit formats are too many to tell apart."""

_PIECE: Final = 2**16
"""Elements squared at a time, in float64."""


def describe_operands(operands: Iterable[Operand]) -> Iterator[Histogram]:
    """The histograms of operands, one for each product that reads them; those without an element are left out."""
    for operand in operands:
        rows = operand.rows[np.isfinite(operand.rows).all(axis=-1)]
        if rows.size:
            first = histogram(*operand.uses[0], operand.format, rows)
            yield from (dataclasses.replace(first, layer=layer, operand=name) for layer, name in operand.uses)


def histogram(layer: str, operand: str, fmt: Format, rows: npt.NDArray[np.float32]) -> Histogram:
    """Counts what a format does to rows.

    1. A unit is the scale that an element is quantized with: for formats with a scale for each sign, that of its own
       sign; for nvfp4, the product of both scales; for integers, s, zero staying at zero.
    2. Bins are of equal width over the whole numbers that enclose all elements, but within the power of two above the
       largest level; what lies beyond counts in the outermost bins.
    3. A level counts the elements whose code stands for it.

    Args:
        layer: See `Histogram`.
        operand: See `Histogram`.
        fmt: The format.
        rows: Whole rows, finite float32 ``[rows, k]``, at least one element.
    """
    codes, scales = fmt.encode_rows(rows)
    units, rounded = fmt.row_units(rows, scales), fmt.code_units(codes, scales)
    edges = bin_edges(fmt, float(units.min()), float(units.max()))
    counts, _ = np.histogram(np.clip(units, edges[0], edges[-1]), len(edges) - 1, (edges[0], edges[-1]))
    levels = fmt.levels if len(fmt.levels) <= DRAWN_LEVELS else fmt.levels[:0]
    return Histogram(
        layer=layer,
        operand=operand,
        format=fmt.name,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        levels=tuple(levels.tolist()),
        level_counts=tuple(_level_counts(rounded, levels)),
        elements=rows.size,
        sqnr_db=sqnr(_power(rows), _power(fmt.decode_rows(codes, scales) - rows)),
    )


def bin_edges(fmt: Format, least: float, most: float) -> npt.NDArray[np.float64]:
    """Rule 2 for elements from ``least`` to ``most``: borders of at most `BINS` bins, ascending."""
    bound = 2 ** (math.floor(math.log2(fmt.levels[-1])) + 1)
    low, high = max(math.floor(least), -bound), min(math.ceil(most), bound)
    if low >= high:  # one value, a whole number
        low, high = min(low, bound - 1), min(low, bound - 1) + 1
    span = high - low
    if span <= BINS:  # so many to a unit
        edges = low + np.arange(span * (BINS // span) + 1) / (BINS // span)
    else:  # so many units to a bin
        width = -(-span // BINS)
        edges = low + width * np.arange(-(-span // width) + 1, dtype=np.float64)
    return np.asarray(edges, np.float64)


def _level_counts(rounded: npt.NDArray[np.float32], levels: npt.NDArray[np.float32]) -> list[int]:
    """Rule 3; amxint4 alone has codes beyond its levels, in blocks far from zero, which are not counted."""
    if not len(levels):
        return []
    flat = rounded.ravel()
    places = np.minimum(np.searchsorted(levels, flat), len(levels) - 1)
    counts: list[int] = np.bincount(places[levels[places] == flat], minlength=len(levels)).tolist()
    return counts


def _power(values: npt.NDArray[np.float32]) -> float:
    """The sum of squares, in float64."""
    flat = values.ravel()
    pieces = (flat[start : start + _PIECE].astype(np.float64) for start in range(0, flat.size, _PIECE))
    return math.fsum(float(np.square(piece).sum()) for piece in pieces)  # a dot product's order depends on threads
