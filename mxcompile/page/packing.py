"""The data of a page as compact JSON: columns instead of records, every text once, nothing twice.

What `assets/data.js` unpacks. Texts are indices into one list, a variant's column that equals that of the first variant
is left out, and a column that is mostly empty keeps only where it is not. Figures that are read, not computed with, are
rounded to `DIGITS`; counts of elements stay exact.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from typing import Any, Final

from mxcompile.page.content import Histogram, Node, Page, Variant

DIGITS: Final = 6
"""Significant digits of a figure: a reader is shown three, and rounding twice should not be seen."""

COARSEST: Final = 12
"""Bins that a histogram keeps at least, however large a page gets."""

TEXTS: Final = ("name", "op", "layer", "role", "product", "weights", "activations", "skipped")
FIGURES: Final = ("block", "k", "n", "bits", "sqnr_db", "kl", "energy_pj", "macs")

_Cell = int | float | None


@dataclasses.dataclass
class _Pool:
    """Things by the order in which they were first seen."""

    indices: dict[Any, int] = dataclasses.field(default_factory=dict)

    def index(self, item: Any) -> int:
        return self.indices.setdefault(item, len(self.indices))


def pack(page: Page) -> dict[str, Any]:
    """The variants and points of a page for the script in it.

    Args:
        page: The report.

    Returns:
        Plain values without NaN or infinity: ``strings``, ``grids``, ``variants`` and ``points``.
    """
    strings, grids = _Pool(), _Pool()
    variants: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for variant in page.variants:
        columns = _columns(variant.nodes, strings)
        first = first or columns
        variants.append(
            {
                "name": variant.name,
                "notes": variant.notes,
                "size": len(variant.nodes),
                "nodes": {key: cells for key, cells in columns.items() if cells is first[key] or cells != first[key]},
                "histograms": [_histogram(each, strings, grids) for each in variant.histograms],
            }
        )
    points = [{key: _rounded(value) for key, value in dataclasses.asdict(point).items()} for point in page.points]
    return {
        "strings": list(strings.indices),
        "grids": [[_rounded(level) for level in grid] for grid in grids.indices],
        "variants": variants,
        "points": points,
    }


def to_json(packed: dict[str, Any]) -> str:
    """The packed data as text that can stand in a ``script`` element: nothing in it ends the element.

    Args:
        packed: What `pack` gives.
    """
    text = json.dumps(packed, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def coarser(page: Page) -> Page:
    """The page with half as many bins in each histogram, but not fewer than `COARSEST`.

    Args:
        page: The report.

    Returns:
        The same page where no histogram has bins to spare.
    """
    variants = tuple(
        dataclasses.replace(variant, histograms=tuple(_halved(each) for each in variant.histograms))
        for variant in page.variants
    )
    return page if variants == page.variants else dataclasses.replace(page, variants=variants)


def bins(page: Page) -> int:
    """Bins of the finest histogram of a page."""
    return max((len(each.counts) for variant in page.variants for each in variant.histograms), default=0)


def columns_shown(variants: Sequence[Variant]) -> tuple[str, ...]:
    """The figures that some node of some variant has."""
    nodes = [node for variant in variants for node in variant.nodes]
    return tuple(key for key in FIGURES if any(getattr(node, key) is not None for node in nodes))


def _columns(nodes: Sequence[Node], strings: _Pool) -> dict[str, Any]:
    texts = {
        key: _column([None if (text := getattr(node, key)) is None else strings.index(text) for node in nodes])
        for key in TEXTS
    }
    return texts | {key: _column([_rounded(getattr(node, key)) for node in nodes]) for key in FIGURES}


def _column(cells: list[_Cell]) -> Any:
    """A column as a list, or what it has and where, if that is shorter."""
    at = [index for index, cell in enumerate(cells) if cell is not None]
    return cells if 2 * len(at) > len(cells) else {"at": at, "cells": [cells[index] for index in at]}


def _histogram(each: Histogram, strings: _Pool, grids: _Pool) -> dict[str, Any]:
    return {
        **{key: strings.index(getattr(each, key)) for key in ("layer", "operand", "format")},
        "edges": _edges(each.edges),
        "counts": each.counts,
        "levels": grids.index(each.levels),
        "level_counts": each.level_counts,
        "elements": each.elements,
        "sqnr_db": _rounded(each.sqnr_db),
    }


def _edges(edges: tuple[float, ...]) -> Any:
    """Evenly spaced borders as first, step and last, of which the last step may be shorter; others as they are."""
    step = edges[1] - edges[0]
    even = all(math.isclose(b - a, step, rel_tol=1e-6) for a, b in itertools.pairwise(edges[:-1]))
    last_fits = edges[-1] - edges[-2] <= step * (1 + 1e-6)
    if not (even and last_fits):
        return [float(f"{edge:.6g}") for edge in edges]
    return {"first": edges[0], "step": step, "last": edges[-1]}


def _halved(each: Histogram) -> Histogram:
    if len(each.counts) < 2 * COARSEST:
        return each
    edges = each.edges[:-1:2] + each.edges[-1:]
    counts = tuple(sum(each.counts[at : at + 2]) for at in range(0, len(each.counts), 2))
    return dataclasses.replace(each, edges=edges, counts=counts)


def _rounded(value: Any) -> Any:
    """A float with the digits that are shown, None if it is no finite number; anything else as it is."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short
