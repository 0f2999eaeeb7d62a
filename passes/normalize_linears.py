"""normalize-linears: one shape for every linear layer."""

import dataclasses
import functools
import logging
from typing import ClassVar

import onnx_ir as ir

from mxcompile.passes.analysis.linears import gemm_obstacle, obstacle
from mxcompile.passes.metadata import SKIPPED, record_pass, set_metadata
from mxcompile.passes.rewriting import UniqueNames, all_graphs, is_constant, producer, remove_unused

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class NormalizeLinears(ir.passes.InPlacePass):
    """Brings every linear layer into the form ``Add(MatMul(x, weight), bias)``.

    1. Readers of ``Identity(initializer)`` read the initializer.
    2. ``Gemm(x, w, c)`` with alpha = beta = 1 and transA = 0 becomes ``Add(MatMul(x, w), c)``, with
       ``Transpose(w)`` in place of w if transB = 1. The MatMul has the Gemm's name, the last node the output's. Any
       other Gemm over a constant weight stays, and says why in its metadata.
    3. ``Add(bias, MatMul(x, w))`` over a constant bias becomes ``Add(MatMul(x, w), bias)``.

    No weight is read or copied: a tied weight stays one initializer behind a Transpose. Walks the main graph and its
    subgraphs; functions hold no initializers, so there is nothing to do in them.
    """

    name: ClassVar[str] = "normalize-linears"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites all aliases, then all Gemms, then all Adds."""
        names = UniqueNames(model)
        modified = False
        for rewrite in (_resolve_alias, functools.partial(self._expand_gemm, names=names), self._order_add):
            for graph in all_graphs(model):
                for node in graph:
                    modified |= rewrite(node)
        return ir.passes.PassResult(model, modified)

    def _expand_gemm(self, node: ir.Node, names: UniqueNames) -> bool:
        """Rule 2."""
        graph = node.graph
        if (node.op_type, node.domain) != ("Gemm", "") or graph is None or obstacle(node) is not None:
            return False
        reason = gemm_obstacle(node)
        if reason is not None:
            logger.info("%s: %s", node.name, reason)
            return set_metadata(node.metadata_props, {SKIPPED: reason})
        x, weight, bias = (*node.inputs, None)[:3]
        made: list[ir.Node] = []
        if node.attributes.get_int("transB", 0):
            made.append(ir.node("Transpose", [weight], {"perm": [1, 0]}, name=f"{node.name}.transpose"))
            weight = made[-1].outputs[0]
            weight.name = names.take(f"{node.outputs[0].name}.weight")
        made.append(ir.node("MatMul", [x, weight], name=node.name))
        if bias is not None:
            product = made[-1].outputs[0]
            product.name = names.take(f"{node.outputs[0].name}.product")
            product.type, product.shape = node.outputs[0].type, node.outputs[0].shape
            made.append(ir.node("Add", [product, bias], name=f"{node.name}.bias"))
        for each in made:
            each.metadata_props.update(node.metadata_props)
            record_pass(each, self.name)
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, made[-1].outputs)
        return True

    def _order_add(self, node: ir.Node) -> bool:
        """Rule 3."""
        if (node.op_type, node.domain) != ("Add", ""):
            return False
        bias, product = node.inputs
        matmul = producer(product, "MatMul")
        if matmul is None or not is_constant(bias) or obstacle(matmul) is not None:
            return False
        node.replace_input_with(0, product)
        node.replace_input_with(1, bias)
        record_pass(node, self.name)
        return True


def _resolve_alias(node: ir.Node) -> bool:
    """Rule 1. An alias that is a graph output stays one, but loses its other readers."""
    if (node.op_type, node.domain) != ("Identity", ""):
        return False
    alias, source = node.outputs[0], node.inputs[0]
    if source is None or not is_constant(source):
        return False
    readers = alias.uses()
    for reader, index in readers:
        reader.replace_input_with(index, source)
    removable = not alias.is_graph_output()
    remove_unused(alias)
    return bool(readers) or removable
