"""fuse-matmul-block: one MatMulBlock in place of a MatMul over block-quantized operands."""

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from mxcompile.formats import NONE
from mxcompile.ops import DEQUANTIZE, DOMAIN, MATMUL, QUANTIZE
from mxcompile.passes.analysis.values import constant
from mxcompile.passes.metadata import record_pass, recorded_passes
from mxcompile.passes.rewriting import all_graphs, is_constant, producer, remove_unused


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
    """Replaces ``MatMul(a, Transpose(DequantizeBlock(codes, scales)))`` by MatMulBlock.

    Over packed weights, and over what is quantized when the model runs: keys and values. A weight that is not packed
    yet stays.

    1. If a is ``DequantizeBlock(QuantizeBlock(x))`` along the last axis, MatMulBlock reads x and quantizes it itself;
       else it reads a as it is.
    2. In a float16 graph the result is cast back, and an a that is not quantized was cast to float32: MatMulBlock
       takes and gives float16, so both casts go.
    3. ``Add(result, bias)`` goes too if bias is a constant ``[n]`` and nobody else reads the result.
    4. A DequantizeBlock that is not told its size is cut to size by a Slice, or needs none. On the right the length of
       A's rows is that size, which MatMulBlock's ``k = 0`` says; on the left it must be the length of x's rows.
    5. The MatMulBlock has the MatMul's name and metadata, its output the last replaced one's name. Quantizers that
       others still read stay.

    Walks the main graph and its subgraphs; codes may come from an outer graph. Functions hold no products.

    A walk and not a set of onnxscript rules: with the optional parts there are dozens of shapes of the pattern, parts
    of which stay (5) or lie in an outer graph, and metadata has to be kept.
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
        """Rule 5."""
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
    decode = _right(node.inputs[1])
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
    assert codes is not None  # by _right
    assert scales is not None
    bias = None
    add = _only_reader(last, "Add")
    if add is not None and _is_bias(add.inputs[1], codes):
        last, bias = add, add.inputs[1]
    b_format, k = decode.attributes["format"].as_string(), _size(decode)
    return _Match(last, a, a_format, codes, scales, b_format, k, bias)


def _right(columns: ir.Value | None) -> ir.Node | None:
    """The DequantizeBlock of rows of K that the value is the transpose of."""
    transpose = producer(columns, "Transpose")
    if transpose is None or not _swaps_last_axes(transpose):
        return None
    rows = transpose.inputs[0]
    cut = producer(rows, "Slice")
    decode = producer(cut.inputs[0] if cut is not None else rows, DEQUANTIZE, DOMAIN)
    if decode is None or not _along_last_axis(decode) or decode.inputs[0] is None:
        return None
    if cut is not None and (_size(decode) > 0 or not _cuts_rows(cut)):
        return None
    return decode if _is_packed(decode) or _is_activation(decode.inputs[0]) else None


def _size(decode: ir.Node) -> int:
    """The size that a DequantizeBlock is told; 0 if none."""
    return decode.attributes.get_int("size", 0)


def _is_packed(decode: ir.Node) -> bool:
    """Whether the node decodes a constant matrix of k columns."""
    codes = decode.inputs[0]
    matrix = codes is not None and codes.shape is not None and len(codes.shape) == 2
    return matrix and _size(decode) > 0 and all(is_constant(value) for value in decode.inputs)


def _is_activation(codes: ir.Value) -> bool:
    """Whether the codes are made when the model runs; those of a weight wait for pack-weights."""
    quantize = producer(codes, QUANTIZE, DOMAIN)
    return not is_constant(quantize.inputs[0] if quantize is not None else codes)


def _left(a: ir.Value) -> tuple[ir.Value, str]:
    """Rules 1, 2 and 4: what MatMulBlock reads on the left, and the format it quantizes that to."""
    cut = producer(a, "Slice")
    decode = producer(cut.inputs[0] if cut is not None else a, DEQUANTIZE, DOMAIN)
    quantize = producer(decode.inputs[0], QUANTIZE, DOMAIN) if decode is not None else None
    if decode is not None and quantize is not None and decode.inputs[1] is quantize.outputs[1]:
        x, fmt = quantize.inputs[0], quantize.attributes["format"].as_string()
        same = decode.attributes["format"].as_string() == fmt
        whole = cut is None or (_cuts_rows(cut) and _is_length(cut.inputs[2], x))
        if x is not None and same and whole and _along_last_axis(decode) and _along_last_axis(quantize):
            return x, fmt
    cast = producer(a, "Cast")
    x = cast.inputs[0] if cast is not None else None
    return (x, NONE) if x is not None and x.dtype is ir.DataType.FLOAT16 else (a, NONE)


def _swaps_last_axes(node: ir.Node) -> bool:
    perm = tuple(node.attributes.get_ints("perm", (1, 0)))
    rank = len(perm)
    return rank >= 2 and perm == (*range(rank - 2), rank - 1, rank - 2)


def _cuts_rows(cut: ir.Node) -> bool:
    """Whether a Slice keeps the front of each row."""
    optional = list(cut.inputs[3:])
    is_last = bool(optional) and _is(optional[0], -1)
    return _is(cut.inputs[1], 0) and is_last and all(_is(steps, 1) for steps in optional[1:])


def _is(value: ir.Value | None, number: int) -> bool:
    array = constant(value)
    return array is not None and array.tolist() == [number]


def _is_length(value: ir.Value | None, x: ir.Value | None) -> bool:
    """Whether the value is the length of the rows of x."""
    shape = producer(value, "Shape")
    if shape is None or shape.inputs[0] is not x:
        return False
    return shape.attributes.get_int("start", 0) == -1 and "end" not in shape.attributes


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
    if value is None or value.shape is None or codes.shape is None or len(codes.shape) != 2 or not is_constant(value):
        return False
    return list(value.shape) == [codes.shape[0]]
