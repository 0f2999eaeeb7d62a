"""The cost of a model as one HTML file with nothing from outside: cards, bars, roofline, sortable nodes, origins."""

import collections
import string
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from mxcompile.cost import text
from mxcompile.cost.data_files import DATA
from mxcompile.cost.estimate import ENERGIES, ModelCost, NodeCost
from mxcompile.cost.report import CostReport, PhaseCost, coverage, figures
from mxcompile.cost.roofline import MARKS, roofline
from mxcompile.cost.totals import Total

MAXIMUM_ROWS: Final = 500
"""Nodes of a phase in the table: a browser stays quick, and a file small."""

# Okabe and Ito's colours, in an order in which neighbours differ in lightness too.
COLOURS: Final = dict(
    zip(ENERGIES, ("#0072B2", "#F0E442", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#999999"), strict=True)
)

_NODE_COLUMNS: Final = (
    *("node", "energy", "share", "time", "bound", "formats", "MACs", "use of array", "DRAM", "cycles", "op"),
)
_LEFT: Final = ("node", "op", "formats", "bound", "unit", "for", "format", "figure", "origin", "source", "reason")


def to_html(report: CostReport) -> str:
    """The whole page.

    Args:
        report: The cost of a model.
    """
    cost = report.phases[0].cost
    title = f"{report.model} on {report.engine.name}"
    technology = report.technology
    facts = [
        cost.plan.engine.description,
        f"{cost.plan.clock_hz / 1e6:g} MHz",
        f"units of {technology.name}, {technology.node_nm:g} nm",
        f"floating-point numbers in {cost.plan.engine.float_bits} bits",
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape("; ".join(facts))}</p>',
        *(_phase(each, index) for index, each in enumerate(report.phases)),
        _area(report),
        _coverage(cost),
        _origin(report),
    ]
    page = string.Template((DATA / "report.html").read_text("utf-8"))
    return page.substitute(title=escape(f"Cost of {title}"), style=style(), body="\n".join(body))


def style() -> str:
    """The style sheet of all pages that this project writes."""
    return (DATA / "report.css").read_text("utf-8").rstrip("\n")


def _phase(each: PhaseCost, index: int) -> str:
    picture, absent = roofline(each.cost), each.cost.plan.absent
    parts = [
        f"<h2>{escape(each.phase.name.capitalize())}</h2>",
        f'<p class="soft">{escape(text.sizes(each.phase.dims))}</p>',
        _cards(each.total),
        "<h3>Where the energy goes</h3>",
        _energy_bar(each.total),
        *(f'<p class="soft">Not in it: {text.LABELS[part]}, for {escape(why)}.</p>' for part, why in absent.items()),
    ]
    if each.alternatives:
        parts += ["<h3>In other formats</h3>", _comparison(each)]
    if picture:
        parts += ["<h3>Roofline</h3>", f'<div class="scroll" tabindex="0">{picture}</div>', _marks()]
    parts += ["<h3>Nodes</h3>", _nodes(each, index)]
    return "\n".join(parts)


def _cards(total: Total) -> str:
    cards = {
        "energy per token": text.energy(total.energy_pj_per_token),
        "energy of the run": text.energy(total.energy_pj),
        "time at least": text.time(total.latency_us),
        "tokens a second at most": text.count(total.tokens_per_second),
        "of the time waiting for DRAM": text.percent(total.memory_bound_share),
        "of the multipliers in use": text.percent(total.utilization),
        "MACs": text.count(total.macs),
        "from and to DRAM": text.number_of(total.dram_bytes, "B"),
        "arrays and quantizers": text.area(total.area_um2),
    }
    shown = "".join(f"<div class=card><b>{value}</b><span>{name}</span></div>" for name, value in cards.items())
    return f'<div class="cards">{shown}</div>'


def _shares(total: Total) -> dict[str, float]:
    stated = {part: getattr(total, f"{part}_energy_pj") for part in ENERGIES}
    return {part: value for part, value in stated.items() if value}


def _energy_bar(total: Total) -> str:
    shares = _shares(total)
    pieces = "".join(
        f'<i style="flex:{value / total.energy_pj:.6f};background:{COLOURS[part]}" title="{text.LABELS[part]}"></i>'
        for part, value in shares.items()
    )
    legend = "".join(
        f'<li><i style="background:{COLOURS[part]}"></i>{text.LABELS[part]} {text.energy(value)}, '
        f"{text.percent(value / total.energy_pj)}</li>"
        for part, value in shares.items()
    )
    return f'<div class="bar">{pieces}</div><ul class="legend">{legend}</ul>'


def _comparison(each: PhaseCost) -> str:
    rows = [("this model", each.total), *((other.format, other.total) for other in each.alternatives)]
    largest = max(total.energy_pj for _, total in rows)
    bars = []
    for name, total in rows:
        width = 100 * total.energy_pj / largest
        pieces = "".join(
            f'<i style="flex:{value / total.energy_pj:.6f};background:{COLOURS[part]}" title="{text.LABELS[part]}"></i>'
            for part, value in _shares(total).items()
        )
        label = f"{escape(name)}: {text.energy(total.energy_pj)}"
        bars.append(
            f'<p class="soft">{label}</p><div class="bar" style="width:{width:.2f}%;height:1.2rem">{pieces}</div>'
        )
    columns = ("format", "energy", "ratio", "arrays", "DRAM", "time at least", "ratio", "area", "ratio")
    cells = [
        (
            _cell(name),
            _cell(text.energy(total.energy_pj), total.energy_pj),
            _cell(text.ratio(total.energy_pj / each.total.energy_pj)),
            _cell(text.energy(total.mac_energy_pj), total.mac_energy_pj),
            _cell(text.number_of(total.dram_bytes, "B"), total.dram_bytes),
            _cell(text.time(total.latency_us), total.latency_us),
            _cell(text.ratio(total.latency_us / each.total.latency_us)),
            _cell(text.area(total.area_um2), total.area_um2),
            _cell(text.ratio(total.area_um2 / each.total.area_um2)),
        )
        for name, total in rows
    ]
    return "".join(bars) + _table(columns, cells)


def _marks() -> str:
    symbols = {"circle": "●", "triangle": "▲", "square": "■"}
    kinds = [(symbols[shape], colour, kind) for kind, (shape, colour) in MARKS.items()]
    items = (f'<li><span style="color:{colour}">{symbol}</span> {kind}</li>' for symbol, colour, kind in kinds)
    return f'<ul class="legend">{"".join(items)}</ul>'


def _nodes(each: PhaseCost, index: int) -> str:
    ordered = sorted(each.cost.nodes, key=lambda node: node.energy_pj, reverse=True)
    shown = [node for node in ordered[:MAXIMUM_ROWS] if node.energy_pj or node.macs]
    rest = len(ordered) - len(shown)
    note = (
        f'<p class="soft">{rest} other nodes need less than the last one; --format csv lists all.</p>' if rest else ""
    )
    search = f'<input type="search" data-table="nodes{index}" placeholder="Find a node" aria-label="Find a node">'
    rows = [_node_cells(node, each.total.energy_pj) for node in shown]
    return search + _table(_NODE_COLUMNS, rows, name=f"nodes{index}", sortable=True) + (note if rest else "")


def _node_cells(node: NodeCost, whole: float) -> tuple[str, ...]:
    share = node.energy_pj / whole if whole else 0.0
    use = "" if node.utilization is None else text.percent(node.utilization)
    return (
        _cell(node.name),
        _cell(text.energy(node.energy_pj), node.energy_pj),
        _meter(share),
        _cell(text.time(node.latency_us), node.latency_us),
        _cell(node.bound),
        _cell(text.formats(node.a_format, node.b_format)),
        _cell(text.count(node.macs), node.macs),
        _cell(use, node.utilization or 0),
        _cell(text.number_of(node.dram_bytes, "B"), node.dram_bytes),
        _cell(text.count(node.cycles), node.cycles),
        _cell(node.op_type),
    )


def _meter(share: float) -> str:
    """A cell with a share, and a line as long as it."""
    line = f'<i style="width:{100 * share:.1f}%"></i>'
    return f'<td class="meter" data-value="{share:.6g}">{text.percent(share)}{line}</td>'


def _area(report: CostReport) -> str:
    cost, added = report.phases[0].cost, report.phases[0].overhead
    rows = [
        (
            _cell(use.unit.name),
            _cell(", ".join(use.used_for)),
            _cell(str(use.count)),
            _cell(text.area(use.unit.area_um2)),
            _cell(text.area(use.area_um2)),
            _cell(text.percent(use.area_um2 / cost.area_um2)),
        )
        for use in (*cost.plan.arrays, *cost.plan.all_quantizers)
    ]
    lines = [f"Quantizers take {text.percent(added.quantizer_area_share)} of the area"]
    if added.twins:
        share = text.percent(added.asymmetric_area_share)
        lines.append(f"the second scale of a block {share}, against units for one scale")
    return (
        f"<h2>Area: {text.area(cost.area_um2)}</h2>"
        f'<p class="soft">{"; ".join(lines)}. SRAM, vector unit and control are not in it.</p>'
        + _table(("unit", "for", "units", "each", "together", "share"), rows)
    )


def _coverage(cost: ModelCost) -> str:
    found = coverage(cost)
    line = f"{found['counted']} of {found['nodes']} nodes are counted ({text.percent(found['share'])})."
    if cost.uncovered:
        line += f" The others give {text.percent(found['uncovered_element_share'])} of all elements."
    reasons = collections.Counter((each.op_type, each.reason) for each in cost.uncovered)
    rows = [(_cell(op_type), _cell(str(number)), _cell(why)) for (op_type, why), number in reasons.items()]
    return f"<h2>Coverage</h2><p>{line}</p>" + (_table(("op", "nodes", "reason"), rows) if rows else "")


def _origin(report: CostReport) -> str:
    rows = [
        (_cell(name), _cell(value), _cell(""), _cell("assumed"), "<td></td>") for name, value in report.assumed.items()
    ]
    for figure in figures(report.phases[0].cost):
        stated = {key: figure[key] for key in ("area_um2", "energy_pj_per_op", "value") if figure.get(key) is not None}
        values = ", ".join(f"{key.replace('value', '')} {value:.4g}".strip() for key, value in stated.items())
        node = "" if figure["node_nm"] is None else f"{figure['node_nm']:g} nm"
        source = "; ".join(filter(None, (figure["source"], figure.get("remark"))))
        rows.append((_cell(figure["name"]), _cell(values), _cell(node), _cell(figure["status"]), _cell(source)))
    note = "Absolute figures hold for their node and library alone; ratios between formats travel further."
    return f'<h2>Where the figures come from</h2><p class="soft">{note}</p>' + _table(
        ("figure", "value", "node", "origin", "source"), rows, left=("figure", "value", "node", "origin", "source")
    )


def _cell(shown: str, value: float | None = None) -> str:
    if value is None:
        return f"<td>{escape(shown)}</td>"
    return f'<td data-value="{value:.8g}">{escape(shown)}</td>'


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    name: str = "",
    sortable: bool = False,
    left: Sequence[str] = _LEFT,
) -> str:
    def head(column: str) -> str:
        inner = f"<button>{escape(column)}</button>" if sortable else escape(column)
        return f'<th scope="col"{" class=left" if column in left else ""}>{inner}</th>'

    def aligned(column: str, cell: str) -> str:
        return cell.replace("<td", '<td class="left"', 1) if column in left else cell

    lines = ("".join(aligned(column, cell) for column, cell in zip(columns, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    attributes = (f' id="{name}"' if name else "") + (' class="sortable"' if sortable else "")
    heads = "".join(head(column) for column in columns)
    opening = f'<div class="scroll{" tall" if sortable else ""}" tabindex="0"><table{attributes}>'
    return f"{opening}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
