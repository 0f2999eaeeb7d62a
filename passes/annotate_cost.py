"""annotate-cost: what each node costs on an engine, in its metadata."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import onnx_ir as ir

from mxcompile.ops import DOMAIN
from mxcompile.passes.metadata import set_metadata

if TYPE_CHECKING:
    from mxcompile.cost.engine import Engine
    from mxcompile.cost.estimate import ModelCost, NodeCost
    from mxcompile.cost.totals import Total
    from mxcompile.cost.unit_cost import Technology

PREFIX: Final = "mxcompile.cost."
"""What the keys begin with; that of a phase with a name has it behind: ``mxcompile.cost.decode.energy_pj``."""

NODE_KEYS: Final = (
    *("unit", "macs", "quantized", "vector_ops", "cycles", "utilization", "latency_us", "bound", "energy_pj"),
    *("mac_energy_pj", "quantize_energy_pj", "vector_energy_pj", "buffer_energy_pj", "sram_energy_pj"),
    *("dram_energy_pj", "leakage_energy_pj", "sram_bytes", "dram_bytes", "intensity_macs_per_byte", "area_um2"),
)
"""Keys of a node, those of `NodeCost`; what is 0 or does not apply is left out, but for the energy."""

MODEL_KEYS: Final = (
    *("macs", "cycles", "utilization", "latency_us", "bound", "energy_pj", "mac_energy_pj", "quantize_energy_pj"),
    *("vector_energy_pj", "buffer_energy_pj", "sram_energy_pj", "dram_energy_pj", "leakage_energy_pj", "dram_bytes"),
    *("tokens", "energy_pj_per_token", "tokens_per_second", "area_um2"),
)
"""Keys of the model's sums, those of `Total`."""

UNCOVERED: Final = "uncovered"
"""Node: why it has no cost. Model: how many nodes have none."""


@dataclasses.dataclass(frozen=True)
class AnnotateCost(ir.passes.InPlacePass):
    """Writes the cost of one run into ``metadata_props``, of nodes and of the model.

    1. A node gets what `NODE_KEYS` names, under PREFIX; one without a formula gets the reason under UNCOVERED.
    2. The model gets the sums (`MODEL_KEYS`), and ``dims``, ``technology``, ``engine``, ``status``: what they rest on.
    3. Nodes in branches of an If are annotated if the run takes that branch. The nodes of a function that the model
       brings along are shared by its calls: their sum stands at the call.
    4. What an earlier run of the pass for the same phase wrote is replaced.

    Nothing else changes: the model computes what it did. Nodes do not record this pass as one that changed them.

    Attributes:
        dims: Sizes of the model's symbolic dimensions.
        technology: The unit costs.
        engine: The engine.
        tokens: Tokens, or samples, of the run.
        phase: Stands behind PREFIX in every key, so that a model can hold the cost of several runs; may be empty.
    """

    name: ClassVar[str] = "annotate-cost"
    dims: tuple[tuple[str, int], ...]
    technology: "Technology"
    engine: "Engine"
    tokens: int = 1
    phase: str = ""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Estimates the cost and writes it.

        Raises:
            CostModelError: A dimension without a value, a missing unit cost, or a model without a product.
        """
        # Slow to import, and of no use to the other passes.
        from mxcompile.cost.estimate import estimate
        from mxcompile.cost.report import figures, weakest
        from mxcompile.cost.storage import as_kept, float_bytes
        from mxcompile.cost.totals import total
        from mxcompile.cost.workload import count

        counts = as_kept(count(model).at(dict(self.dims)), float_bytes(model), self.engine.float_bits // 8)
        cost = estimate(counts, self.engine, self.technology, tokens=self.tokens)
        nodes = _nodes_by_path(model)
        values: dict[ir.Node, dict[str, str]] = {}
        for node, costs in _by_node(cost.nodes, nodes):
            values[node] = _texts(NODE_KEYS, _node_values(costs))
        for each in cost.uncovered:
            if each.name in nodes:
                values.setdefault(nodes[each.name], {})[UNCOVERED] = each.reason
        modified = False
        for node in model.graph.all_nodes():
            modified |= self._write(node.metadata_props, values.get(node, {}))
        statuses = [figure["status"] for figure in figures(cost)]
        modified |= self._write(model.metadata_props, self._model_values(cost, total(cost), weakest(statuses)))
        return ir.passes.PassResult(model, modified)

    def _model_values(self, cost: "ModelCost", whole: "Total", status: str) -> dict[str, str]:
        origin = self.technology.provenance
        kept = ("name", "node_nm", "library", "library_sha256", "script_sha256", "stimuli_sha256", "status")
        engine = {"name": self.engine.name, "units": [use.unit.name for use in cost.plan.arrays]}
        return _texts(MODEL_KEYS, dataclasses.asdict(whole)) | {
            "dims": json.dumps(dict(self.dims)),
            "technology": json.dumps({key: origin[key] for key in kept if origin[key]}),
            "engine": json.dumps(engine),
            "status": status,
            UNCOVERED: str(len(cost.uncovered)),
        }

    def _write(self, metadata: dict[str, str], values: Mapping[str, str]) -> bool:
        """Puts values in the place of those that this phase has; whether that changed anything."""
        prefix = PREFIX + (f"{self.phase}." if self.phase else "")
        old = {key: None for key in metadata if key.startswith(prefix) and "." not in key.removeprefix(prefix)}
        return set_metadata(metadata, old | {prefix + key: value for key, value in values.items()})


def _nodes_by_path(model: ir.Model) -> dict[str, ir.Node]:
    """The nodes of the graph and its branches by the paths of the counts; for those of a function, what calls it."""
    from mxcompile.cost.workload import nodes_by_name

    nodes = list(model.graph.all_nodes())
    own = set(nodes)
    calls = [node for node in nodes if node.domain != DOMAIN and node.op_identifier() in model.functions]
    found = {}
    for path, node in nodes_by_name(model).items():
        if node in own:
            found[path] = node
        elif (caller := next((call for call in calls if f"/{call.name}/" in f"/{path}"), None)) is not None:
            found[path] = caller
    return found


def _by_node(costs: Iterable["NodeCost"], nodes: Mapping[str, ir.Node]) -> Iterator[tuple[ir.Node, list["NodeCost"]]]:
    """The costs of each node: one, or those of the nodes in the function that it calls."""
    grouped: dict[ir.Node, list[NodeCost]] = {}
    for cost in costs:
        if cost.name in nodes:
            grouped.setdefault(nodes[cost.name], []).append(cost)
    yield from grouped.items()


def _node_values(costs: list["NodeCost"]) -> dict[str, Any]:
    """The values of a node; of several costs, the sums of what can be added."""
    from mxcompile.cost.report import node_dict

    values = [node_dict(cost) for cost in costs]
    if len(values) == 1:
        return values[0]
    return {key: sum(each[key] or 0 for each in values) for key in values[0] if key.endswith(_ADDED)}


_ADDED: Final = ("macs", "quantized", "vector_ops", "cycles", "latency_us", "energy_pj", "_bytes")


def _texts(keys: Iterable[str], values: Mapping[str, Any]) -> dict[str, str]:
    """The values that are not 0, or the energy, as short texts."""
    kept = {key: values[key] for key in keys if values.get(key) or key == "energy_pj"}
    return {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in kept.items()}
