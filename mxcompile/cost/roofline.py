"""The roofline of a run as SVG: what each product attains, under what the array and the DRAM allow."""

import math
from collections.abc import Iterable
from html import escape
from typing import Final

from mxcompile.cost import text
from mxcompile.cost.estimate import ModelCost, NodeCost

WIDTH: Final = 760
HEIGHT: Final = 420
LEFT: Final = 70
RIGHT: Final = 20
STRIP: Final = 80
TOP: Final = 20
BOTTOM: Final = 56
"""Pixels: of the picture, around the axes, and of the strip for products that need no DRAM."""

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart; shapes differ too.
MARKS: Final = {"linear": ("circle", "#0072B2"), "attention": ("triangle", "#D55E00")}
"""Shape and colour of a kind of product."""


def roofline(cost: ModelCost) -> str:
    """An SVG picture; empty if no product reads DRAM.

    Every mark is a product: MACs for each byte of DRAM to the right, MACs a second upwards, both logarithmic. Products
    that need no DRAM stand in a strip on the right.
    """
    nodes = [node for node in cost.nodes if node.macs and node.latency_us]
    from_dram = [node for node in nodes if node.dram_bytes]
    if not from_dram:
        return ""
    bandwidth = cost.plan.engine.dram_bandwidth_bytes_per_s
    peaks = {f"{use.count} x {use.unit.name}": use.lanes * cost.plan.clock_hz for use in cost.plan.arrays}
    intensities = [node.macs / node.dram_bytes for node in from_dram]
    speeds = [1e6 * node.macs / node.latency_us for node in nodes]
    ridge = max(peaks.values()) / bandwidth
    strip = STRIP if len(from_dram) < len(nodes) else 0
    x = _Axis(min(*intensities, ridge) / 2, max(*intensities, ridge) * 2, LEFT, WIDTH - RIGHT - strip)
    y = _Axis(min(speeds) / 2, max(*peaks.values(), *speeds) * 2, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(x, y), *_roofs(peaks, bandwidth, x, y)]
    if strip:
        middle = f'x="{WIDTH - RIGHT - strip / 2:.0f}" y="{HEIGHT - BOTTOM + 18}"'
        parts.append(f'<text class="soft" {middle} text-anchor="middle">no DRAM</text>')
    for node in sorted(nodes, key=lambda node: -node.energy_pj):
        at = x(node.macs / node.dram_bytes) if node.dram_bytes else WIDTH - RIGHT - strip / 2
        parts.append(_mark(node, at, y(1e6 * node.macs / node.latency_us)))
    label = f"Roofline: {len(nodes)} products under the roofs of {len(peaks)} arrays"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


class _Axis:
    """Puts values on a logarithmic axis of whole decades."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    @property
    def decades(self) -> list[float]:
        """The marks of the axis."""
        return [10.0**power for power in range(self.low, self.high + 1)]


def _grid(x: _Axis, y: _Axis) -> Iterable[str]:
    for value in x.decades:
        at = x(value)
        yield f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    for value in y.decades:
        at = y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text.count(value)}</text>'
    middle = (x.start + x.end) / 2
    yield f'<text x="{middle:.0f}" y="{HEIGHT - 14}" text-anchor="middle">MACs for each byte of DRAM</text>'
    turned = f"translate(16 {(HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"
    yield f'<text transform="{turned}" text-anchor="middle">MACs a second</text>'


def _roofs(peaks: dict[str, float], bandwidth: float, x: _Axis, y: _Axis) -> Iterable[str]:
    for index, (name, peak) in enumerate(sorted(peaks.items(), key=lambda item: -item[1])):
        low = max(10.0**x.low, 10.0**y.low / bandwidth)
        ridge, right = peak / bandwidth, 10.0**x.high
        corners = (
            [(low, low * bandwidth), (ridge, peak), (right, peak)] if ridge > low else [(low, peak), (right, peak)]
        )
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in corners)
        yield f'<polyline class="roof{" second" if index else ""}" points="{points}"/>'
        label = f"{name}: {text.count(peak)} MAC/s"
        yield f'<text x="{x.end - 6}" y="{y(peak) - 6:.1f}" text-anchor="end">{escape(label)}</text>'


def _mark(node: NodeCost, x: float, y: float) -> str:
    shape, colour = MARKS.get(node.kind, ("square", "#009E73"))
    title = f"<title>{escape(node.name)}: {text.energy(node.energy_pj)}, {text.time(node.latency_us)}</title>"
    look = f'fill="{colour}" fill-opacity="0.6" stroke="{colour}"'
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {look}>{title}</circle>'
    if shape == "triangle":
        return f'<path d="M{x:.1f} {y - 6:.1f}l6 10h-12z" {look}>{title}</path>'
    return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" {look}>{title}</rect>'
