"""fuse-matmul-block: one MatMulBlock in place of a MatMul over block-quantized operands."""

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from mxcompile.formats import NONE
from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL, QUANTIZE
from mxcompile.passes.metadata import record_pass, recorded_passes
from mxcompile.passes.rewriting import all_graphs, is_constant, producer, remove_unused, swaps_axes


@dataclasses.dataclass(frozen=True)
class _Match:
    """What a MatMul turns out to be: ``last`` gives the result of ``MatMulBlock(a, codes, scales, bias)``."""

    last: ir.Node
    a: ir.Value
    a_format: str
    codes: ir.Value
    scales: ir.Value
    b_format: str
    k: int
    bias: ir.Value | None


@dataclasses.dataclass(frozen=True)
class FuseMatMulBlock(ir.passes.InPlacePass):
    """Replaces ``MatMul(a, Transpose(DequantizeBlock(codes, scales)))`` over packed weights by MatMulBlock.

    1. If a is ``DequantizeBlock(QuantizeBlock(x))`` along the last axis, MatMulBlock reads x and quantizes it itself;
       else it reads a as it is.
    2. In a float16 graph the result is cast back, and an a that is not quantized was cast to float32: MatMulBlock
       takes and gives float16, so both casts go.
    3. ``Add(result, bias)`` goes too if bias is a constant ``[n]`` and nobody else reads the result.
    4. The MatMulBlock has the MatMul's name and metadata, its output the last replaced one's name. Quantizers that
       others still read stay.

    Walks the main graph and its subgraphs; weights may come from an outer graph. Functions hold no packed weights.

    A walk and not a set of onnxscript rules: with the optional parts there are twelve shapes of the pattern, parts of
    which stay (4) or lie in an outer graph, and metadata has to be kept.
    """

    name: ClassVar[str] = "fuse-matmul-block"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replaces every match."""
        modified = False
        for graph in all_graphs(model):
            for node in graph:
                found = _match(node)
                if found is not None:
                    self._replace(graph, node, found)
                    modified = True
        return ir.passes.PassResult(model, modified)

    def _replace(self, graph: ir.Graph, node: ir.Node, match: _Match) -> None:
        """Rule 4."""
        inputs = [match.a, match.codes, match.scales, *([match.bias] if match.bias is not None else [])]
        attributes: dict[str, str | int] = {"a_format": match.a_format, "b_format": match.b_format, "k": match.k}
        fused = ir.node(MATMUL, inputs, attributes, domain=DOMAIN, name=node.name)
        fused.metadata_props.update(node.metadata_props)
        record_pass(fused, *recorded_passes(match.last), self.name)
        old, new = match.last.outputs[0], fused.outputs[0]
        graph.insert_after(match.last, fused)
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        new.name = old.name
        remove_unused(old)


def _match(node: ir.Node) -> _Match | None:
    if (node.op_type, node.domain) != ("MatMul", ""):
        return None
    decode = _packed_weight(node.inputs[1])
    if decode is None or node.inputs[0] is None:
        return None
    a, a_format = _left(node.inputs[0])
    last = node
    if a.dtype is ir.DataType.FLOAT16:
        cast = _only_reader(node, "Cast")
        if cast is None or cast.attributes["to"].as_int() != ir.DataType.FLOAT16.value:
            return None  # float32 goes on from here, which MatMulBlock does not give of float16
        last = cast
    codes, scales = decode.inputs
    assert codes is not None  # by _packed_weight
    assert scales is not None
    bias = None
    add = _only_reader(last, "Add")
    if add is not None and _is_bias(add.inputs[1], codes):
        last, bias = add, add.inputs[1]
    b_format, k = decode.attributes["format"].as_string(), decode.attributes["size"].as_int()
    return _Match(last, a, a_format, codes, scales, b_format, k, bias)


def _packed_weight(columns: ir.Value | None) -> ir.Node | None:
    """The DequantizeBlock of constant rows of K that the value is the transpose of."""
    transpose = producer(columns, "Transpose")
    if transpose is None or not swaps_axes(transpose):
        return None
    decode = producer(transpose.inputs[0], DEQUANTIZE, DOMAIN)
    if decode is None or not _along_last_axis(decode) or "size" not in decode.attributes:
        return None
    codes = decode.inputs[0]
    matrix = codes is not None and codes.shape is not None and len(codes.shape) == 2
    return decode if matrix and all(is_constant(value) for value in decode.inputs) else None


def _left(a: ir.Value) -> tuple[ir.Value, str]:
    """Rules 1 and 2: what MatMulBlock reads on the left, and the format it quantizes that to."""
    decode = producer(a, DEQUANTIZE, DOMAIN)
    quantize = producer(decode.inputs[0], QUANTIZE, DOMAIN) if decode is not None else None
    if decode is not None and quantize is not None and decode.inputs[1] is quantize.outputs[1]:
        x, fmt = quantize.inputs[0], quantize.attributes["format"].as_string()
        same = decode.attributes["format"].as_string() == fmt
        if x is not None and same and _along_last_axis(decode) and _along_last_axis(quantize):
            return x, fmt
    cast = producer(a, "Cast")
    x = cast.inputs[0] if cast is not None else None
    return (x, NONE) if x is not None and x.dtype is ir.DataType.FLOAT16 else (a, NONE)


def _along_last_axis(node: ir.Node) -> bool:
    return node.attributes.get_int("axis", -1) == -1


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """The node of that type in the same graph that alone reads the result, as its first input."""
    result = node.outputs[0]
    uses = list(result.uses())
    if len(uses) != 1 or result.is_graph_output():
        return None
    reader, index = uses[0]
    matches = (reader.op_type, reader.domain, index) == (op_type, "", 0) and reader.graph is node.graph
    return reader if matches else None


def _is_bias(value: ir.Value | None, codes: ir.Value) -> bool:
    """Rule 3: a constant vector with an element for each row of codes."""
    if value is None or value.shape is None or codes.shape is None or not is_constant(value):
        return False
    return list(value.shape) == [codes.shape[0]]
