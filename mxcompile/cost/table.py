"""The cost of a model on a terminal."""

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table

from mxcompile.cost import text
from mxcompile.cost.estimate import ENERGIES, ModelCost, NodeCost
from mxcompile.cost.report import CostReport, PhaseCost, coverage, figures
from mxcompile.cost.totals import Total


def _part(part: str, total: Total) -> str:
    return text.energy(getattr(total, f"{part}_energy_pj"))


_TOTALS: tuple[tuple[str, Callable[[Total], str]], ...] = (
    ("MACs", lambda t: text.count(t.macs)),
    ("energy", lambda t: text.energy(t.energy_pj)),
    *((f"  {text.LABELS[part]}", functools.partial(_part, part)) for part in ENERGIES),
    ("energy per token", lambda t: text.energy(t.energy_pj_per_token)),
    ("time at least", lambda t: text.time(t.latency_us)),
    ("tokens/s at most", lambda t: text.count(t.tokens_per_second)),
    ("bound", lambda t: f"{t.bound} ({text.percent(t.memory_bound_share)} of the time: DRAM)"),
    ("utilization", lambda t: text.percent(t.utilization)),
    ("DRAM", lambda t: text.number_of(t.dram_bytes, "B")),
    ("MACs per DRAM byte", lambda t: "-" if t.intensity_macs_per_byte is None else f"{t.intensity_macs_per_byte:.3g}"),
    ("power", lambda t: f"{t.power_w:.3g} W"),
)


def show(report: CostReport, top: int, file: TextIO | None = None) -> None:
    """Prints the report: top nodes of every phase, totals, area, comparison, coverage, origin of the figures.

    Args:
        report: The report.
        top: How many nodes of a phase to show.
        file: Where to; None for stdout.
    """
    console = Console(file=file, markup=False, highlight=False, emoji=False)
    cost = report.phases[0].cost
    line = f"{report.model} on {report.engine.name} in {report.technology.name}"
    console.print(line, style="bold", soft_wrap=True)
    facts = f"{cost.plan.clock_hz / 1e6:g} MHz; floating-point numbers in {cost.plan.engine.float_bits} bits"
    console.print(f"  {cost.plan.engine.description}; {facts}", soft_wrap=True)
    for each in report.phases:
        _show_nodes(console, each, top)
    _show_totals(console, report.phases)
    _show_area(console, report.phases)
    for each in report.phases:
        _show_comparison(console, each)
    _show_coverage(console, cost)
    _show_origin(console, report)


def _table(*columns: str, left: Sequence[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table


def _show_nodes(console: Console, each: PhaseCost, top: int) -> None:
    nodes = sorted(each.cost.nodes, key=lambda node: node.energy_pj, reverse=True)
    console.print(f"\n{each.phase.name}: {text.sizes(each.phase.dims)}", style="bold", soft_wrap=True)
    table = _table("node", "formats", "MACs", "time", "bound", "energy", "share", left=("node", "formats", "bound"))
    for node in nodes[:top]:
        table.add_row(*_node_cells(node, each.total.energy_pj))
    if rest := nodes[top:]:
        energy = sum(node.energy_pj for node in rest)
        share = text.percent(energy / each.total.energy_pj)
        macs, time = sum(node.macs for node in rest), sum(node.latency_us for node in rest)
        name = f"{len(rest)} other nodes"
        table.add_row(name, "", text.count(macs), text.time(time), "", text.energy(energy), share, style="dim")
    console.print(table)


def _node_cells(node: NodeCost, whole: float) -> tuple[str, ...]:
    return (
        node.name,
        text.formats(node.a_format, node.b_format) or node.op_type,
        text.count(node.macs),
        text.time(node.latency_us),
        node.bound,
        text.energy(node.energy_pj),
        text.percent(node.energy_pj / whole if whole else 0.0),
    )


def _show_totals(console: Console, phases: Iterable[PhaseCost]) -> None:
    phases = list(phases)
    console.print()
    table = _table("total", *(each.phase.name for each in phases), left=("total",))
    for name, write in _TOTALS:
        table.add_row(name, *(write(each.total) for each in phases))
    console.print(table)
    for part, reason in phases[0].cost.plan.absent.items():
        console.print(f"not in the energy: {text.LABELS[part]}, for {reason}", style="yellow", soft_wrap=True)


def _show_area(console: Console, phases: Sequence[PhaseCost]) -> None:
    cost = phases[0].cost
    console.print()
    table = _table("area", "for", "units", "each", "together", left=("area", "for"))
    for use in (*cost.plan.arrays, *cost.plan.all_quantizers):
        row = (use.unit.name, ", ".join(use.used_for), str(use.count), text.area(use.unit.area_um2))
        table.add_row(*row, text.area(use.area_um2))
    table.add_row("all, without SRAM", "", "", "", text.area(cost.area_um2))
    console.print(table)
    for each in phases:
        added = each.overhead
        shares = {
            "quantizers": (added.quantizer_area_share, added.quantizer_energy_share),
            "second scales": (added.asymmetric_area_share, added.asymmetric_energy_share),
        }
        if not added.twins:
            del shares["second scales"]
        parts = (
            f"{name} {text.percent(area)} of the area, {text.percent(energy)} of the energy"
            for name, (area, energy) in shares.items()
        )
        console.print(f"of {each.phase.name}: {'; '.join(parts)}", soft_wrap=True)


def _show_comparison(console: Console, each: PhaseCost) -> None:
    if not each.alternatives:
        return
    console.print(f"\n{each.phase.name} in other formats", style="bold")
    columns = ("format", "energy", "ratio", "arrays", "DRAM", "time at least", "ratio", "area", "ratio")
    table = _table(*columns, left=("format",))
    for name, total in (("this model", each.total), *((other.format, other.total) for other in each.alternatives)):
        table.add_row(
            name,
            text.energy(total.energy_pj),
            text.ratio(total.energy_pj / each.total.energy_pj),
            text.energy(total.mac_energy_pj),
            text.number_of(total.dram_bytes, "B"),
            text.time(total.latency_us),
            text.ratio(total.latency_us / each.total.latency_us),
            text.area(total.area_um2),
            text.ratio(total.area_um2 / each.total.area_um2),
        )
    console.print(table)


def _show_coverage(console: Console, cost: ModelCost) -> None:
    found = coverage(cost)
    line = f"\ncoverage: {found['counted']} of {found['nodes']} nodes ({text.percent(found['share'])})"
    if cost.uncovered:
        line += f", which leaves out {text.percent(found['uncovered_element_share'])} of all elements that nodes give"
    console.print(line, soft_wrap=True)
    reasons = collections.Counter((each.op_type, each.reason) for each in cost.uncovered)
    for (op_type, reason), number in reasons.items():
        console.print(f"  not covered: {number} {op_type}: {reason}", style="yellow", soft_wrap=True)


def _show_origin(console: Console, report: CostReport) -> None:
    technology = report.technology
    tools = ", ".join(f"{name} {version}" for name, version in technology.tools.items())
    facts = [f"{technology.node_nm:g} nm", technology.library, technology.corner]
    facts += [f"{technology.voltage_v:g} V" if technology.voltage_v else "", tools]
    console.print(f"units: {technology.status}; {technology.name}, {', '.join(filter(None, facts))}", soft_wrap=True)
    cost = report.phases[0].cost
    for constant in cost.plan.constants.values():
        line = f"{constant.name} {constant.value:g}: {constant.status}; {constant.source}"
        console.print(line, soft_wrap=True)
    for name, value in report.assumed.items():
        console.print(f"{name} = {value}: assumed; give another value with --dim", soft_wrap=True)
    for remark in dict.fromkeys(figure["remark"] for figure in figures(cost) if figure.get("remark")):
        console.print(f"note: {remark}", soft_wrap=True)
    console.print("absolute figures hold for this node and library alone; ratios travel further", style="dim")
