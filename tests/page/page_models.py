"""Pages built from plain values: what a command would fill in for a small decoder."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from mxcompile.page.content import Histogram, Node, Page, Point, Table, Variant

LINEAR = {
    "self_attn/q_proj": (64, 64),
    "self_attn/k_proj": (64, 32),
    "self_attn/v_proj": (64, 32),
    "self_attn/o_proj": (64, 64),
    "mlp/gate_proj": (64, 160),
    "mlp/up_proj": (64, 160),
    "mlp/down_proj": (160, 64),
}
ATTENTION = {"self_attn/qk": "qk", "self_attn/pv": "pv"}
ORDER = (*tuple(LINEAR)[:3], *ATTENTION, *tuple(LINEAR)[3:])
FP4 = (-6.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
HOSTILE = "<script>alert(1)</script> \"quoted\" 'single' & déjà 日本 </style> ${x}"
"""A name that would break a page which takes names for markup."""


@functools.cache
def _counted(bins: int, seed: int) -> dict[str, Any]:
    """Normally distributed values in bins, and rounded to the nearest of 15 levels."""
    values = np.random.default_rng(seed).normal(0.0, 1.6, 4000).clip(-6, 6)
    counts, edges = np.histogram(values, bins=bins, range=(-6, 6))
    levels = np.array(FP4)
    nearest = np.abs(values[:, None] - levels[None]).argmin(axis=1)
    error = values - levels[nearest]
    return {
        "edges": tuple(map(float, edges)),
        "counts": tuple(map(int, counts)),
        "levels": FP4,
        "level_counts": tuple(map(int, np.bincount(nearest, minlength=len(levels)))),
        "elements": values.size,
        "sqnr_db": float(10 * np.log10((values**2).sum() / (error**2).sum())),
    }


def histogram(layer: str, operand: str, number_format: str, *, bins: int = 96, seed: int = 0) -> Histogram:
    """One of eight samples of values."""
    return Histogram(layer=layer, operand=operand, format=number_format, **_counted(bins, seed % 8))


def product(block: int, role: str, weights: str | None, activations: str | None) -> Node:
    """A product of a block; the last block's down projection is left in float."""
    k, n = LINEAR.get(role, (16, None))
    skipped = None if weights else "excluded by --exclude"
    depth = 1 + 0.1 * block + 0.05 * ORDER.index(role)
    return Node(
        name=f"/model/layers.{block}/{role}/MatMul",
        op="MatMul",
        layer=f"model/layers.{block}/{role}",
        block=block,
        role=role,
        product=ATTENTION.get(role, "linear"),
        weights=weights,
        activations=activations,
        skipped=skipped,
        k=k,
        n=n,
        bits=None if role in ATTENTION else 4.5 if weights else 32.0,
        sqnr_db=20.0 / depth if weights else None,
        kl=1e-4 * math.exp(2 * depth) if weights else None,
        energy_pj=1000.0 * k * depth,
        macs=float(k * (n or 64)),
    )


def other(name: str, op: str, block: int | None) -> Node:
    """A node that is no product."""
    return Node(name=name, op=op, layer=name, block=block, role=op.lower(), energy_pj=12.5)


def nodes(blocks: int, weights: str, activations: str, *, others: int = 4, name: str | None = None) -> list[Node]:
    """A decoder in graph order; the last down projection is in float, the head stands after the blocks."""
    made = [other("/model/embed/Gather", "Gather", None)]
    for block in range(blocks):
        made += [other(f"/model/layers.{block}/norm/Op_{at}", "Mul", block) for at in range(others)]
        for role in ORDER:
            left = block == blocks - 1 and role == "mlp/down_proj"
            made.append(product(block, role, None if left else weights, None if left else activations))
    head = product(0, "self_attn/q_proj", "mxfp8_e4m3", "mxfp8_e4m3")
    made.append(dataclasses.replace(head, name=name or "/lm_head/MatMul", layer="lm_head", block=None, role="lm_head"))
    return [*made, other("/output/Cast", "Cast", None)]


def variant(
    name: str,
    weights: str,
    activations: str,
    *,
    blocks: int = 3,
    others: int = 4,
    bins: int = 96,
    head: str | None = None,
) -> Variant:
    """A form of the decoder with histograms of all its quantized products."""
    made = nodes(blocks, weights, activations, others=others, name=head)
    operands = {"linear": ("weights", "activations"), "qk": ("queries", "keys"), "pv": ("probabilities", "values")}
    histograms = tuple(
        histogram(node.layer, operand, node.weights, bins=bins, seed=at)
        for at, node in enumerate(made)
        if node.product and node.weights
        for operand in operands[node.product]
    )
    return Variant(name, tuple(made), histograms, notes=("Energy of attention is that of a prefill of 64 tokens.",))


def points() -> tuple[Point, ...]:
    """The original, formats, mixtures, and the mixture that was written."""
    return (
        Point("float32", "float", bits=32.0, energy_pj=9e6, perplexity_increase=0.0, kl=0.0),
        Point("amxfp4", "format", bits=4.5, energy_pj=1.1e6, perplexity_increase=0.041, kl=0.021),
        Point("mxfp4", "format", bits=4.25, energy_pj=1.0e6, perplexity_increase=0.112, kl=0.055),
        Point("mxfp8_e4m3", "format", bits=8.25, energy_pj=2.3e6, perplexity_increase=0.004, kl=0.002),
        Point("int4", "format", bits=4.5, energy_pj=1.2e6, perplexity_increase=0.193, kl=0.094),
        Point("5 bits", "mixture", bits=5.0, energy_pj=1.3e6, kl=0.015),
        Point("6 bits", "mixture", bits=6.0, energy_pj=1.6e6, kl=0.008),
        Point("5.5 bits, written", "chosen", bits=5.5, energy_pj=1.45e6, perplexity_increase=0.021, kl=0.011),
    )


def page(**changes: object) -> Page:
    """A report with two forms of the decoder, of which the first has a product with a hostile name."""
    made = Page(
        title="tiny-decoder in amxfp4",
        lead="Perplexity grows by 4.1%, from 12.31 to 12.81, at 4.5 bits a weight.",
        headline={"perplexity": "12.81", "growth": "4.1%", "bits a weight": "4.5", "energy for a token": "1.1 uJ"},
        summary=(
            Table(
                "Fidelity",
                ("output", "cosine", "SQNR", "verdict"),
                (("logits", "0.9987", "21.3 dB", "good"), ("hidden <states>", "0.9971", "19.8 dB", "good")),
                "On 64 tokens.",
            ),
        ),
        settings={"weights": "amxfp4", "activations": "amxfp4", "exclude": "*.2/mlp/down_proj"},
        provenance={"mxcompile": "0.1.0", "model": "tiny-decoder", "sha256 of model.onnx": "3f" * 32},
        variants=(
            variant("amxfp4", "amxfp4", "amxfp4", head=HOSTILE),
            variant("mxfp4 with int8", "mxfp4", "int8", head=HOSTILE),
        ),
        points=points(),
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]
