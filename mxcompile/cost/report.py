"""The cost of a model as JSON-ready values, as CSV, and in one call from a model to all of it."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import onnx_ir as ir

from mxcompile.cost.compare import Alternative, Overhead, compare, overhead
from mxcompile.cost.engine import Engine, load_engine
from mxcompile.cost.estimate import ModelCost, NodeCost, estimate
from mxcompile.cost.phases import Phase, choose_phases
from mxcompile.cost.plan import UnitUse
from mxcompile.cost.storage import as_kept, float_bytes
from mxcompile.cost.totals import Total, total
from mxcompile.cost.unit_cost import Technology, load_technology
from mxcompile.cost.workload import Workload, count

STATUS_ORDER: Final = ("measured", "published", "assumed")
"""From the firmest to the weakest."""


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """The cost of one run.

    Attributes:
        phase: The run.
        cost: Node by node.
        total: Sums.
        overhead: Of quantizers and second scales.
        alternatives: The same work in other formats, if asked for.
    """

    phase: Phase
    cost: ModelCost
    total: Total
    overhead: Overhead
    alternatives: tuple[Alternative, ...] = ()


@dataclasses.dataclass(frozen=True)
class CostReport:
    """What a model costs on an engine.

    Attributes:
        model: Where the model is.
        phases: Its runs; the first one is what ``total`` and ``nodes`` of the JSON are of.
        assumed: Dimensions that depend on data, by name, and what they are taken to be, in terms of others.
    """

    model: str
    phases: tuple[PhaseCost, ...]
    assumed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The engine of all phases."""
        return self.phases[0].cost.plan.engine

    @property
    def technology(self) -> Technology:
        """The technology of all phases."""
        return self.phases[0].cost.plan.technology

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        first = self.phases[0]
        content = {
            "model": self.model,
            **_phase_dict(first),
            "area": _area_dict(first.cost),
            "technology": self.technology.provenance,
            "engine": self.engine.provenance,
            "figures": figures(first.cost),
            "status": weakest(figure["status"] for figure in figures(first.cost)),
            "assumed": dict(self.assumed),
        }
        if len(self.phases) > 1:
            content["phases"] = {each.phase.name: _phase_dict(each) for each in self.phases}
        return content

    def to_csv(self) -> str:
        """A line for each node of each phase, with the names of `NodeCost` at the top."""
        file = io.StringIO()
        rows = [{"phase": each.phase.name, **node_dict(node)} for each in self.phases for node in each.cost.nodes]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue()


def cost_report(
    model: str,
    workload: Workload,
    float_bytes: int,
    engine: Engine,
    technology: Technology,
    phases: Sequence[Phase],
    *,
    formats: Sequence[str] = (),
) -> CostReport:
    """Estimates every phase.

    Args:
        model: Where the model is, for people.
        workload: Its counts.
        float_bytes: Bytes of its floating-point numbers (`storage.float_bytes`).
        engine: The engine.
        technology: The technology.
        phases: The runs, at least one.
        formats: Formats to compare with.

    Raises:
        CostModelError: A dimension without a value, or a missing unit cost.
    """
    found = []
    for phase in phases:
        counts = as_kept(workload.at(phase.dims), float_bytes, engine.float_bits // 8)
        cost = estimate(counts, engine, technology, tokens=phase.tokens)
        others = compare(counts, cost, formats) if formats else []
        found.append(PhaseCost(phase, cost, total(cost), overhead(counts, cost), tuple(others)))
    given = {name for phase in phases for name in phase.dims}
    assumed = {name: str(value) for name, value in workload.assumed.items() if name not in given}
    return CostReport(model, tuple(found), assumed)


def report_model(
    name: str,
    model: ir.Model,
    *,
    engine: str = "edge-npu",
    technology: str = "freepdk45",
    batch: int = 1,
    prefill: int | None = None,
    decode: int | None = None,
    dims: Mapping[str, int] | None = None,
    formats: Sequence[str] = (),
) -> CostReport:
    """The cost of a model, from the graph to the report; the model is not changed.

    Args:
        name: Where the model is, for people.
        model: A compiled model, or any other with ONNX's operators.
        engine: A shipped engine, or FILE.toml.
        technology: A shipped technology, or FILE.toml.
        batch: Sequences.
        prefill: Tokens of a prefill (see `choose_phases`).
        decode: Tokens in the cache of a step.
        dims: Any other dimensions by name.
        formats: Formats to compare with.

    Raises:
        CostModelError: A dimension without a value, a missing figure, or a model without a product.
    """
    costs, machine = load_technology(technology), load_engine(engine)  # a wrong name is told before the work
    workload = count(model)
    phases = choose_phases(workload.symbols, batch=batch, prefill=prefill, decode=decode, dims=dims)
    return cost_report(name, workload, float_bytes(model), machine, costs, phases, formats=formats)


def node_dict(node: NodeCost) -> dict[str, Any]:
    """A node as JSON-ready values, derived figures included."""
    derived = {"energy_pj": node.energy_pj, "intensity_macs_per_byte": node.intensity_macs_per_byte}
    return {**dataclasses.asdict(node), **derived}


def coverage(cost: ModelCost) -> dict[str, Any]:
    """How many nodes have a formula, and which do not, with the elements that they give and their share in all."""
    uncovered = [{key: value for key, value in _fields(each) if key != "runs"} for each in cost.uncovered]
    count, elements = len(cost.nodes) + len(uncovered), sum(each.elements for each in cost.uncovered)
    return {
        "nodes": count,
        "counted": len(cost.nodes),
        "share": len(cost.nodes) / count,
        "uncovered_element_share": elements / max(1, elements + cost.elements),
        "uncovered": uncovered,
    }


def _fields(each: Any) -> Iterable[tuple[str, Any]]:
    return dataclasses.asdict(each).items()


def figures(cost: ModelCost) -> list[dict[str, Any]]:
    """Every figure that the estimate rests on, with its origin."""
    technology = cost.plan.technology
    where = technology.library or technology.source
    rows = [
        {
            "name": use.unit.name,
            "area_um2": use.unit.area_um2,
            "energy_pj_per_op": use.unit.energy_pj_per_op,
            "node_nm": technology.node_nm,
            "status": use.unit.status,
            "source": use.unit.source or f"{technology.name}: {where}",
            "remark": use.remark,
        }
        for use in (*cost.plan.arrays, *cost.plan.all_quantizers)
    ]
    return [*rows, *(dataclasses.asdict(constant) for constant in cost.plan.constants.values())]


def weakest(statuses: Iterable[str]) -> str:
    """The weakest origin among several: an estimate is no firmer than its weakest figure."""
    return max(statuses, key=STATUS_ORDER.index)


def _phase_dict(each: PhaseCost) -> dict[str, Any]:
    content: dict[str, Any] = {
        "phase": each.phase.name,
        "dims": dict(each.phase.dims),
        "total": _finite(dataclasses.asdict(each.total)),
        "absent": dict(each.cost.plan.absent),
        "weights_stay_on_chip": each.cost.plan.resident,
        "overhead": dataclasses.asdict(each.overhead),
        "coverage": coverage(each.cost),
        "nodes": [node_dict(node) for node in each.cost.nodes],
    }
    if each.alternatives:
        content["compare"] = [_alternative_dict(other, each.total) for other in each.alternatives]
    return content


def _alternative_dict(other: Alternative, own: Total) -> dict[str, Any]:
    return {
        "format": other.format,
        "total": _finite(dataclasses.asdict(other.total)),
        "energy_ratio": other.total.energy_pj / own.energy_pj,
        "area_ratio": other.total.area_um2 / own.area_um2,
        "latency_ratio": other.total.latency_us / own.latency_us if own.latency_us else None,
    }


def _area_dict(cost: ModelCost) -> dict[str, Any]:
    def rows(uses: Sequence[UnitUse]) -> list[dict[str, Any]]:
        return [
            {
                "unit": use.unit.name,
                "used_for": list(use.used_for),
                "count": use.count,
                "unit_area_um2": use.unit.area_um2,
                "area_um2": use.area_um2,
                "status": use.unit.status,
                "remark": use.remark,
            }
            for use in uses
        ]

    return {"area_um2": cost.area_um2, "arrays": rows(cost.plan.arrays), "quantizers": rows(cost.plan.all_quantizers)}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with None in the place of infinity, which JSON cannot say."""
    return {name: None if value == float("inf") else value for name, value in values.items()}
