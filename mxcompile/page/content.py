"""What a report page shows, as plain values: commands fill it in, `mxcompile.page.write` draws it."""

import dataclasses
from typing import Literal

ProductKind = Literal["linear", "qk", "pv"]
"""A linear layer, queries times keys, or probabilities times values."""

PointKind = Literal["float", "format", "mixture", "chosen"]
"""The original; one format for all; a predicted mixture of a search; the mixture that was written."""


@dataclasses.dataclass(frozen=True)
class Node:
    """A node of the graph, as the map and the table of nodes show it.

    Attributes:
        name: Name in the graph, unique.
        op: Operator.
        layer: Path of the layer, as patterns of the settings name it; the node's name where it belongs to none.
        block: Index of the repeated block that it lies in; None outside of all.
        role: What it is called in every block, such as ``self_attn/q_proj``.
        product: Kind of matrix product; None of any other node.
        weights: Format of the weights, or of keys or values; None if left in float.
        activations: Format of the other operand; None if left in float.
        skipped: Why a product is left alone; None if it is quantized, or no product.
        k: Length of a product's reduction, where it is known.
        n: Output features of a linear layer.
        bits: Stored bits of a weight, scales included; None without weights.
        sqnr_db: Power of a product's result over that of its error, both on the inputs it has in the float model; None
            if it was not measured.
        kl: Divergence, in nats, if this product alone is quantized; None if it was not measured.
        energy_pj: Energy for a token of a prefill; None if there is no estimate.
        macs: Multiply-accumulates for a token of a prefill.
    """

    name: str
    op: str
    layer: str
    block: int | None
    role: str
    product: ProductKind | None = None
    weights: str | None = None
    activations: str | None = None
    skipped: str | None = None
    k: int | None = None
    n: int | None = None
    bits: float | None = None
    sqnr_db: float | None = None
    kl: float | None = None
    energy_pj: float | None = None
    macs: float | None = None


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Values of one operand of a product, in units of their scale, over the values that the format can express.

    Attributes:
        layer: The product.
        operand: ``weights``, ``activations``, ``queries``, ``keys``, ``probabilities`` or ``values``.
        format: The format.
        edges: Borders of the bins, ascending, in units of the scale, ``[bins + 1]``.
        counts: Elements in each bin before quantization, ``[bins]``.
        levels: Values that the format can express, ascending, in the same units, ``[levels]``; empty where they are too
            many to draw.
        level_counts: Elements that were rounded to each level, ``[levels]``.
        elements: Elements looked at; a sample of a large tensor.
        sqnr_db: Power of these elements over that of their rounding error.
    """

    layer: str
    operand: str
    format: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    levels: tuple[float, ...]
    level_counts: tuple[int, ...]
    elements: int
    sqnr_db: float


@dataclasses.dataclass(frozen=True)
class Variant:
    """One quantized form of the model.

    Attributes:
        name: Its name in the page: a format, or a file.
        nodes: Its nodes in graph order.
        histograms: Of operands of its products.
        notes: Why figures are missing, a sentence each.
    """

    name: str
    nodes: tuple[Node, ...]
    histograms: tuple[Histogram, ...] = ()
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Point:
    """A form of the model in the picture of quality against cost; None where a figure was not measured.

    Attributes:
        name: A format, or what else tells it.
        kind: What it is.
        bits: Stored bits of a weight, mean over the weights of products.
        energy_pj: Energy for a token of a prefill.
        perplexity_increase: Share by which perplexity grows.
        kl: Divergence of the next token's distribution, nats.
    """

    name: str
    kind: PointKind
    bits: float | None = None
    energy_pj: float | None = None
    perplexity_increase: float | None = None
    kl: float | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for reading.

    Attributes:
        title: What it tells.
        columns: Heads; the first column names the row.
        rows: Cells as they are to be read, ``[rows][columns]``.
        note: A sentence below it, or nothing.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: What it is about.
        lead: A sentence or two with the result.
        headline: The few figures that matter, name to value as it is to be read.
        summary: Tables of results.
        settings: What was asked for, name to value.
        provenance: Versions, digests and files, name to value.
        variants: Quantized forms of the model, the first one shown first.
        points: Quality against cost; drawn if there are two or more.
    """

    title: str
    lead: str
    headline: dict[str, str]
    summary: tuple[Table, ...]
    settings: dict[str, str]
    provenance: dict[str, str]
    variants: tuple[Variant, ...]
    points: tuple[Point, ...] = ()
